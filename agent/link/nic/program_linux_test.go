package nic

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
)

// answerRedirect is TCX_REDIRECT, TC_ACT_REDIRECT.
const answerRedirect = 7

// skb is the beginning of struct __sk_buff, as programs are run with it.
type skb struct {
	_       [2]uint32
	Mark    uint32
	_       [6]uint32
	Ingress uint32
	_       [38]uint32
}

// loaded is a program in the kernel, with its switch.
type loaded struct {
	*ebpf.Program
	on *ebpf.Map
}

func load(t testing.TB, code func(onMap int) asm.Instructions) loaded {
	t.Helper()
	need.Root(t)
	on, err := newSwitch()
	if errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported) {
		need.Missing(t, "bpf", err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { on.Close() })
	program, err := loadProgram("tested", code(on.FD()))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { program.Close() })
	return loaded{program, on}
}

// run is what the program answers, and the mark that it leaves.
func (l loaded) run(t testing.TB, frame []byte, in skb) (answer int32, mark uint32) {
	t.Helper()
	var out skb
	got, err := l.Run(&ebpf.RunOptions{Data: frame, Context: in, ContextOut: &out})
	if err != nil {
		t.Fatalf("run over %x: %v", frame, err)
	}
	return int32(got), out.Mark
}

func TestProgramsAtTheInterface(t *testing.T) {
	const into, back = 1000, 1001
	web := link.Match{Destination: netip.MustParsePrefix("192.0.2.0/24"), Protocol: link.TCP, Port: 443}
	keep := []link.Match{{Destination: netip.MustParsePrefix("192.0.2.9/32"), Protocol: link.TCP, Port: 443}}
	frame := packet{to: "192.0.2.1", from: "10.0.0.1", protocol: protoTCP, ports: [2]uint16{50000, 443}}.frame()
	away := load(t, func(on int) asm.Instructions { return enter(sent, selection{match: web, kept: keep}, into, back, on) })
	home := load(t, func(on int) asm.Instructions {
		return enter(received, selection{match: web, kept: keep}, into, back, on)
	})
	reply := packet{to: "10.0.0.1", from: "192.0.2.1", protocol: protoTCP, ports: [2]uint16{443, 50000}}.frame()

	if got, _ := away.run(t, frame, skb{}); got != answerNext {
		t.Errorf("switched off, the program answers %d, want %d", got, answerNext)
	}
	for _, l := range []loaded{away, home} {
		if err := turn(l.on, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name       string
		program    loaded
		frame      []byte
		skb        skb
		want       int32
		wantMarked uint32
	}{
		{"sent", away, frame, skb{}, answerRedirect, 0},
		{"sent, with a mark of another", away, frame, skb{Mark: 7}, answerRedirect, 7},
		{"back from the link", away, frame, skb{Ingress: back}, answerNext, 0},
		{"forwarded from elsewhere", away, frame, skb{Ingress: back + 1}, answerRedirect, 0},
		{"the answer, sent", away, reply, skb{}, answerNext, 0},
		{"received", home, reply, skb{}, answerRedirect, 0},
		{"back from the link to the host", home, reply, skb{Mark: passed}, answerNext, 0},
		{"the question, received", home, frame, skb{}, answerNext, 0},
	} {
		got, mark := test.program.run(t, test.frame, test.skb)
		if got != test.want || mark != test.wantMarked {
			t.Errorf("%s: answer %d and mark %#x, want %d and %#x", test.name, got, mark, test.want, test.wantMarked)
		}
	}
}

func TestProgramsBehindTheLink(t *testing.T) {
	const to = 1000
	away := load(t, func(int) asm.Instructions { return leave(sent, to) })
	home := load(t, func(int) asm.Instructions { return leave(received, to) })
	ip := packet{to: "2001:db8::1", from: "2001:db8::2", protocol: protoUDP, ports: [2]uint16{1, 2}}.frame()
	broadcast := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, ip[6:])
	arp := slices.Clone(ip)
	binary.BigEndian.PutUint16(arp[12:], 0x0806)
	for _, test := range []struct {
		name    string
		program loaded
		frame   []byte
		want    int32
		mark    uint32
	}{
		{"what is sent", away, ip, answerRedirect, 0},
		{"what is received", home, ip, answerRedirect, passed},
		{"a broadcast", away, broadcast, answerDrop, 0},
		{"ARP", away, arp, answerDrop, 0},
		{"a broadcast, received", home, broadcast, answerDrop, 0},
	} {
		if got, mark := test.program.run(t, test.frame, skb{}); got != test.want || mark != test.mark {
			t.Errorf("%s: answer %d and mark %#x, want %d and %#x", test.name, got, mark, test.want, test.mark)
		}
	}
}

// The program that the kernel runs and a model of it in Go agree on packets of
// every kind. What has been told to be kept is never diverted, whatever the match.
func TestProgramAgreesWithModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	diverted, passedBy := 0, 0
	for range 150 {
		w := selection{match: randomMatch(random), kept: []link.Match{randomMatch(random), randomMatch(random)}}
		w.loopback = w.match.Port != 0 && random.IntN(4) == 0
		for _, s := range []side{sent, received} {
			program := load(t, func(on int) asm.Instructions { return enter(s, w, 5, 6, on) })
			if err := turn(program.on, true); err != nil {
				t.Fatal(err)
			}
			for range 60 {
				p := randomPacket(random)
				want := int32(answerNext)
				if p.diverted(s, w) {
					want = answerRedirect
					diverted++
				} else {
					passedBy++
				}
				if got, _ := program.run(t, p.frame(), skb{}); got != want {
					t.Fatalf("%+v where it %v: the program answers %d to %+v, the model %d", w, s, got, p, want)
				}
			}
			program.Close()
			program.on.Close()
		}
	}
	if diverted < 300 || passedBy < 500 {
		t.Errorf("%d packets were diverted and %d not: the test proves little", diverted, passedBy)
	}
}

