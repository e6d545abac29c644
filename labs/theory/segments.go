package theory

import "time"

// SegmentSize is the most data that a segment carries, in bytes: the MTU less the headers of
// IPv4 and TCP, and less the timestamps where the connection has them.
//
//	MTU − 20 − 20 − 12
//
// RFC 9293, 3.7.1; RFC 7323 (options count, RFC 6691).
func SegmentSize(mtu int, timestamps bool) int {
	return segmentSizeTerms(mtu, timestamps).total()
}

func segmentSizeTerms(mtu int, timestamps bool) terms[int] {
	out := terms[int]{
		{"the largest IP packet", "MTU", mtu},
		{"less the header of IPv4", "− 20", -IPv4Header},
		{"less the header of TCP", "− 20", -TCPHeader},
	}
	if timestamps {
		out = append(out, term[int]{"less the timestamps", "− 12", -TimestampOption})
	}
	return out
}

// Segments is in how many segments n bytes travel that are written at once:
//
//	⌈n/MSS⌉
//
// Valid where nothing is sent again and Nagle's algorithm or a cork holds nothing together
// with what is written later.
func Segments(n, mss int) int { return max(1, (n+mss-1)/mss) }

// GoodputShare is the share of a link's rate, as links count it, that is left for data in full
// segments of an MTU:
//
//	MSS/(MTU + 14)
//
// 1448/1514 at an MTU of 1500 with timestamps. The other way is free for ACKs.
func GoodputShare(mtu int, timestamps bool) float64 {
	return float64(SegmentSize(mtu, timestamps)) / float64(mtu+EthernetHeader)
}

// TransactionSegments is how many segments one small request and its reply take on an
// open connection, both ways together. The server thinks before it replies, the client
// before its next request:
//
//	2 + (1 if the server thinks longer than 40 ms) + (1 if the client does)
//
// Data carries the ACK of what came before (RFC 9293, 3.8.6.3). Linux waits for it once a
// connection is interactive: once data has followed what it read within the delayed ACK's timeout, 40 ms at
// first (tcp_event_data_sent in net/ipv4/tcp_output.c). Where data follows later, the reading of a
// small pushed segment itself sends the ACK (tcp_cleanup_rbuf in net/ipv4/tcp.c), and no timer.
// Between 20 and 60 ms the timeout adapts to the gaps (tcp_event_data_recv in
// net/ipv4/tcp_input.c). Valid outside that, past a connection's first segments, which are acknowledged at once.
func TransactionSegments(server, client time.Duration) int {
	return transactionTerms(server, client).total()
}

func transactionTerms(server, client time.Duration) terms[int] {
	alone := func(think time.Duration) int {
		if think > DelayedACKMin {
			return 1
		}
		return 0
	}
	return terms[int]{
		{"the request, and the reply", "2", 2},
		{"the request's ACK by itself", "1 if the server thinks longer than 40 ms", alone(server)},
		{"the reply's ACK by itself", "1 if the client does", alone(client)},
	}
}
