package theory

import "time"

// Page is a number of objects of one size that a client fetches over one link.
type Page struct {
	Objects    int           // at least 1
	RTT        time.Duration // R
	ServerTime time.Duration // S, for each object
	ObjectTime time.Duration // d, what the bottleneck takes to send one: [Serialization]
}

// Serial is the page with a connection for each object, one after another:
//
//	n·(2R + S + d)
//
// Valid while an object fits the initial window. RFC 1945, 1.3.
func (p Page) Serial() time.Duration {
	return time.Duration(p.Objects) * (2*p.RTT + p.ServerTime + p.ObjectTime)
}

// Parallel is the page over k connections side by side, each for one object at a time:
//
//	⌈n/k⌉·(2R + S) + n·d
//
// The bottleneck sends each byte once all the same. Valid where d is short beside 2R + S;
// where n·d is nearly all, k gains nothing.
func (p Page) Parallel(k int) time.Duration {
	batches := (p.Objects + k - 1) / k
	return time.Duration(batches)*(2*p.RTT+p.ServerTime) + time.Duration(p.Objects)*p.ObjectTime
}

// KeepAlive is the page over one connection that stays open, one request at a time:
//
//	R + n·(R + S + d)
//
// RFC 9112, 9.3.
func (p Page) KeepAlive() time.Duration {
	return p.RTT + time.Duration(p.Objects)*(p.RTT+p.ServerTime+p.ObjectTime)
}

// Pipelined is the page over one connection on which all requests are sent at once:
//
//	2R + n·(S + d)
//
// Valid while the answers fit the window and the server works on one at a time. RFC 9112, 9.3.2.
func (p Page) Pipelined() time.Duration {
	return 2*p.RTT + time.Duration(p.Objects)*(p.ServerTime+p.ObjectTime)
}