// packet is one as far as programs look at it.
type packet struct {
	to, from  string
	protocol  uint8
	ports     [2]uint16 // source, destination
	icmp      uint8     // type
	fragment  uint16    // IPv4's flags and offset
	options   int       // IPv4's, in words
	group     bool      // to a group of stations
	etherType uint16    // another than IP's
	cut       int       // bytes missing at the end
}

func (p packet) frame() []byte {
	to, from := netip.MustParseAddr(p.to), netip.MustParseAddr(p.from)
	f := make([]byte, ethernetLen, 200)
	f[0], f[6] = 2, 2
	if p.group {
		f[0] = 1
	}
	kind := uint16(etherTypeIPv4)
	if to.Is6() {
		kind = etherTypeIPv6
	}
	if p.etherType != 0 {
		kind = p.etherType
	}
	binary.BigEndian.PutUint16(f[12:], kind)
	if to.Is4() {
		h := make([]byte, ipv4Len+4*p.options)
		h[0] = 4<<4 | byte(5+p.options)
		binary.BigEndian.PutUint16(h[ipv4Fragment:], p.fragment)
		h[ipv4Protocol] = p.protocol
		copy(h[ipv4Source:], from.AsSlice())
		copy(h[ipv4Dest:], to.AsSlice())
		f = append(f, h...)
	} else {
		h := make([]byte, ipv6Len)
		h[0], h[ipv6Next] = 6<<4, p.protocol
		copy(h[ipv6Source:], from.AsSlice())
		copy(h[ipv6Dest:], to.AsSlice())
		f = append(f, h...)
	}
	transport := make([]byte, 20)
	switch p.protocol {
	case protoTCP, protoUDP:
		binary.BigEndian.PutUint16(transport, p.ports[0])
		binary.BigEndian.PutUint16(transport[2:], p.ports[1])
	default:
		transport[0] = p.icmp
	}
	f = append(f, transport...)
	return f[:len(f)-p.cut]
}

// diverted is the model.
func (p packet) diverted(s side, w selection) bool {
	remote := netip.MustParseAddr(p.to)
	if s == received {
		remote = netip.MustParseAddr(p.from)
	}
	if p.group || p.etherType != 0 || remote.Is4() && p.fragment&0x3fff != 0 {
		return false
	}
	hasPorts := p.protocol == protoTCP || p.protocol == protoUDP
	if hasPorts && p.cut > 16 {
		return false
	}
	if remote.Is6() {
		switch p.protocol {
		case 0, 43, 44, 50, 51, 60, 135, 139, 140, 253, 254:
			return false
		case protoICMPv6:
			if p.cut == 20 || p.icmp >= 130 && p.icmp <= 137 || p.icmp == 143 {
				return false
			}
		}
	}
	selects := func(m link.Match) bool {
		if m.Destination.IsValid() && !m.Destination.Contains(remote) {
			return false
		}
		if n := number(m.Protocol, remote.Is6()); n != 0 && n != int32(p.protocol) {
			return false
		}
		return m.Port == 0 || hasPorts && slices.Contains(p.ports[:], m.Port)
	}
	if w.loopback && (s == sent && p.ports[1] != w.match.Port || s == received && p.ports[0] != w.match.Port) {
		return false
	}
	return selects(w.match) && !slices.ContainsFunc(slices.Concat(alwaysKept(), w.kept), selects)
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

func randomMatch(random *rand.Rand) link.Match {
	for {
		m := link.Match{Protocol: pick(random, link.AnyProtocol, link.TCP, link.UDP, link.ICMP)}
		if m.Protocol != link.ICMP {
			m.Port = pick[uint16](random, 0, 0, 80, 443)
		}
		if base := pick(random, "", "192.0.2.77", "192.0.0.0", "2001:db8:1:2:3:4:5:6", "2001:db8::"); base != "" {
			address := netip.MustParseAddr(base)
			m.Destination = netip.PrefixFrom(address, random.IntN(address.BitLen()+1)).Masked()
		}
		if m != (link.Match{}) {
			return m
		}
	}
}

func randomPacket(random *rand.Rand) packet {
	v4 := []string{"192.0.2.77", "192.0.2.78", "192.0.0.1", "128.1.1.1", "10.0.0.1"}
	v6 := []string{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:7", "2001:db8:1::", "2001:db9::1", "fe80::1"}
	all := v4
	if random.IntN(2) == 0 {
		all = v6
	}
	p := packet{
		to: pick(random, all...), from: pick(random, all...),
		protocol: pick[uint8](random, protoTCP, protoTCP, protoUDP, protoUDP, protoICMP, protoICMPv6, 47, 0, 44),
		ports:    [2]uint16{pick[uint16](random, 22, 67, 80, 443, 546, 50000), pick[uint16](random, 22, 68, 80, 443, 547, 50001)},
		icmp:     pick[uint8](random, 128, 129, 130, 133, 135, 136, 137, 138, 143, 144),
	}
	switch random.IntN(12) {
	case 0:
		p.fragment = pick[uint16](random, 0x2000, 0x4000, 1, 0x2005)
	case 1:
		p.options = 1 + random.IntN(10)
	case 2:
		p.group = true
	case 3:
		p.etherType = pick[uint16](random, 0x0806, 0x8100, 0x88b5)
	case 4:
		p.cut = pick(random, 16, 17, 20)
	}
	return p
}
