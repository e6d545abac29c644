package theory

import "time"

// Handshake is the time from connect(2) to its completion: SYN and SYN-ACK
// each cross the link once.
//
//	R + 2·8·74/C
//
// Valid when neither is lost and the listener's queue has room. RFC 9293, 3.5.
func Handshake(rtt time.Duration, rate float64) time.Duration {
	return rtt + 2*Serialization(SYNFrame, rate)
}

// Request is the time from the first byte of a request to the last byte of its
// reply on an open connection, with each in one segment and a server that takes the time
// think:
//
//	R + think + 8·(request + reply + 2·66)/C
//
// Valid up to one MSS each way. RFC 9293.
func Request(rtt, think time.Duration, request, reply int, rate float64) time.Duration {
	return rtt + think + Serialization(request+SegmentOverhead, rate) + Serialization(reply+SegmentOverhead, rate)
}

// FirstRequest is the time from connect(2) to the last byte of the reply, on a
// connection that is opened for one request: the small GET, half of whose time is
// the handshake.
//
//	Handshake + R + max(think, a) + a + 8·(request + reply + 2·66)/C, with a = 8·66/C
//
// That is 2R + think where the link is fast. On a slow one, two ACKs without data stand before the others:
// the handshake's before the request, and the server's before its reply, since on a
// new connection it acknowledges the request at once (tcp_incr_quickack). Valid as both
// of its parts are.
func FirstRequest(rtt, think time.Duration, request, reply int, rate float64) time.Duration {
	ack := Serialization(SegmentOverhead, rate)
	return Handshake(rtt, rate) + ack + Request(rtt, max(think, ack), request, reply, rate)
}

// FastOpenRequest is [FirstRequest] when the client holds a TCP Fast Open
// cookie: the request travels in the SYN.
//
//	R + max(think, 8·74/C) + 8·(request + 74 + 12)/C + 8·(reply + 66)/C
//
// The SYN-ACK stands before the reply. The cookie of 8 bytes needs 12 with its option header and padding. Valid when request and options fit one
// segment and the server accepts the cookie. RFC 7413.
func FastOpenRequest(rtt, think time.Duration, request, reply int, rate float64) time.Duration {
	const cookieOption = 12
	return rtt + max(think, Serialization(SYNFrame, rate)) + Serialization(request+SYNFrame+cookieOption, rate) + Serialization(reply+SegmentOverhead, rate)
}

// SYNTimeout is the first retransmission timeout of a SYN (RFC 6298, 2.1; TCP_TIMEOUT_INIT in
// include/net/tcp.h).
const SYNTimeout = time.Second

// MaxTimeout is what no retransmission timeout exceeds (TCP_RTO_MAX in
// include/net/tcp.h).
const MaxTimeout = 120 * time.Second

// SYNDelay is what lost SYNs add to a handshake: the sum of as many
// retransmission timeouts. The first linear+1 of them last 1 s each, then each
// doubles, up to 120 s:
//
//	lost seconds                        while lost ≤ linear + 1
//	linear + 2^(lost-linear) − 1 s      beyond
//
// Linear is the sysctl tcp_syn_linear_timeouts (4 by default; kernels from 6.5), and 0 on
// kernels without it, where this is 2^lost − 1 s. Timers add up to a sixteenth on
// coarse wheels. tcp_retransmit_timer in net/ipv4/tcp_timer.c.
func SYNDelay(lost, linear int) time.Duration {
	timeout, sum := SYNTimeout, time.Duration(0)
	for i := range lost {
		if i > linear {
			timeout = min(2*timeout, MaxTimeout)
		}
		sum += timeout
	}
	return sum
}
