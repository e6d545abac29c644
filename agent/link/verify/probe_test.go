package verify

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// kindsOfPacket are packets of every kind.
func kindsOfPacket() []packet {
	all := []packet{{}}
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, protocol := range []link.Protocol{link.TCP, link.UDP, link.ICMP, link.AnyProtocol} {
			p := packet{to: netip.MustParseAddr(to), protocol: protocol}
			if protocol == link.TCP || protocol == link.UDP {
				p.source, p.dest = 50000, 80
			}
			all = append(all, p)
		}
	}
	return all
}

// A probe is known with any one bit of its frame turned over, and the damage is seen.
func TestProbeSurvivesDamage(t *testing.T) {
	want := probe{nonce: 1<<31 + 7, stream: 3, seq: 4711, sent: 1700000000 * time.Second}
	for _, kind := range kindsOfPacket() {
		m := newMold(kind, []byte{2, 0, 0, 0, 0, 1}, kind.smallest())
		frame := bytes.Clone(m.pour(want))
		if got, ok := parse(frame, want.nonce); !ok || got != want {
			t.Fatalf("%v: got %+v, %v, want %+v", kind, got, ok, want)
		}
		if _, ok := parse(frame, want.nonce+1); ok {
			t.Errorf("%v: a probe of another attempt is taken for one of this", kind)
		}
		for bit := range 8 * len(frame) {
			frame[bit/8] ^= 1 << (bit % 8)
			if got, ok := parse(frame, want.nonce); !ok || got != want {
				t.Fatalf("%v with bit %d turned over: got %+v, %v", kind, bit, got, ok)
			}
			if bytes.Equal(frame, m.pour(want)) {
				t.Fatal("the damage is not seen")
			}
			frame[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Headers are such as a stack takes: lengths and checksums are right.
func TestPacketsAreWhole(t *testing.T) {
	for _, kind := range kindsOfPacket()[1:] {
		for _, length := range []int{kind.smallest(), 1514} {
			m := newMold(kind, []byte{2, 0, 0, 0, 0, 1}, length)
			frame := m.pour(probe{nonce: 1, seq: 3, sent: 99})
			at, pseudo := offsetIPv4, uint32(0)
			if kind.to.Is4() {
				if got := binary.BigEndian.Uint16(frame[16:]); int(got) != length-headerLen {
					t.Errorf("%v: IPv4 length %d of a frame of %d", kind, got, length)
				}
				if finish(sum(0, frame[headerLen:offsetIPv4])) != 0 {
					t.Errorf("%v: the header's checksum is wrong", kind)
				}
				if kind.protocol != link.ICMP {
					pseudo = sum(uint32(frame[23])+uint32(length-at), frame[26:34])
				}
			} else {
				at = offsetIPv6
				if got := binary.BigEndian.Uint16(frame[18:]); int(got) != length-at {
					t.Errorf("%v: IPv6 length %d of a frame of %d", kind, got, length)
				}
				pseudo = sum(uint32(frame[20])+uint32(length-at), frame[22:54])
			}
			if kind.protocol != link.AnyProtocol && finish(sum(pseudo, frame[at:])) != 0 {
				t.Errorf("%v of %d bytes: the checksum is wrong", kind, length)
			}
		}
	}
}

func TestPacketsAreSelectedByTheirPathAlone(t *testing.T) {
	prefix := netip.MustParsePrefix
	match := func(to string, protocol link.Protocol, port uint16) link.Match {
		m := link.Match{Protocol: protocol, Port: port}
		if to != "" {
			m.Destination = prefix(to)
		}
		return m
	}
	for name, test := range map[string]struct {
		matches []link.Match
		kinds   []int // of the direction's own, then of each path; 0: it has none
	}{
		"no path":              {nil, []int{1}},
		"a protocol":           {[]link.Match{match("", link.UDP, 0)}, []int{7, 2}},
		"a port":               {[]link.Match{match("", link.AnyProtocol, 443)}, []int{8, 8}},
		"a port of TCP":        {[]link.Match{match("", link.TCP, 443)}, []int{8, 4}},
		"ICMP":                 {[]link.Match{match("", link.ICMP, 0)}, []int{7, 2}},
		"IPv4":                 {[]link.Match{match("0.0.0.0/0", link.AnyProtocol, 0)}, []int{5, 4}},
		"one address":          {[]link.Match{match("10.0.0.1/32", link.AnyProtocol, 0), match("fd00::/64", link.TCP, 0)}, []int{8, 4, 1}},
		"narrow before broad":  {[]link.Match{match("10.1.0.0/16", link.AnyProtocol, 0), match("10.0.0.0/8", link.AnyProtocol, 0)}, []int{8, 4, 4}},
		"broad before narrow":  {[]link.Match{match("10.0.0.0/8", link.AnyProtocol, 0), match("10.1.0.0/16", link.AnyProtocol, 0)}, []int{8, 4, 0}},
		"the last of a prefix": {[]link.Match{match("10.0.0.0/9", link.AnyProtocol, 0), match("10.128.0.0/10", link.AnyProtocol, 0), match("10.0.0.0/8", link.TCP, 0)}, []int{8, 4, 4, 1}},
		"the dynamic ports":    {[]link.Match{match("", link.TCP, 50000), match("", link.TCP, 60000), match("", link.TCP, 0)}, []int{7, 4, 4, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			var d link.Direction
			for _, m := range test.matches {
				d.Paths = append(d.Paths, link.Path{Match: m})
			}
			for path := -1; path < len(d.Paths); path++ {
				kinds, err := packetsOf(d, path)
				if len(kinds) != test.kinds[path+1] || (err != nil) != (len(kinds) == 0) {
					t.Errorf("path %d: %v, %v; want %d", path, kinds, err, test.kinds[path+1])
				}
				for _, k := range kinds {
					by := -1
					for i, p := range d.Paths {
						if k.selectedBy(p.Match) {
							by = i
							break
						}
					}
					if by != path {
						t.Errorf("%v is of path %d, not %d", k, by, path)
					}
					if k.smallest() > sight {
						t.Errorf("%v takes %d bytes, of which %d are seen", k, k.smallest(), sight)
					}
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	frame := make([]byte, smallFrame)
	probe{nonce: 1, seq: 2, sent: 3}.put(frame[headerLen:])
	f.Add(frame, uint32(1))
	f.Add(frame[:20], uint32(1))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, frame []byte, nonce uint32) {
		p, ok := parse(frame, nonce)
		if !ok {
			return
		}
		record := make([]byte, probeLen)
		p.put(record)
		if !bytes.Contains(frame, record[:recordLen]) {
			t.Errorf("read as %+v, which is not in % x", p, frame)
		}
	})
}
