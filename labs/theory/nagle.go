package theory

import (
	"fmt"
	"time"
)

// DelayedACKMin is the least that a delayed ACK waits (TCP_DELACK_MIN in
// include/net/tcp.h, HZ/25).
const DelayedACKMin = 40 * time.Millisecond

// Policy is how the two ends of a write-write-read send.
type Policy int

// The policies.
const (
	// NoDelay: the sender has set TCP_NODELAY, both writes leave at once.
	NoDelay Policy = iota
	// QuickACK: Nagle's algorithm holds the second write, and the peer
	// acknowledges the first at once, as it does on a new connection.
	QuickACK
	// Nagle: Nagle's algorithm holds the second write, and the peer delays its
	// ACK of the first: the steady state.
	Nagle
)

// Policies are all of them, in order.
func Policies() []Policy { return []Policy{NoDelay, QuickACK, Nagle} }

// String is the policy as expressions have it: "no_delay".
func (p Policy) String() string {
	switch p {
	case NoDelay:
		return "no_delay"
	case QuickACK:
		return "quick_ack"
	case Nagle:
		return "nagle"
	}
	return fmt.Sprintf("Policy(%d)", int(p))
}

// WriteWriteRead is how long a client waits that sends a request in two small
// writes and then reads a small reply.
//
//	NoDelay   R
//	QuickACK  2R
//	Nagle     (⌊2R/j⌋ + 40 ms/j + 1)·j: 2R + 40 ms + 1 jiffy where 2R is whole jiffies
//
// Under Nagle the second write leaves when the first is acknowledged (RFC 896; with Minshall's
// change, tcp_minshall_check in net/ipv4/tcp_output.c, only behind an earlier
// small segment, as here), and the peer waits with that ACK for 40 ms
// (RFC 9293, 3.8.6.3; tcp_send_delayed_ack). The timer ends on a timer interrupt, and with
// one transaction behind another the next request meets the timer 2R later: the steady
// state is a whole number of jiffies j = 1/hz, see [TimerExpiry].
//
// Valid for transactions back to back, on an open connection past its first (whose ACK
// is quick), with R below the retransmission timeout, 200 ms + R. For 2R just below
// a whole number of jiffies one more jiffy is possible. The request's serialization is left out.
func WriteWriteRead(rtt time.Duration, p Policy, hz int) time.Duration {
	return writeWriteReadTerms(rtt, p, hz).total()
}

func writeWriteReadTerms(rtt time.Duration, p Policy, hz int) terms[time.Duration] {
	if p == NoDelay {
		return terms[time.Duration]{{"both writes leave at once, and the reply comes", "R", rtt}}
	}
	out := terms[time.Duration]{
		{"the first write crosses the link, and its ACK", "R", rtt},
		{"the second write crosses it, and the reply", "R", rtt},
	}
	if p == Nagle {
		out = append(out,
			term[time.Duration]{"the peer waits with that ACK", "40 ms", DelayedACKMin},
			term[time.Duration]{
				"its timer ends on an interrupt, each j = 1/HZ", "(⌊2R/j⌋ + ⌈40 ms/j⌉ + 1)·j − 2R − 40 ms",
				TimerExpiry(2*rtt, DelayedACKMin, hz) - 2*rtt - DelayedACKMin,
			})
	}
	return out
}
