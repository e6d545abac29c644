package trace

import (
	"net/netip"
	"time"
)

// Thresholds of what is told by time. Each is a constant of Linux less a tick of
// 10 ms (HZ = 100, the slowest that a kernel has), because its timers count ticks.
const (
	// timeoutSilence is how long nothing happens before a retransmission timeout:
	// TCP_RTO_MIN, 200 ms (include/net/tcp.h).
	timeoutSilence = 190 * time.Millisecond
	// delayedAck is how late a delayed acknowledgement is at least: TCP_DELACK_MIN,
	// 40 ms (include/net/tcp.h).
	delayedAck = 30 * time.Millisecond
	// atOnce is within which what the kernel does at a packet's arrival follows it. It takes some
	// microseconds; a busy machine gets the rest.
	atOnce = time.Millisecond
)

// enoughDuplicates is how many duplicate acknowledgements tell of a loss (RFC 5681, 3.2).
const enoughDuplicates = 3

// Connection is one TCP connection, as seen at one place.
type Connection struct {
	Number         int            // in the order in which they began, from 1
	Client, Server netip.AddrPort // who connected, and to whom
	First, Last    time.Time      // its first and last segment
	SYN            time.Time      // when the first SYN was there; zero: never
	SYNACK         time.Time      // the first SYN-ACK
	Established    time.Time      // the acknowledgement of the SYN-ACK
	FromClient     End            // what the client sent
	FromServer     End            // what the server sent

	sides [2]side // client, server
}

// End is what one end of a connection sent. The contract's CapturedEnd says what each count is.
type End struct {
	Segments, DataSegments                      uint64
	Bytes, BytesRetransmitted                   uint64
	Retransmissions                             uint64
	FastRetransmissions, TimeoutRetransmissions uint64
	OutOfOrder, Duplicates                      uint64
	DuplicateACKs                               uint64
	PureACKs, PiggybackedACKs, DelayedACKs      uint64
	NagleWaits                                  uint64
	NagleTime                                   time.Duration
	WindowUpdates, ZeroWindows, Probes          uint64
	SYNs, SYNRetransmissions                    uint64
	FINs, FINRetransmissions                    uint64
	FirstFINs                                   uint64
	Resets                                      uint64
	CongestionEchoes                            uint64

	MSS           uint16 // announced; 0: none was seen
	WindowScale   uint8
	SACKPermitted bool
	Timestamps    bool
}

// side is what is known of one end's stream at a moment. Positions count from its first sequence number.
type side struct {
	end *End

	where *place // where its segments are read; nil before the first
	out   bool   // they leave here: this is the end's own node

	known   bool          // base is
	base    uint32        // the sequence number of position 0
	next    int64         // behind the highest that was sent
	missing []gap         // of what is below next, what was not seen
	maxID   uint16        // the newest IPv4 ID; 0: none
	value   uint32        // the newest timestamp
	mss     int           // data of a segment that is not small; 0: not known
	trip    time.Duration // the handshake's round trip; 0: not known

	acked      int64     // of the other's stream
	acks       bool      // acked is known
	grew       bool      // its last segment acknowledged more than those before
	window     uint16    // as offered last
	repeats    int       // duplicate acknowledgements since acked grew
	selective  int64     // behind the highest selectively acknowledged, by its last segment
	heard      time.Time // when its last segment of any kind was there
	sent       time.Time // when its last segment with data was there
	small      bool      // that segment was small
	emptied    time.Time // when the other's pure acknowledgement took all that was outstanding; zero: something came after
	recovering int64     // what is below and is sent again belongs to a timeout

	arrived []arrival // data that the other end has not acknowledged, where that is this node
}

// span is a stretch of a stream, end excluded.
type span struct{ start, end int64 }

// gap is a stretch that was passed over.
type gap struct {
	span
	since time.Time
}

type arrival struct {
	span
	at time.Time
}

// place is where packets of one direction are read: a router sees each twice.
type place struct {
	iface int
	way   Way
}

// position is where a sequence number is in the stream: the one that is nearest to the newest.
func (s *side) position(seq uint32) int64 {
	return s.next + int64(int32(seq-(s.base+uint32(s.next))))
}

func newConnection(client, server netip.AddrPort, at time.Time) *Connection {
	c := &Connection{Client: client, Server: server, First: at}
	c.sides[0].end, c.sides[1].end = &c.FromClient, &c.FromServer
	return c
}

// here reports whether segments of the side are read at this place, and settles it by the first.
func (s *side) here(seg *Segment) bool {
	at := place{seg.Interface, seg.Way}
	if s.where == nil {
		s.where, s.out = &at, seg.Way == Out
	}
	return *s.where == at
}

// over reports whether a SYN with the sequence number begins another connection.
func (c *Connection) over(seg *Segment) bool {
	if !seg.Flags.Has(SYN) || seg.Flags.Any(ACK|RST) {
		return false
	}
	client := &c.sides[0]
	return !client.known || client.base != seg.Seq || c.SYN.IsZero()
}

