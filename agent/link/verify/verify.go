// Package verify measures a link that stands and judges whether it does what was
// asked, in each direction and on each path: its delay and jitter, its rate with overhead and burst, or its trace; and
// which packets it loses, duplicates, damages and lets past others.
//
// The probes are frames of tcplab's own at layer 2, sent and received at the
// link's two interfaces, so that no address, route or firewall is needed, and a
// switch's port is measured like any other. Those for a path are IP packets that its match
// selects, to a group address that no bridge forwards and no stack answers. They carry their number and
// a checksum. Judging is pure and apart from probing.
//
// It refuses to take what it could not see for proven: a rate that this host cannot
// fill, a loss too rare for the time it has. Lateness of a busy host fails no
// link that is right: it can only add delay, so the least delay counts, and the
// median of several trains; measurements that disagree among themselves prove
// nothing; and what fails is measured again. A queue's limit and discipline are not measured: they are read back.
package verify

import (
	"runtime"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// Verdict says what a measurement proved.
type Verdict int

// Verdicts, in the order in which they outweigh one another.
const (
	Passed   Verdict = iota // measured, and as asked
	Unproven                // could not be measured well enough to say
	Failed                  // measured, and not as asked
)

func (v Verdict) String() string {
	switch v {
	case Passed:
		return "passed"
	case Failed:
		return "failed"
	default:
		return "unproven"
	}
}

// Quantity is what is judged of a stream.
type Quantity int

// The quantities, in the order in which reports name them.
const (
	Delay     Quantity = iota
	Jitter             // the delay's distribution
	Order              // whether packets overtake others where none is asked to
	Rate               // of a rate, a trace, or none
	Overhead           // of each packet at the bottleneck
	Burst              // what an idle bottleneck sends at once
	Loss               // how much, and in which pattern
	Duplicate          // how many come twice
	Corrupt            // how many come damaged
	Reorder            // how many are let past others
	quantities
)

func (q Quantity) String() string {
	return [...]string{"delay", "jitter", "order", "rate", "overhead", "burst", "loss", "duplicate", "corrupt", "reorder"}[q]
}

// Finding is the verdict on one quantity. Where nothing was asked of it and nothing seen, it has
// passed without a word.
type Finding struct {
	Verdict Verdict
	Detail  string // for people: what was asked and what was measured

	again bool // another attempt may tell more
}

// Measured are the figures of one stream. One that could not be measured is 0.
type Measured struct {
	Delay      time.Duration // one way, the least of all probes; with jitter their mean
	Jitter     time.Duration // standard deviation of the delay; 0 where no jitter was asked
	RateBps    float64       // bit/s of frames with their Ethernet header, the median of trains
	Loss       float64       // share of the counted probes that did not arrive
	Sent       int           // counted probes
	Received   int           // counted probes that arrived
	Reordered  float64       // share of the counted probes that were overtaken
	Duplicated float64       // share of those that arrived that came twice
	Corrupted  float64       // share of those that arrived that came damaged
}

// Stream is what was found out about one shape of a direction.
type Stream struct {
	Path     string // empty: the direction's own
	Asked    link.Shape
	Measured Measured
	Findings [quantities]Finding
}

// Verdict is the worst of all quantities.
func (s Stream) Verdict() (worst Verdict) {
	for _, f := range s.Findings {
		worst = max(worst, f.Verdict)
	}
	return worst
}

// Direction is what was found out about one direction: its own shape first, then its paths in
// their order.
type Direction []Stream

// Verdict is the worst of its streams.
func (d Direction) Verdict() (worst Verdict) {
	for _, s := range d {
		worst = max(worst, s.Verdict())
	}
	return worst
}

// Report is what was found out about a link.
type Report struct {
	Name       string
	Directions [2]Direction  // as in link.Spec
	Attempts   int           // measurements until every quantity passed, was unproven, or time was up
	Took       time.Duration // of all attempts
}

// Verdict is the worse of the two directions.
func (r Report) Verdict() Verdict {
	return max(r.Directions[0].Verdict(), r.Directions[1].Verdict())
}

// Options of a verification. The zero value is the default.
type Options struct {
	// Limit is the time for one link, all attempts together. Default 1 s. What takes longer to prove
	// gets the time it needs up to this.
	Limit time.Duration
	// FalseAlarm is the chance, in (0,1), with which a direction that
	// is right is judged failed for what chance decides. Default 1e-9: a thousand directions a run
	// stay below one false alarm in a million runs.
	FalseAlarm float64
	// Attempts is how often a quantity is measured before it has failed. Default 3.
	Attempts int
	// Counters, if set, are what link i of Links (0 for Link) has counted so far. Probes that its queue
	// dropped while the host stood still are then measured again instead of
	// taken for lost.
	Counters func(i int) ([2]link.Counters, error)
	// Rearm, if set, re-arms link i before it is measured, so that it is known which packet is
	// the first. Without it, losses of packets by their number and traces are unproven.
	Rearm func(i int) error
	// Still says that nothing else goes on and that the clock waits for who computes, as in virtual time: then
	// fewer probes tell as much.
	Still bool
	// Parallel is how many links Links measures at once. Default 4, and 1 on a single
	// processor, whose backlog the probes of several would overflow.
	Parallel int
}

func (o Options) withDefaults() Options {
	if o.Limit <= 0 {
		o.Limit = time.Second
	}
	if o.FalseAlarm <= 0 {
		o.FalseAlarm = 1e-9
	}
	if o.Attempts <= 0 {
		o.Attempts = 3
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
		if runtime.NumCPU() == 1 {
			o.Parallel = 1
		}
	}
	return o
}
