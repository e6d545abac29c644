package wire

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tcplab/tcplab/agent/link"
)

// ethernet builds an Ethernet frame from layers, with lengths and checksums as gopacket computes them.
func ethernet(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func header(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: kind}
}

func ipv4(carries layers.IPProtocol, tos uint8) *layers.IPv4 {
	return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, TOS: tos, Protocol: carries, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 1, 2, 3}}
}

func ipv6(next layers.IPProtocol, class uint8) *layers.IPv6 {
	return &layers.IPv6{
		Version: 6, HopLimit: 64, TrafficClass: class, NextHeader: next,
		SrcIP: netip.MustParseAddr("fd00::1").AsSlice(), DstIP: netip.MustParseAddr("fd00:1::2").AsSlice(),
	}
}

func tcp(over gopacket.NetworkLayer, from, to layers.TCPPort) *layers.TCP {
	l := &layers.TCP{SrcPort: from, DstPort: to, Seq: 1, Window: 1000, ACK: true}
	_ = l.SetNetworkLayerForChecksum(over)
	return l
}

func udp(over gopacket.NetworkLayer, from, to layers.UDPPort) *layers.UDP {
	l := &layers.UDP{SrcPort: from, DstPort: to}
	_ = l.SetNetworkLayerForChecksum(over)
	return l
}

// tcp4 is a frame of TCP over IPv4, and tcp6 of TCP over IPv6.
func tcp4(t testing.TB, tos uint8, payload int) []byte {
	ip := ipv4(layers.IPProtocolTCP, tos)
	return ethernet(t, header(layers.EthernetTypeIPv4), ip, tcp(ip, 4000, 80), gopacket.Payload(make([]byte, payload)))
}

func tcp6(t testing.TB, class uint8, payload int) []byte {
	ip := ipv6(layers.IPProtocolTCP, class)
	return ethernet(t, header(layers.EthernetTypeIPv6), ip, tcp(ip, 4000, 80), gopacket.Payload(make([]byte, payload)))
}

func TestMark(t *testing.T) {
	// Whatever the rest of the header, the checksum stays right.
	for tos := range 256 {
		for name, frame := range map[string][]byte{"IPv4": tcp4(t, uint8(tos), 10), "IPv6": tcp6(t, uint8(tos), 10)} {
			capable := tos&3 != 0
			if got := mark(frame); got != capable {
				t.Fatalf("%s with %#x: marked %v", name, tos, got)
			}
			want := uint8(tos)
			if capable {
				want |= 3
			}
			decoded := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			switch l := decoded.NetworkLayer().(type) {
			case *layers.IPv4:
				if l.TOS != want || fold(frame[14:34]) != 0xffff {
					t.Fatalf("IPv4 with %#x is %#x, its header sums to %#x", tos, l.TOS, fold(frame[14:34]))
				}
			case *layers.IPv6:
				if l.TrafficClass != want {
					t.Fatalf("IPv6 with %#x is %#x", tos, l.TrafficClass)
				}
			}
		}
	}
	ip := ipv4(layers.IPProtocolTCP, 2)
	tagged := ethernet(t, header(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 5, Type: layers.EthernetTypeIPv4}, ip, tcp(ip, 1, 2))
	if !mark(tagged) || tagged[19] != 3 || fold(tagged[18:38]) != 0xffff {
		t.Error("behind a VLAN tag it is not marked")
	}
	for _, other := range [][]byte{nil, make([]byte, 14), make([]byte, 60), tcp4(t, 2, 10)[:20], tcp6(t, 2, 10)[:40]} {
		if mark(other) {
			t.Errorf("marked %x", other)
		}
	}
}

// damaged reports what a receiver's checksums say of an Ethernet frame: the IP header, then TCP.
func damaged(frame []byte) bool {
	switch version, at := ip(frame); version {
	case 4:
		packet := frame[at:]
		size := int(packet[0]&15) * 4
		if fold(packet[:size]) != 0xffff {
			return true
		}
		total := int(binary.BigEndian.Uint16(packet[2:]))
		pseudo := append([]byte{}, packet[12:20]...)
		pseudo = append(pseudo, 0, packet[9])
		pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(total-size))
		return fold(append(pseudo, packet[size:total]...)) != 0xffff
	case 6:
		packet := frame[at:]
		pseudo := append([]byte{}, packet[8:40]...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(binary.BigEndian.Uint16(packet[4:])))
		pseudo = append(pseudo, 0, 0, 0, packet[6])
		return fold(append(pseudo, packet[40:]...)) != 0xffff
	}
	return true // a version that is none
}