// add reads the connection's next segment; from is 0 for the client's.
func (c *Connection) add(from int, seg *Segment) {
	s, peer := &c.sides[from], &c.sides[1-from]
	if !s.here(seg) {
		return
	}
	c.Last = seg.Time
	s.end.Segments++
	if seg.Flags.Has(RST) { // its numbers may be anything
		s.end.Resets++
		return
	}
	if !s.known {
		s.known, s.base = true, seg.Seq
	}
	c.handshake(from, seg)
	if seg.Flags.Any(ECE|CWR) && !seg.Flags.Has(SYN) {
		s.end.CongestionEchoes++
	}
	start := s.position(seg.Seq)
	old := s.next
	if seg.Flags.Has(SYN) {
		s.next = max(s.next, start+1)
		start++
	}
	probe := seg.Payload <= 1 && !seg.Flags.Any(SYN|FIN) && start == old-1 && peer.acks && peer.acked == old
	switch {
	case probe:
		s.end.Probes++
	case seg.Payload > 0:
		s.data(peer, seg, start)
	}
	if seg.Flags.Has(FIN) {
		c.fin(from, start+int64(seg.Payload), seg.Payload > 0)
	}
	if seg.Flags.Has(ACK) {
		s.acknowledge(peer, seg, probe, start == old)
	}
	s.id(seg)
	s.heard = seg.Time
	if seg.Payload > 0 || seg.Flags.Any(SYN|FIN) {
		// What is sent next need not have waited for the acknowledgement.
		s.emptied, peer.emptied = time.Time{}, time.Time{}
	}
}

// handshake enters what a SYN, a SYN-ACK and its acknowledgement tell.
func (c *Connection) handshake(from int, seg *Segment) {
	s := &c.sides[from]
	if !seg.Flags.Has(SYN) {
		if from == 0 && seg.Flags.Has(ACK) && !c.SYNACK.IsZero() && c.Established.IsZero() {
			c.Established = seg.Time
			if !c.SYN.IsZero() {
				c.sides[0].trip = seg.Time.Sub(c.SYN)
				c.sides[1].trip = c.sides[0].trip
			}
		}
		return
	}
	if s.end.SYNs++; s.end.SYNs > 1 {
		s.end.SYNRetransmissions++
		return
	}
	if from == 0 {
		c.SYN = seg.Time
	} else {
		c.SYNACK = seg.Time
	}
	o := seg.Options
	s.end.MSS, s.end.SACKPermitted, s.end.Timestamps = o.MSS, o.SACKPermitted, o.Timestamps
	if o.Scale > 0 {
		s.end.WindowScale = uint8(o.Scale)
	}
	if from == 0 {
		return
	}
	// Data of a full segment: what both take, less the option that both have agreed to put into each.
	client, server := &c.FromClient, s.end
	mss := int(min(client.MSS, server.MSS))
	if client.Timestamps && server.Timestamps {
		mss = max(0, mss-timestampsOption)
	}
	c.sides[0].mss, c.sides[1].mss = mss, mss
}

// timestampsOption is what timestamps take of each segment, padded (RFC 7323, appendix A).
const timestampsOption = 12

func (c *Connection) fin(from int, at int64, withData bool) {
	s, peer := &c.sides[from], &c.sides[1-from]
	if s.end.FINs++; s.end.FINs > 1 {
		s.end.FINs = 1
		if !withData {
			s.end.FINRetransmissions++
		}
	} else if peer.end.FINs == 0 {
		s.end.FirstFINs++
	}
	s.next = max(s.next, at+1)
}

// data enters a segment with data at the position.
func (s *side) data(peer *side, seg *Segment, start int64) {
	end := start + int64(seg.Payload)
	e := s.end
	e.DataSegments++
	e.Bytes += uint64(seg.Payload)
	fresh := start >= s.next
	switch {
	case fresh:
		if start > s.next {
			s.missing = append(s.missing, gap{span{s.next, start}, seg.Time})
		}
	default:
		s.again(peer, seg, span{start, end})
	}
	if s.out && fresh && !s.emptied.IsZero() && s.small && s.isSmall(seg) && seg.Time.Sub(s.emptied) <= atOnce {
		e.NagleWaits++
		e.NagleTime += seg.Time.Sub(s.sent)
	}
	s.next = max(s.next, end)
	s.sent, s.small = seg.Time, s.isSmall(seg)
	if peer.out {
		s.arrived = append(s.arrived, arrival{span{start, end}, seg.Time})
	}
}

// again enters data that is, at least in part, not beyond all that was sent.
func (s *side) again(peer *side, seg *Segment, have span) {
	e := s.end
	since, passedOver := s.fill(have)
	late, told := s.late(seg)
	if !told {
		// Before a round trip has gone by since a gap was seen, nobody can have sent again what is
		// missing. Half of it leaves room for a round trip that has become shorter.
		late = passedOver && seg.Time.Sub(since) < s.trip/2
	}
	switch {
	case late && passedOver:
		e.OutOfOrder++
	case late:
		e.Duplicates++
	default:
		e.Retransmissions++
		e.BytesRetransmitted += uint64(min(have.end, s.next) - have.start)
		s.classify(peer, seg.Time, have.start)
	}
}

