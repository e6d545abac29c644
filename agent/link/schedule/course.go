// Package schedule plays a direction's schedule on a link that stands: its
// shapes at their times, ramps in small even steps, again and again where it has a period.
//
// What is to happen when is a [Course], which knows no clock; [Play] follows
// courses in real time. A change that fails ends the playing with its
// reason: a trial whose link is not as the lab says is none.
package schedule

import (
	"math"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	// rampStep is how often a ramp moves: as often as TCP_INFO is sampled, so that between two samples
	// of a flow there is about one step, and less than most round trips, so that congestion control
	// sees a slope and no stairs.
	rampStep = 10 * time.Millisecond
	// rampSteps bounds the steps of a long ramp: each is then a ten-thousandth of the way, finer
	// than any engine keeps a rate (1%).
	rampSteps = 10_000
	// fewSteps is how many a ramp has at least, unless rampStep allows fewer: with less it
	// would be no slope.
	fewSteps = 10
)

// Pace is how far apart the steps of a ramp between two shapes are at least, for an
// engine that pays for each change. 0: as rampStep.
type Pace func(from, to link.Shape) time.Duration

// Moment is when a direction's shapes change, and to what. All that changes at one
// time is one moment.
type Moment struct {
	At time.Duration // since the course began
	To link.Direction
	// Passing says that it is a step on the way of ramps and nothing else, of which who
	// is late may leave out those that the next one has overtaken.
	Passing bool
}

// Course walks through what happens to a direction, moment by moment.
type Course struct {
	first link.Direction // as it begins, and at the start of each period; without its schedule
	plan  link.Schedule
	pace  Pace // may be nil

	now   link.Direction
	cycle time.Duration // when the period that is walked through began
	next  int           // the step that comes next in it
	ramps []ramp        // under way, at most one a path
}

// ramp is a step on its way.
type ramp struct {
	step  link.Step
	from  link.Shape
	steps int // in all
	taken int
}

// at is when the next step of the ramp is due, since the period began.
func (r ramp) at() time.Duration {
	return r.step.At + time.Duration(float64(r.step.Ramp)*float64(r.taken+1)/float64(r.steps))
}

// New begins a course. The direction is valid and its queues are resolved; pace may be nil.
func New(d link.Direction, pace Pace) *Course {
	c := &Course{plan: d.Schedule, pace: pace}
	d.Schedule = link.Schedule{}
	c.first = d
	c.restart(0)
	return c
}

func (c *Course) restart(at time.Duration) {
	c.cycle, c.next, c.ramps = at, 0, nil
	c.now = c.first
	c.now.Paths = slices.Clone(c.first.Paths)
}

// Next is the next moment at which something changes; false: nothing will any
// more. What a moment says is not changed by later ones.
func (c *Course) Next() (Moment, bool) {
	// A whole period without a change has none in the next either.
	for idle := 0; idle < 2; {
		due, ok := c.due()
		if !ok {
			break
		}
		before := c.snapshot()
		passing := true
		if period := c.plan.Period; period > 0 && due >= c.cycle+period {
			c.restart(c.cycle + period)
			passing = false
			idle++
		}
		ended := c.climb(due)
		for ; c.next < len(c.plan.Steps) && c.cycle+c.plan.Steps[c.next].At <= due; c.next++ {
			c.begin(c.plan.Steps[c.next])
			passing = false
		}
		if !same(before, c.now) {
			return Moment{At: due, To: c.snapshot(), Passing: passing && !ended}, true
		}
	}
	return Moment{}, false
}

// due is when something may change next.
func (c *Course) due() (due time.Duration, ok bool) {
	earliest := func(at time.Duration) {
		if !ok || at < due {
			due, ok = at, true
		}
	}
	if c.next < len(c.plan.Steps) {
		earliest(c.cycle + c.plan.Steps[c.next].At)
	}
	for _, r := range c.ramps {
		earliest(c.cycle + r.at())
	}
	if c.plan.Period > 0 && len(c.plan.Steps) > 0 {
		earliest(c.cycle + c.plan.Period)
	}
	return due, ok
}

// climb takes the steps of ramps that are due and reports whether a ramp has ended.
func (c *Course) climb(due time.Duration) (ended bool) {
	c.ramps = slices.DeleteFunc(c.ramps, func(r ramp) bool { return r.taken == r.steps })
	for i := range c.ramps {
		r := &c.ramps[i]
		for r.taken < r.steps && c.cycle+r.at() <= due {
			r.taken++
		}
		if r.taken > 0 {
			*c.now.ShapeOf(r.step.Path) = between(r.from, r.step.Shape, float64(r.taken)/float64(r.steps))
		}
		ended = ended || r.taken == r.steps
	}
	c.ramps = slices.DeleteFunc(c.ramps, func(r ramp) bool { return r.taken == r.steps })
	return ended
}

// begin takes a step, or the first of a ramp: what does not slope changes at once.
func (c *Course) begin(s link.Step) {
	shape := c.now.ShapeOf(s.Path)
	c.ramps = slices.DeleteFunc(c.ramps, func(r ramp) bool { return r.step.Path == s.Path })
	from := *shape
	if s.Ramp == 0 {
		*shape = s.Shape
		return
	}
	c.ramps = append(c.ramps, ramp{step: s, from: from, steps: c.steps(s.Ramp, from, s.Shape)})
	*shape = between(from, s.Shape, 0)
}

// steps is in how many a ramp goes.
func (c *Course) steps(long time.Duration, from, to link.Shape) int {
	apart := rampStep
	if c.pace != nil {
		apart = max(apart, min(c.pace(from, to), long/fewSteps))
	}
	return max(1, min(int(math.Ceil(float64(long)/float64(apart))), rampSteps))
}

// between is the shape at a share of the way, in [0,1]. Rate, delay and loss
// slope; what has no middle (no rate at all, a loss with a pattern) is as at the end.
func between(from, to link.Shape, share float64) link.Shape {
	if share >= 1 {
		return to
	}
	s := to
	s.Delay = from.Delay + time.Duration(share*float64(to.Delay-from.Delay))
	if from.Rate > 0 && to.Rate > 0 {
		s.Rate = uint64(math.Round(float64(from.Rate) + share*(float64(to.Rate)-float64(from.Rate))))
	}
	if chance(from.Loss) && chance(to.Loss) {
		s.Loss.Probability = from.Loss.Probability + share*(to.Loss.Probability-from.Loss.Probability)
	}
	// What contradicts itself at the foot of a slope begins a step later.
	if s.Loss.Probability == 0 {
		s.Loss.Correlation = 0
	}
	if s.Delay == 0 {
		s.Reorder = link.Reorder{}
	}
	return s
}

// chance reports whether the loss is a probability and no pattern.
func chance(l link.Loss) bool {
	return l.GilbertElliott == nil && l.FourState == nil && len(l.Packets) == 0 && l.Every == 0
}

func (c *Course) snapshot() link.Direction {
	d := c.now
	d.Paths = slices.Clone(c.now.Paths)
	return d
}

// same reports whether two directions of one course have the same shapes.
func same(a, b link.Direction) bool {
	return a.Shape.Equal(b.Shape) && slices.EqualFunc(a.Paths, b.Paths, func(a, b link.Path) bool { return a.Shape.Equal(b.Shape) })
}