func differing(a, b []byte) (bits int) {
	for i := range a {
		for x := a[i] ^ b[i]; x != 0; x &= x - 1 {
			bits++
		}
	}
	return bits
}

func TestCorruptTurnsOneBitThatAChecksumKnows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	padded := append(tcp4(t, 0, 1), make([]byte, 5)...) // Ethernet's padding is nobody's
	for name, original := range map[string][]byte{"IPv4": tcp4(t, 0, 100), "IPv6": tcp6(t, 0, 100), "padded": padded} {
		if damaged(original) {
			t.Fatalf("%s is damaged from the start", name)
		}
		for range 2000 {
			data := append([]byte{}, original...)
			f := &frame{data: data, size: len(data)}
			if !corrupt(f, random) || differing(original, data) != 1 || differing(original[:14], data[:14]) != 0 {
				t.Fatalf("%s: %d bits differ", name, differing(original, data))
			}
			if !damaged(data) {
				t.Fatalf("%s: the receiver does not notice\n%s", name, hex.Dump(data))
			}
		}
	}
	arp := make([]byte, 42)
	arp[12], arp[13] = 8, 6
	data := append([]byte{}, arp...)
	if !corrupt(&frame{data: data, size: len(data)}, random) || differing(arp[14:], data[14:]) != 1 {
		t.Error("what is not IP is not damaged behind its header")
	}
	if corrupt(&frame{data: arp[:14], size: 14}, random) {
		t.Error("a frame of nothing is damaged")
	}
}

// A checksum that was left to the device is finished before the damage.
func TestCorruptFinishesTheChecksum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, original := range map[string][]byte{"IPv4": tcp4(t, 0, 101), "IPv6": tcp6(t, 0, 101)} {
		start := 34
		if name == "IPv6" {
			start = 54
		}
		for _, super := range []byte{0, 1} {
			for range 500 {
				data := append(make([]byte, vnetHeader), original...)
				header, inner := data[:vnetHeader], data[vnetHeader:]
				header[0], header[1] = needsChecksum, super
				binary.NativeEndian.PutUint16(header[6:], uint16(start))
				binary.NativeEndian.PutUint16(header[8:], 16)
				// What the stack leaves there: the sum of the pseudo-header, whose complement with the rest is the checksum.
				full := binary.BigEndian.Uint16(inner[start+16:])
				inner[start+16], inner[start+17] = 0, 0
				rest := fold(inner[start:])
				pseudo := uint32(^full) + 0xffff - uint32(rest)
				for pseudo > 0xffff {
					pseudo = pseudo>>16 + pseudo&0xffff
				}
				binary.BigEndian.PutUint16(inner[start+16:], uint16(pseudo))
				if !corrupt(&frame{data: data, size: len(inner)}, random) {
					t.Fatal("not damaged")
				}
				if header[0] != 0 {
					t.Fatal("the checksum is still promised")
				}
				if differing(original, inner) != 1 || !damaged(inner) {
					t.Fatalf("%s: %d bits differ from the packet with its checksum", name, differing(original, inner))
				}
				if super != 0 && differing(original[:start], inner[:start]) != 0 {
					t.Fatalf("%s: the header of a super-packet is damaged", name)
				}
			}
		}
	}
}