// isSmall reports whether the segment could have held more.
func (s *side) isSmall(seg *Segment) bool { return s.mss == 0 || seg.Payload < s.mss }

// fill takes a stretch out of what is missing and reports since when it was, if it was of it.
func (s *side) fill(have span) (since time.Time, found bool) {
	var left []gap
	for i, g := range s.missing {
		if have.end <= g.start || g.end <= have.start {
			if found {
				left = append(left, g)
			}
			continue
		}
		if !found {
			found, since = true, g.since
			left = append(left, s.missing[:i]...)
		}
		if g.start < have.start {
			left = append(left, gap{span{g.start, have.start}, g.since})
		}
		if have.end < g.end {
			left = append(left, gap{span{have.end, g.end}, g.since})
		}
	}
	if found {
		s.missing = left
	}
	return since, found
}

// late reports whether the segment was sent before others that are there already, where its
// header tells. Each transmission, a repeated one too, has a newer IPv4 ID (Linux counts a
// connection's: ip_select_ident_segs in include/net/ip.h); without, the timestamp may tell.
func (s *side) late(seg *Segment) (late, told bool) {
	if seg.ID != 0 && s.maxID != 0 {
		return int16(seg.ID-s.maxID) <= 0, true
	}
	if !seg.Options.Timestamps || seg.Options.Value == s.value {
		return false, false
	}
	return int32(seg.Options.Value-s.value) < 0, true
}

// id remembers the newest mark of a segment's age.
func (s *side) id(seg *Segment) {
	if seg.ID != 0 && (s.maxID == 0 || int16(seg.ID-s.maxID) > 0) {
		s.maxID = seg.ID
	}
	if seg.Options.Timestamps && (s.value == 0 || int32(seg.Options.Value-s.value) > 0) {
		s.value = seg.Options.Value
	}
}

// classify says why data is sent again. A probe of the tail (RFC 8985, 7) repeats what is
// last; where that is all there is, as long a silence makes it look like a timeout.
func (s *side) classify(peer *side, now time.Time, start int64) {
	silent := now.Sub(s.sent) >= timeoutSilence && now.Sub(peer.heard) >= timeoutSilence
	switch {
	case silent && start > peer.acked:
	case silent:
		s.recovering = s.next
		s.end.TimeoutRetransmissions++
	case start < s.recovering:
		s.end.TimeoutRetransmissions++
	case peer.repeats >= enoughDuplicates || peer.selective > start:
		s.end.FastRetransmissions++
	}
}

// acknowledge enters what the segment acknowledges of the other's stream. inOrder says that
// it stands at the end of its own stream.
func (s *side) acknowledge(peer *side, seg *Segment, probe, inOrder bool) {
	if !peer.known {
		peer.known, peer.base = true, seg.Ack
	}
	ack := peer.position(seg.Ack)
	more := !s.acks || ack > s.acked
	s.grew = more
	e := s.end
	pure := seg.pure() && !probe
	if seg.Window == 0 && !seg.Flags.Has(SYN) {
		e.ZeroWindows++
	}
	if pure {
		e.PureACKs++
	}
	switch {
	case more && pure:
		if s.waited(peer, seg.Time) {
			e.DelayedACKs++
		}
	case more && seg.Payload > 0:
		if s.acks {
			e.PiggybackedACKs++
		}
	case pure && ack == s.acked && seg.Window == s.window && seg.Window != 0 && inOrder && peer.next > ack:
		e.DuplicateACKs++
		s.repeats++
	case pure && ack == s.acked && seg.Window != s.window && len(seg.Options.SACK) == 0:
		e.WindowUpdates++
	}
	if more {
		// Outstanding was something, and now nothing is: what waited for that leaves at once.
		if pure && s.acks && ack == peer.next && s.acked < peer.next {
			peer.emptied = seg.Time
		}
		s.acked, s.acks, s.repeats = ack, true, 0
		peer.taken(ack)
	}
	s.window = seg.Window
	s.selective = 0
	for _, block := range seg.Options.SACK {
		if end := peer.position(block.End); end > ack {
			s.selective = max(s.selective, end)
		}
	}
}

// waited reports whether the first byte that is newly acknowledged had been here for long. It
// is known at the acknowledging end's own node.
func (s *side) waited(peer *side, now time.Time) bool {
	if !s.out || !s.acks {
		return false
	}
	for _, a := range peer.arrived {
		if a.start <= s.acked && s.acked < a.end {
			return now.Sub(a.at) >= delayedAck
		}
	}
	return false
}

// taken forgets arrivals that are acknowledged.
func (s *side) taken(ack int64) {
	kept := s.arrived[:0]
	for _, a := range s.arrived {
		if a.end > ack {
			kept = append(kept, a)
		}
	}
	s.arrived = kept
	for len(s.missing) > 0 && s.missing[0].end <= ack { // it got there unseen
		s.missing = s.missing[1:]
	}
}
