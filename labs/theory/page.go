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
	return p.serialTerms().total()
}

func (p Page) serialTerms() terms[time.Duration] {
	n := time.Duration(p.Objects)
	return terms[time.Duration]{
		{"each object has a handshake", "n·R", n * p.RTT},
		{"each is asked for and comes", "n·R", n * p.RTT},
		p.thinking(), p.sending(),
	}
}

// thinking is what the server takes for all objects, one after another.
func (p Page) thinking() term[time.Duration] {
	return term[time.Duration]{"the server makes each", "n·S", time.Duration(p.Objects) * p.ServerTime}
}

// sending is what the bottleneck takes for all objects.
func (p Page) sending() term[time.Duration] {
	return term[time.Duration]{"the bottleneck sends each", "n·d", time.Duration(p.Objects) * p.ObjectTime}
}

// Parallel is the page over k connections side by side, each for one object at a time:
//
//	⌈n/k⌉·(2R + S) + n·d
//
// The bottleneck sends each byte once all the same. Valid where d is short beside 2R + S;
// where n·d is nearly all, k gains nothing.
func (p Page) Parallel(k int) time.Duration {
	return p.parallelTerms(k).total()
}

func (p Page) parallelTerms(k int) terms[time.Duration] {
	batches := time.Duration((p.Objects + k - 1) / k)
	return terms[time.Duration]{
		{"each batch of k objects has its handshakes", "⌈n/k⌉·R", batches * p.RTT},
		{"each batch is asked for and comes", "⌈n/k⌉·R", batches * p.RTT},
		{"the server makes each batch", "⌈n/k⌉·S", batches * p.ServerTime},
		p.sending(),
	}
}

// KeepAlive is the page over one connection that stays open, one request at a time:
//
//	R + n·(R + S + d)
//
// RFC 9112, 9.3.
func (p Page) KeepAlive() time.Duration {
	return p.keepAliveTerms().total()
}

func (p Page) keepAliveTerms() terms[time.Duration] {
	return terms[time.Duration]{
		{"the one handshake", "R", p.RTT},
		{"each object is asked for and comes", "n·R", time.Duration(p.Objects) * p.RTT},
		p.thinking(), p.sending(),
	}
}

// Pipelined is the page over one connection on which all requests are sent at once:
//
//	2R + n·(S + d)
//
// Valid while the answers fit the window and the server works on one at a time. RFC 9112, 9.3.2.
func (p Page) Pipelined() time.Duration {
	return p.pipelinedTerms().total()
}

func (p Page) pipelinedTerms() terms[time.Duration] {
	return terms[time.Duration]{
		{"the one handshake", "R", p.RTT},
		{"all requests cross the link, and the answers", "R", p.RTT},
		p.thinking(), p.sending(),
	}
}