func TestClassify(t *testing.T) {
	v4, v6 := ipv4(layers.IPProtocolTCP, 0), ipv6(layers.IPProtocolTCP, 0)
	u4, u6 := ipv4(layers.IPProtocolUDP, 0), ipv6(layers.IPProtocolUDP, 0)
	later := ipv4(layers.IPProtocolUDP, 0)
	later.FragOffset = 100
	first := ipv4(layers.IPProtocolUDP, 0)
	first.Flags = layers.IPv4MoreFragments
	options := ipv4(layers.IPProtocolTCP, 0)
	options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	data := gopacket.Payload(make([]byte, 30))
	raw6 := func(chain string) []byte { // headers behind IPv6, the first byte says which is the first
		bytes, err := hex.DecodeString(chain)
		if err != nil {
			t.Fatal(err)
		}
		return ethernet(t, header(layers.EthernetTypeIPv6), ipv6(layers.IPProtocol(bytes[0]), 0), gopacket.Payload(bytes[1:]))
	}
	const ports = "0fa000500000000100000000500000000000000000" // 4000 to 80
	frames := map[string][]byte{
		"tcp4":          tcp4(t, 0, 10),
		"tcp6":          tcp6(t, 0, 10),
		"tcp4 back":     ethernet(t, header(layers.EthernetTypeIPv4), v4, tcp(v4, 80, 4000)),
		"udp4":          ethernet(t, header(layers.EthernetTypeIPv4), u4, udp(u4, 5000, 53), data),
		"udp6":          ethernet(t, header(layers.EthernetTypeIPv6), u6, udp(u6, 5000, 53), data),
		"icmp4":         ethernet(t, header(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolICMPv4, 0), &layers.ICMPv4{}, data),
		"icmp6":         ethernet(t, header(layers.EthernetTypeIPv6), ipv6(layers.IPProtocolICMPv6, 0), data),
		"icmp6 in 4":    ethernet(t, header(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolICMPv6, 0), data),
		"vlan":          ethernet(t, header(layers.EthernetTypeDot1Q), &layers.Dot1Q{Type: layers.EthernetTypeIPv4}, v4, tcp(v4, 4000, 80)),
		"two tags":      ethernet(t, header(0x88a8), &layers.Dot1Q{Type: layers.EthernetTypeDot1Q}, &layers.Dot1Q{Type: layers.EthernetTypeIPv6}, v6, tcp(v6, 4000, 80)),
		"options":       ethernet(t, header(layers.EthernetTypeIPv4), options, tcp(options, 4000, 80)),
		"later piece":   ethernet(t, header(layers.EthernetTypeIPv4), later, data),
		"first piece":   ethernet(t, header(layers.EthernetTypeIPv4), first, udp(first, 5000, 53), data),
		"hop by hop":    raw6("00" + "0600000000000000" + ports),
		"chain":         raw6("3c" + "2b00000000000000" + "2c010000000000000000000000000000" + "0600000000000001" + ports),
		"auth":          raw6("33" + "0601000000000000" + "00000000" + ports),
		"later piece 6": raw6("2c" + "0600000800000001" + ports),
		"first piece 6": raw6("2c" + "0600000100000001" + ports),
		"cut short":     raw6("00" + "0600"),
		"cut ports":     ethernet(t, header(layers.EthernetTypeIPv4), v4, gopacket.Payload{1, 2}),
		"arp":           append(make([]byte, 12), append([]byte{8, 6}, make([]byte, 46)...)...),
		"short":         make([]byte, 10),
	}
	tests := []struct {
		match link.Match
		want  string // names of the frames, in any order
	}{
		{link.Match{Protocol: link.TCP, Port: 80}, "tcp4,tcp6,tcp4 back,vlan,two tags,options,hop by hop,chain,auth,first piece 6"},
		{link.Match{Port: 53}, "udp4,udp6,first piece"},
		{link.Match{Port: 4000, Protocol: link.UDP}, ""},
		{link.Match{Protocol: link.UDP}, "udp4,udp6,later piece,first piece"},
		{link.Match{Protocol: link.ICMP}, "icmp4,icmp6"},
		{link.Match{Destination: netip.MustParsePrefix("10.1.0.0/16")}, "tcp4,tcp4 back,udp4,icmp4,icmp6 in 4,vlan,options,later piece,first piece,cut ports"},
		{link.Match{Destination: netip.MustParsePrefix("10.1.2.4/32")}, ""},
		{link.Match{Destination: netip.MustParsePrefix("fd00:1::/32"), Protocol: link.TCP}, "tcp6,two tags,hop by hop,chain,auth,later piece 6,first piece 6"},
		{link.Match{Destination: netip.MustParsePrefix("::/0"), Protocol: link.UDP}, "udp6"},
	}
	for _, test := range tests {
		want := map[string]bool{}
		for name := range strings.SplitSeq(test.want, ",") {
			want[name] = true
		}
		for name, frame := range frames {
			k := keyOf(frame)
			if got := k.selects(test.match); got != want[name] {
				t.Errorf("%v selects %q: %v", test.match, name, got)
			}
		}
	}
}

// Whatever a frame holds, nothing reads or writes beyond it.
func FuzzFrames(f *testing.F) {
	f.Add(tcp4(f, 2, 10), uint8(0))
	f.Add(tcp6(f, 2, 10), uint8(10))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, headroom uint8) {
		if len(data) < int(headroom) {
			return
		}
		carried := &frame{data: data, size: len(data) - int(headroom)}
		before := append([]byte{}, carried.ethernet()...)
		k := keyOf(carried.ethernet())
		k.selects(link.Match{Port: 80})
		if mark(carried.ethernet()) && len(before) < ethernetHeader+headerIPv4 {
			t.Error("marked what is no packet")
		}
		corrupt(carried, rand.New(rand.NewPCG(1, 2)))
	})
}
