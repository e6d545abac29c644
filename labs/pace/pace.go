// Package pace says when things are due whose rate changes in steps: the bytes of a bulk, or
// requests. It is arithmetic, and refuses rates that are no rates.
package pace

import (
	"fmt"
	"math"
	"time"
)

// Step is a rate from a time on.
type Step struct {
	At   time.Duration // since the beginning
	Rate float64       // a second; 0: nothing is due until the next step
}

// Plan is a rate over time. It is not changed once made.
type Plan struct {
	steps  []Step    // the first is at 0
	before []float64 // what is due before each step
}

// New is the plan of a rate from the beginning on, which each step changes. Steps rise in time, and
// the last rate is above 0: after a last 0 nothing would ever be due.
func New(rate float64, steps []Step) (*Plan, error) {
	p := &Plan{steps: append([]Step{{Rate: rate}}, steps...), before: make([]float64, len(steps)+1)}
	for i, s := range p.steps {
		if !(s.Rate >= 0) || math.IsInf(s.Rate, 0) {
			return nil, fmt.Errorf("a rate of %v", s.Rate)
		}
		if i == 0 {
			continue
		}
		last := p.steps[i-1]
		if s.At < last.At || i > 1 && s.At == last.At {
			return nil, fmt.Errorf("a step at %v comes behind one at %v", s.At, last.At)
		}
		p.before[i] = p.before[i-1] + last.Rate*(s.At-last.At).Seconds()
	}
	if p.steps[len(steps)].Rate == 0 {
		return nil, fmt.Errorf("the last rate is 0")
	}
	return p, nil
}

// Due is when so much has become due, since the beginning: at once for 0, and never later than
// what a time.Duration holds.
func (p *Plan) Due(amount float64) time.Duration {
	// The last step before which no more than this was due; of several that differ by pauses the
	// first, for what is due before a pause is due at its beginning.
	i := len(p.steps) - 1
	for i > 0 && p.before[i] >= amount {
		i--
	}
	s := p.steps[i]
	if amount <= p.before[i] || s.Rate == 0 {
		return s.At
	}
	seconds := s.At.Seconds() + (amount-p.before[i])/s.Rate
	if seconds >= math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(seconds * 1e9)
}
