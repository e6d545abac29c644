package theory

import (
	"fmt"
	"slices"
	"time"
)

// Transfer is one send of Bytes in slow start from a fresh connection.
type Transfer struct {
	Bytes         int           // sent in one direction; at least 1
	RTT           time.Duration // of the idle link
	Rate          float64       // bottleneck in bit/s; 0 or less: none
	MSS           int           // bytes of data in a full segment; 0: [MSS]
	InitialWindow int           // segments; 0: [InitialWindow]
}

func (t Transfer) mss() int {
	if t.MSS == 0 {
		return MSS
	}
	return t.MSS
}

// Window is the congestion window in segments that the round starts with,
// rounds counting from 1:
//
//	IW·2^(round−1)
//
// Linux grows the window by what an ACK acknowledges, so that it doubles each round with
// delayed ACKs too (tcp_slow_start in net/ipv4/tcp_cong.c; RFC 3465 with no limit).
func (t Transfer) Window(round int) int {
	initial := t.InitialWindow
	if initial == 0 {
		initial = InitialWindow
	}
	if round < 1 {
		return initial
	}
	return initial << min(round-1, 40)
}

// Rounds is how many windows the bytes take:
//
//	⌈log2(N/(IW·MSS) + 1)⌉
//
// in whole segments.
func (t Transfer) Rounds() int {
	left := t.segments()
	for round := 1; ; round++ {
		if left -= t.Window(round); left <= 0 {
			return round
		}
	}
}

func (t Transfer) segments() int { return max(1, (t.Bytes+t.mss()-1)/t.mss()) }

// Time is from the sender's first byte leaving to the last byte's arrival, and the half round trip
// before it in which the request came: what a client waits who has asked on an
// open connection.
//
//	Σ over rounds before the last of max(R + 8·1514/C, W·8·1514/C)
//	+ R + the last round's bytes with their headers·8/C
//
// A round ends when the ACK of its first segment is back, one segment's
// serialization after R; where the window takes longer than that to send, the link
// is never idle and the round lasts as long as the window. The last window's
// serialization comes on top. With no bottleneck this is R·Rounds.
//
// Valid while nothing limits but the congestion window: receive window and
// send buffer large, the bottleneck's queue holds the window less what is in
// flight, no loss, and a congestion control that stays in slow start (reno; cubic and
// its HyStart may leave it early on a saturated link).
func (t Transfer) Time() time.Duration {
	return t.terms().total()
}

func (t Transfer) terms() terms[time.Duration] {
	full := t.mss() + SegmentOverhead
	sent, last := 0, t.Rounds()
	var out terms[time.Duration]
	for round := 1; round < last; round++ {
		window := t.Window(round)
		sent += window
		out = append(out, term[time.Duration]{
			fmt.Sprintf("round %d: a window of %d segments, %d B by then", round, window, sent*t.mss()),
			fmt.Sprintf("max(R + 8·%d/C, %d·8·%d/C)", full, window, full),
			max(t.RTT+Serialization(full, t.Rate), Serialization(window*full, t.Rate)),
		})
	}
	rest := t.segments() - sent
	bytes := t.Bytes - sent*t.mss() + rest*SegmentOverhead
	return append(out,
		term[time.Duration]{fmt.Sprintf("round %d: what is left, %d of a window of %d segments", last, rest, t.Window(last)), "R", t.RTT},
		term[time.Duration]{"they are sent", fmt.Sprintf("8·%d/C", bytes), Serialization(bytes, t.Rate)})
}

// SlowStart is what a client waits from connect(2) to the last byte of a reply
// of n bytes that a small request asked for: [Handshake], the request's way, [Transfer.Time].
//
//	R + R·⌈log2(n/(IW·MSS) + 1)⌉ where serialization is far below R
//
// With IW 10, MTU 1500 and timestamps. Valid as they are. RFC 5681, RFC 6928.
func SlowStart(n int, rtt time.Duration, rate float64) time.Duration {
	return slowStartTerms(n, rtt, rate).total()
}

func slowStartTerms(n int, rtt time.Duration, rate float64) terms[time.Duration] {
	return slices.Concat(handshakeTerms(rtt, rate), Transfer{Bytes: n, RTT: rtt, Rate: rate}.terms())
}
