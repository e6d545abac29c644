package trace

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// talker writes the packets of one connection from lines such as
//
//	20.5 > PA 0+100 ack=1 win=0 sack=200-300 id=7 copy
//
// the time in ms, who sends (> the client), the flags (S F R P A E W), then what else there is: data by its
// offset in the stream and its length, what is acknowledged of the other's data, the window, blocks of SACK, the
// IPv4 ID (else one more than the last of this end), and tags: damaged, v6, raw=BYTES that are kept,
// port=N of the client, iface=N.
type talker struct {
	t      testing.TB
	server bool // packets are captured at the server
	router bool // both ways come in
	v6     bool
	ids    [2]uint16
	isn    [2]uint32
}

func (k *talker) packets(lines string) []Packet {
	var all []Packet
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, k.packet(line))
		}
	}
	return all
}

var talkBegan = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (k *talker) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		k.t.Fatalf("%q: %v", s, err)
	}
	return n
}

func (k *talker) packet(line string) Packet {
	fields := strings.Fields(line)
	ms, err := strconv.ParseFloat(fields[0], 64)
	if err != nil || len(fields) < 3 {
		k.t.Fatalf("%q: no line of a talk", line)
	}
	from := 0
	if fields[1] == "<" {
		from = 1
	}
	if k.isn == [2]uint32{} {
		k.isn = [2]uint32{4294967000, 1000} // the client's numbers wrap
	}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Window: 500, Seq: k.isn[from] + 1}
	for _, c := range fields[2] {
		switch c {
		case 'S':
			tcp.SYN = true
		case 'F':
			tcp.FIN = true
		case 'R':
			tcp.RST = true
		case 'P':
			tcp.PSH = true
		case 'A':
			tcp.ACK = true
		case 'E':
			tcp.ECE = true
		case 'W':
			tcp.CWR = true
		}
	}
	if tcp.SYN {
		tcp.Seq = k.isn[from]
		tcp.Options = []layers.TCPOption{
			{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}, // 1460
			{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
			{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}},
		}
	}
	if tcp.ACK {
		tcp.Ack = k.isn[1-from] + 1
	}
	k.ids[from]++
	id := k.ids[from]
	payload, kept, damaged, v6 := 0, 0, false, k.v6
	p := Packet{Time: talkBegan.Add(time.Duration(ms * 1e6))}
	for _, f := range fields[3:] {
		name, value, given := strings.Cut(f, "=")
		switch {
		case !given && strings.Contains(f, "+"):
			at, length, _ := strings.Cut(f, "+")
			tcp.Seq = k.isn[from] + 1 + uint32(k.number(at))
			payload = k.number(length)
		case name == "ack":
			tcp.Ack = k.isn[1-from] + 1 + uint32(k.number(value))
		case name == "win":
			tcp.Window = uint16(k.number(value))
		case name == "id":
			id = uint16(k.number(value))
			k.ids[from] = id
		case name == "old": // an ID of before, and the count goes on
			id = uint16(k.number(value))
			k.ids[from]--
		case name == "isn":
			k.isn[from] = uint32(k.number(value))
			tcp.Seq = k.isn[from]
		case name == "port":
			tcp.SrcPort = layers.TCPPort(k.number(value))
		case name == "iface":
			p.Interface = k.number(value)
		case name == "raw":
			kept = k.number(value)
		case name == "sack":
			a, b, _ := strings.Cut(value, "-")
			data := make([]byte, 8)
			for i, s := range []string{a, b} {
				n := k.isn[1-from] + 1 + uint32(k.number(s))
				data[4*i], data[4*i+1], data[4*i+2], data[4*i+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
			}
			tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: data})
		case name == "ts":
			n := k.number(value)
			tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, byte(n >> 8), byte(n), 0, 0, 0, 0}})
		case f == "damaged":
			damaged = true
		default:
			k.t.Fatalf("%q: what is %q?", line, f)
		}
	}
	if from == 1 {
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	p.Data = serialize(k.t, from, v6, id, tcp, payload)
	p.Length = len(p.Data)
	if damaged {
		p.Data[len(p.Data)-1] ^= 4
	}
	if kept > 0 {
		p.Data = p.Data[:kept]
	}
	switch {
	case k.router, (from == 0) == k.server:
		p.Way = In
	default:
		p.Way = Out
	}
	return p
}

func serialize(t testing.TB, from int, v6 bool, id uint16, tcp *layers.TCP, payload int) []byte {
	t.Helper()
	ends := [2]net.IP{{10, 0, 0, 1}, {10, 0, 0, 2}}
	kind := layers.EthernetTypeIPv4
	if v6 {
		ends, kind = [2]net.IP{net.ParseIP("fd00::1"), net.ParseIP("fd00::2")}, layers.EthernetTypeIPv6
	}
	ethernet := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(from)}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(1 - from)}, EthernetType: kind}
	var network gopacket.SerializableLayer
	if v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: ends[from], DstIP: ends[1-from]}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		network = ip
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 64, Id: id, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP, SrcIP: ends[from], DstIP: ends[1-from]}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		network = ip
	}
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ethernet, network, tcp, gopacket.Payload(make([]byte, payload)))
	if err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// tell writes what is not zero of both ends.
func tell(c *Connection) string {
	var b strings.Builder
	for _, end := range []struct {
		name string
		end  *End
	}{{"client", &c.FromClient}, {"server", &c.FromServer}} {
		fmt.Fprintf(&b, "%s:", end.name)
		e := end.end
		for _, f := range []struct {
			name  string
			value uint64
		}{
			{"segments", e.Segments},
			{"data", e.DataSegments},
			{"bytes", e.Bytes},
			{"again", e.BytesRetransmitted},
			{"retransmissions", e.Retransmissions},
			{"fast", e.FastRetransmissions},
			{"timeout", e.TimeoutRetransmissions},
			{"out-of-order", e.OutOfOrder},
			{"duplicates", e.Duplicates},
			{"duplicate-acks", e.DuplicateACKs},
			{"pure", e.PureACKs},
			{"piggybacked", e.PiggybackedACKs},
			{"delayed", e.DelayedACKs},
			{"nagle", e.NagleWaits},
			{"window-updates", e.WindowUpdates},
			{"zero-windows", e.ZeroWindows},
			{"probes", e.Probes},
			{"syn-again", e.SYNRetransmissions},
			{"fins", e.FINs},
			{"fin-again", e.FINRetransmissions},
			{"first-fins", e.FirstFINs},
			{"resets", e.Resets},
			{"ece", e.CongestionEchoes},
		} {
			if f.value != 0 {
				fmt.Fprintf(&b, " %s %d", f.name, f.value)
			}
		}
		if e.NagleTime != 0 {
			fmt.Fprintf(&b, " (%v)", e.NagleTime)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// at is a time of a talk.
func at(ms float64) time.Time { return talkBegan.Add(time.Duration(ms * 1e6)) }

var (
	clientEnd = netip.MustParseAddrPort("10.0.0.1:40000")
	serverEnd = netip.MustParseAddrPort("10.0.0.2:80")
)
