package theory

import (
	"fmt"
	"slices"
	"time"
)

// Handshake is the time from connect(2) to its completion: SYN and SYN-ACK
// each cross the link once.
//
//	R + 2·8·74/C
//
// Valid when neither is lost and the listener's queue has room. RFC 9293, 3.5.
func Handshake(rtt time.Duration, rate float64) time.Duration {
	return handshakeTerms(rtt, rate).total()
}

func handshakeTerms(rtt time.Duration, rate float64) terms[time.Duration] {
	return terms[time.Duration]{
		{"SYN and SYN-ACK cross the link", "R", rtt},
		{"both are sent, 74 B each", "2·8·74/C", 2 * Serialization(SYNFrame, rate)},
	}
}

// Request is the time from the first byte of a request to the last byte of its
// reply on an open connection, with each in one segment and a server that takes the time
// think:
//
//	R + think + 8·(request + reply + 2·66)/C
//
// Valid up to one MSS each way. RFC 9293.
func Request(rtt, think time.Duration, request, reply int, rate float64) time.Duration {
	return requestTerms(rtt, thinking(think), request, reply, rate).total()
}

// requestTerms are those of a request whose server does something else first.
func requestTerms(rtt time.Duration, first term[time.Duration], request, reply int, rate float64) terms[time.Duration] {
	return terms[time.Duration]{
		{"request and reply cross the link", "R", rtt},
		first,
		{"the request is sent", "8·(request + 66)/C", Serialization(request+SegmentOverhead, rate)},
		{"the reply is sent", "8·(reply + 66)/C", Serialization(reply+SegmentOverhead, rate)},
	}
}

func thinking(d time.Duration) term[time.Duration] {
	return term[time.Duration]{"the server thinks", "S", d}
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
	return firstRequestTerms(rtt, think, request, reply, rate).total()
}

func firstRequestTerms(rtt, think time.Duration, request, reply int, rate float64) terms[time.Duration] {
	ack := Serialization(SegmentOverhead, rate)
	first := term[time.Duration]{"the server thinks, or its ACK is sent before the reply", "max(S, 8·66/C)", max(think, ack)}
	return slices.Concat(
		handshakeTerms(rtt, rate),
		terms[time.Duration]{{"the handshake's ACK is sent before the request", "8·66/C", ack}},
		requestTerms(rtt, first, request, reply, rate))
}

// FastOpenRequest is [FirstRequest] when the client holds a TCP Fast Open
// cookie: the request travels in the SYN.
//
//	R + max(think, 8·74/C) + 8·(request + 74 + 12)/C + 8·(reply + 66)/C
//
// The SYN-ACK stands before the reply. The cookie of 8 bytes needs 12 with its option header and padding. Valid when request and options fit one
// segment and the server accepts the cookie. RFC 7413.
func FastOpenRequest(rtt, think time.Duration, request, reply int, rate float64) time.Duration {
	return fastOpenTerms(rtt, think, request, reply, rate).total()
}

func fastOpenTerms(rtt, think time.Duration, request, reply int, rate float64) terms[time.Duration] {
	const cookieOption = 12
	return terms[time.Duration]{
		{"SYN with the request, and the reply, cross the link", "R", rtt},
		{"the server thinks, or the SYN-ACK is sent before the reply", "max(S, 8·74/C)", max(think, Serialization(SYNFrame, rate))},
		{"SYN, cookie and request are sent", "8·(request + 74 + 12)/C", Serialization(request+SYNFrame+cookieOption, rate)},
		{"the reply is sent", "8·(reply + 66)/C", Serialization(reply+SegmentOverhead, rate)},
	}
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
// coarse wheels. At most 127 are sent (tcp_syn_retries). tcp_retransmit_timer in net/ipv4/tcp_timer.c.
func SYNDelay(lost, linear int) time.Duration {
	return synDelayTerms(lost, linear).total()
}

func synDelayTerms(lost, linear int) terms[time.Duration] {
	timeout, out := SYNTimeout, terms[time.Duration]{}
	for i := range lost {
		law := "1 s"
		if i > linear {
			timeout = min(2*timeout, MaxTimeout)
			law = "twice the one before, up to 120 s"
		}
		out = append(out, term[time.Duration]{fmt.Sprintf("SYN %d is lost", i+1), law, timeout})
	}
	return out
}
