// Package traffic sends numbered datagrams from one network namespace to
// another and notes when each was sent and when it came: what checks and benchmarks
// hold a link to, by other means than the link's own probes.
//
// It goes the way of any program, through UDP sockets of both nodes, over IPv4
// or IPv6; arrival is the kernel's time stamp, so that a late reader changes nothing.
// It refuses to say anything about datagrams that its own host lost: a full
// receive buffer is an error.
package traffic

import (
	"math"
	"slices"
	"time"
)

// Stream is a row of datagrams of one size.
type Stream struct {
	Port  uint16        // of the receiver
	From  uint16        // of the sender; 0: Port
	Frame int           // bytes of each, Ethernet header included; at least [MinFrame]
	Count int           // how many
	Every time.Duration // between two; 0: as fast as the socket takes them
	Start time.Duration // after the measurement's start
	ECN   bool          // of an ECN-capable transport (RFC 3168)
}

// MinFrame is the shortest frame that carries a number over IPv6.
const MinFrame = 14 + 40 + 8 + 8

// Arrival is a datagram that came.
type Arrival struct {
	Number int           // from 0
	At     time.Duration // since the measurement's start
	CE     bool          // marked: congestion experienced
}

// Seen is what became of a stream.
type Seen struct {
	Stream
	Sent     []time.Duration // by number, since the measurement's start; of those that were sent
	Arrivals []Arrival       // in the order in which they came
	Damaged  uint64          // datagrams of all streams that the receiver's kernel threw away for their checksum
}

// Delays are what each datagram took from sending to arrival, in order of
// arrival.
func (s Seen) Delays() []time.Duration {
	all := make([]time.Duration, 0, len(s.Arrivals))
	for _, a := range s.Arrivals {
		all = append(all, a.At-s.Sent[a.Number])
	}
	return all
}

// Lost are the numbers of those that never came, rising.
func (s Seen) Lost() []int {
	came := make([]bool, len(s.Sent))
	for _, a := range s.Arrivals {
		came[a.Number] = true
	}
	var lost []int
	for number, ok := range came {
		if !ok {
			lost = append(lost, number)
		}
	}
	return lost
}

// Twice is how many came more than once.
func (s Seen) Twice() int {
	came, twice := make([]int, len(s.Sent)), 0
	for _, a := range s.Arrivals {
		if came[a.Number]++; came[a.Number] == 2 {
			twice++
		}
	}
	return twice
}

// Overtaken is how many came after one with a greater number.
func (s Seen) Overtaken() int {
	overtaken, greatest := 0, -1
	for _, a := range s.Arrivals {
		if a.Number < greatest {
			overtaken++
		}
		greatest = max(greatest, a.Number)
	}
	return overtaken
}

// Marked is how many came with CE.
func (s Seen) Marked() int {
	marked := 0
	for _, a := range s.Arrivals {
		if a.CE {
			marked++
		}
	}
	return marked
}

// Rate is the rate in bit/s at which frames arrived between two moments: 0 with fewer than two
// of them.
func (s Seen) Rate(from, to time.Duration) float64 {
	var first, last time.Duration
	frames := 0
	for _, a := range s.Arrivals {
		if a.At < from || a.At > to {
			continue
		}
		if frames == 0 {
			first = a.At
		}
		last = a.At
		frames++
	}
	if frames < 2 || last == first {
		return 0
	}
	return float64((frames-1)*s.Frame*8) / (last - first).Seconds()
}

// Quantile is the value that the share q of them does not exceed; 0 of none.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Deviation is the mean and the standard deviation.
func Deviation(all []time.Duration) (mean, deviation time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	var sum, squares float64
	for _, d := range all {
		sum += float64(d)
	}
	m := sum / float64(len(all))
	for _, d := range all {
		squares += (float64(d) - m) * (float64(d) - m)
	}
	return time.Duration(m), time.Duration(math.Sqrt(squares / float64(len(all))))
}
