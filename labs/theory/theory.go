// Package theory predicts in closed form what TCP on Linux does.
//
// Each function is pure, states its formula, where that is valid, and where it
// comes from: an RFC, a line of the kernel, or a measurement on a quiet link.
// Durations are time.Duration, rates bit/s as float64 (0 or less: no
// bottleneck), sizes bytes as int. Nothing here knows of labs or
// of gRPC; package expect lends the functions to lab files.
//
// The package refuses nothing: outside its stated validity a formula is just
// wrong, and a lab asks it only within.
package theory

import (
	"math"
	"time"
)

// Sizes in bytes of what a segment carries besides its data, on Ethernet as
// links count it: header without preamble, FCS and gap.
const (
	EthernetHeader  = 14
	IPv4Header      = 20 // RFC 791, without options
	TCPHeader       = 20 // RFC 9293, without options
	TimestampOption = 12 // RFC 7323, padded as Linux sends it
	SYNOptions      = 20 // MSS, SACK permitted, timestamps, window scale (tcp_syn_options)
)

// Sizes in bytes of whole frames.
const (
	SegmentOverhead = EthernetHeader + IPv4Header + TCPHeader + TimestampOption // 66
	SYNFrame        = EthernetHeader + IPv4Header + TCPHeader + SYNOptions      // 74
	MSS             = 1500 - IPv4Header - TCPHeader - TimestampOption           // 1448, MTU 1500
	FullFrame       = MSS + SegmentOverhead                                     // 1514
)

// InitialWindow is the congestion window of a new connection in segments
// (RFC 6928; TCP_INIT_CWND in include/net/tcp.h).
const InitialWindow = 10

// Infinite is the slow-start threshold in segments before any loss
// (TCP_INFINITE_SSTHRESH in include/net/tcp.h).
const Infinite = 0x7fffffff

// Serialization is the time a bottleneck takes to send size bytes:
//
//	8·size/C
//
// Rounded to the nanosecond; 0 without a bottleneck.
func Serialization(size int, rate float64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return seconds(float64(size) * 8 / rate)
}

// seconds is s seconds to the nearest nanosecond.
func seconds(s float64) time.Duration {
	return time.Duration(math.Round(s * float64(time.Second)))
}
