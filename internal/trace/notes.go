package trace

import (
	"fmt"
	"time"
)

// Event is a segment of a connection, and what the reading says of it.
type Event struct {
	Segment
	FromClient bool
	// Seq and Ack count from the connection's beginning, as in the text-books: SYN is 0, the first byte of
	// data 1.
	Seq, Ack int64
	// NewAck says that it acknowledges more than its end had before.
	NewAck bool
	Notes  []string // in words; most segments have none
}

// Read is [Reading.Add] that tells of the segment as well. It is nil where the packet was none of a connection, or the
// second sight of one that a router forwards.
func (r *Reading) Read(p Packet) (*Connection, *Event) {
	before := make(map[*Connection][2]End, 1)
	if seg, err := Decode(p); err == nil {
		if c := r.open[pairOf(&seg)]; c != nil {
			before[c] = [2]End{c.FromClient, c.FromServer}
		}
	}
	c, seg := r.Add(p)
	if c == nil {
		return nil, nil
	}
	event := &Event{Segment: *seg, FromClient: seg.From == c.Client}
	had, now := before[c], [2]End{c.FromClient, c.FromServer}
	from := 0
	if !event.FromClient {
		from = 1
	}
	if now[from].Segments == had[from].Segments {
		return nil, nil
	}
	s, peer := &c.sides[from], &c.sides[1-from]
	event.Seq = s.relative(seg.Seq)
	if seg.Flags.Has(ACK) && !seg.Flags.Has(RST) {
		event.Ack = peer.relative(seg.Ack)
		event.NewAck = s.grew
	}
	event.Notes = notes(&had[from], &now[from])
	return c, event
}

// relative is a sequence number as it is told: of a connection that was open before, its first is 1.
func (s *side) relative(seq uint32) int64 {
	if !s.known {
		return 0
	}
	p := s.position(seq)
	if s.end.SYNs == 0 {
		p++
	}
	return p
}

// notes says in words which counts a segment has raised.
func notes(had, now *End) []string {
	var all []string
	add := func(text string, before, after uint64) {
		if after > before {
			all = append(all, text)
		}
	}
	switch {
	case now.FastRetransmissions > had.FastRetransmissions:
		all = append(all, "sent again, fast")
	case now.TimeoutRetransmissions > had.TimeoutRetransmissions:
		all = append(all, "sent again, timeout")
	default:
		add("sent again", had.Retransmissions, now.Retransmissions)
	}
	add("sent again", had.SYNRetransmissions+had.FINRetransmissions, now.SYNRetransmissions+now.FINRetransmissions)
	add("overtaken", had.OutOfOrder, now.OutOfOrder)
	add("there twice", had.Duplicates, now.Duplicates)
	add("duplicate ACK", had.DuplicateACKs, now.DuplicateACKs)
	add("delayed ACK", had.DelayedACKs, now.DelayedACKs)
	if now.NagleWaits > had.NagleWaits {
		all = append(all, fmt.Sprintf("held by Nagle, %.1f ms at most", float64(now.NagleTime-had.NagleTime)/float64(time.Millisecond)))
	}
	add("window update", had.WindowUpdates, now.WindowUpdates)
	add("window 0", had.ZeroWindows, now.ZeroWindows)
	add("probe", had.Probes, now.Probes)
	add("congestion", had.CongestionEchoes, now.CongestionEchoes)
	return all
}
