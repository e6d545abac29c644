// Package verify measures a link that stands and judges whether it does what was
// asked: its delay, its rate and its loss, in each direction.
//
// The probes are frames of tcplab's own at layer 2, sent and received at the
// link's two interfaces, so that no address, route or firewall is needed, and a
// switch's port is measured like any other. Judging is pure and apart from
// probing.
//
// It refuses to take what it could not see for proven: a rate that this host cannot
// fill, a loss too rare for the time it has. Lateness of a busy host fails no
// link that is right: it can only add delay, so the least delay counts, and the
// median of several trains; measurements that disagree among themselves prove
// nothing; and what fails is measured again.
package verify

import (
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

// Finding is the verdict on one quantity.
type Finding struct {
	Verdict Verdict
	Detail  string // for people: what was asked and what was measured

	again bool // another attempt may tell more
}

// Measured are the figures of one direction. One that could not be measured is 0.
type Measured struct {
	Delay    time.Duration // one way, the least of all delay probes
	RateBps  float64       // bit/s of frames with their Ethernet header, the median of trains
	Loss     float64       // share of the loss probes that did not arrive
	Sent     int           // loss probes
	Received int           // loss probes that arrived
}

// Direction is what was found out about one direction.
type Direction struct {
	Asked             link.Shape
	Measured          Measured
	Delay, Rate, Loss Finding
}

// Verdict is the worst of the three.
func (d Direction) Verdict() Verdict {
	return max(d.Delay.Verdict, d.Rate.Verdict, d.Loss.Verdict)
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
	// Limit is the time for one link, all attempts together. Default 1 s.
	Limit time.Duration
	// FalseAlarm is the chance, in (0,1), with which the loss of a direction that
	// is right is judged failed. Default 1e-9: a thousand directions a run
	// stay below one false alarm in a million runs.
	FalseAlarm float64
	// Attempts is how often a quantity is measured before it has failed. Default 3.
	Attempts int
	// Counters, if set, are what link i of Links (0 for Link) has counted so far. Probes that its queue
	// dropped while the host stood still are then measured again instead of
	// taken for lost.
	Counters func(i int) ([2]link.Counters, error)
	// Parallel is how many links Links measures at once. Default 4.
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
	}
	return o
}
