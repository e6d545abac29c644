// Package capture records the packets that cross a node's interfaces, both ways, with the kernel's
// nanoseconds, into a pcapng file.
//
// A [Recorder] reads a ring that the kernel fills (PACKET_RX_RING, TPACKET_V3) on a thread of its own: a
// flow pays for the copy of a packet's first bytes, and for nothing else. It is bounded in bytes and packets,
// and counts what it left out and what the kernel had no room for.
//
// It refuses to lose anything silently: each packet that matched is in the file, or in a count.
// It does not record the loopback interface.
package capture

import (
	"cmp"
	"fmt"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Defaults of Options.
const (
	DefaultSnap  = 128      // bytes of each packet: Ethernet, IPv6 and TCP with all options, and a little
	DefaultLimit = 64 << 20 // bytes of a node's file
	DefaultRing  = 16 << 20 // bytes of the kernel's ring: some 80,000 packets at the default snap length
)

// Options says what is recorded. The zero value records all packets, within the defaults.
type Options struct {
	Snap         int                 // bytes kept of each packet
	LimitBytes   uint64              // of this recording
	LimitPackets uint64              // 0: as many as fit
	Protocol     tcplabv1.IpProtocol // unspecified: all
	Port         uint16              // of TCP and UDP, either end; 0: all
	Ring         int                 // bytes, at least blockBytes
	Description  string              // of the interfaces, for whoever reads the file
}

func (o Options) complete() Options {
	o.Snap = cmp.Or(o.Snap, DefaultSnap)
	o.LimitBytes = cmp.Or(o.LimitBytes, DefaultLimit)
	o.Ring = cmp.Or(o.Ring, DefaultRing)
	return o
}

// Words is what the filter lets through, in libpcap's words; empty: all.
func (o Options) words() string {
	var parts []string
	switch o.Protocol {
	case tcplabv1.IpProtocol_IP_PROTOCOL_TCP:
		parts = append(parts, "tcp")
	case tcplabv1.IpProtocol_IP_PROTOCOL_UDP:
		parts = append(parts, "udp")
	case tcplabv1.IpProtocol_IP_PROTOCOL_ICMP:
		parts = append(parts, "icmp or icmp6")
	}
	if o.Port != 0 {
		parts = append(parts, fmt.Sprintf("port %d", o.Port))
	}
	return strings.Join(parts, " ")
}

// Counts is what became of the packets that matched.
type Counts struct {
	Packets uint64 // in the file
	Dropped uint64 // the ring had no room
	LeftOut uint64 // beyond the bounds
}
