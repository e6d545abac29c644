// Package trace reads captured packets as TCP: what became of each connection, and what of it
// is a retransmission, a duplicate acknowledgement, a wait of Nagle's algorithm and so on.
//
// [Each] reads a pcapng file, [Decode] one frame, and a [Reading] follows connections packet by packet
// and keeps counts, not packets. [Pair] joins what both ends saw of one connection.
//
// It refuses to guess. What came damaged is counted and not read; what a node
// cannot know because it is not that end (when data came there, why it waited) stays 0; and what two rules
// would read differently is told by neither.
package trace

import (
	"net/netip"
	"strings"
	"time"
)

// Way says which way a packet crossed the interface where it was captured.
type Way uint8

// The ways.
const (
	Unknown Way = iota // the file does not tell
	In                 // it came in
	Out                // it went out
)

// Packet is a frame as it was captured.
type Packet struct {
	Time      time.Time // of the host's real-time clock
	Interface int       // index into [Info.Interfaces]
	Way       Way
	Length    int    // bytes of the whole frame
	Data      []byte // its first bytes, from the Ethernet header on
}

// Flags are TCP's, as in the header's octets 12 and 13.
type Flags uint8

// The flags (RFC 9293, 3.1; RFC 3168).
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Has reports whether all of the flags are set.
func (f Flags) Has(all Flags) bool { return f&all == all }

// Any reports whether one of the flags is set.
func (f Flags) Any(some Flags) bool { return f&some != 0 }

// String is the flags that are set, as a diagram shows them: "SYN ACK". PSH is left out: it says nothing
// of the connection's course.
func (f Flags) String() string {
	var names []string
	for _, known := range []struct {
		flag Flags
		name string
	}{{SYN, "SYN"}, {FIN, "FIN"}, {RST, "RST"}, {ACK, "ACK"}, {URG, "URG"}, {ECE, "ECE"}, {CWR, "CWR"}} {
		if f.Has(known.flag) {
			names = append(names, known.name)
		}
	}
	return strings.Join(names, " ")
}

// Range is a stretch of sequence numbers, End excluded.
type Range struct{ Start, End uint32 }

// Options are a segment's TCP options; those that it does not have are zero.
type Options struct {
	MSS           uint16 // 0: none
	Scale         int8   // shift of the window; -1: none
	SACKPermitted bool
	SACK          []Range // selective acknowledgements, the newest first
	Timestamps    bool
	Value, Echo   uint32 // of the timestamps
}

// Segment is a packet of TCP.
type Segment struct {
	Time      time.Time
	Interface int
	Way       Way
	From, To  netip.AddrPort
	ID        uint16 // of the IPv4 header; 0 where there is none
	Marked    bool   // congestion experienced (RFC 3168)
	Seq, Ack  uint32
	Flags     Flags
	Window    uint16 // as in the header, not scaled
	Options   Options
	Payload   int // bytes of data, captured or not
}

// pure reports whether the segment does nothing but acknowledge.
func (s *Segment) pure() bool {
	return s.Payload == 0 && s.Flags.Has(ACK) && !s.Flags.Any(SYN|FIN|RST)
}
