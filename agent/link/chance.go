package link

import (
	"fmt"
	"math"
)

// Chance is a probability with a memory. The zero value is never.
type Chance struct {
	Probability float64 // share of packets that are struck, in [0,1]
	// Correlation is how much each draw depends on the one before, in [0,1): draw =
	// (1-c)·random + c·draw before (get_crandom in net/sched/sch_netem.c). Such draws crowd
	// around their mean; engines move the threshold with them ([Chance.Threshold]), so that
	// the share of packets that are struck is still Probability.
	Correlation float64
}

func (c Chance) validate() error {
	if !isProbability(c.Probability) {
		return fmt.Errorf("%v is not a probability between 0 and 1", c.Probability)
	}
	return validCorrelation(c.Correlation, c.Probability > 0)
}

// validCorrelation says what is wrong with the correlation of something that is there or not.
func validCorrelation(c float64, used bool) error {
	if math.IsNaN(c) || c < 0 || c >= 1 {
		return fmt.Errorf("a correlation of %v is not between 0 and below 1", c)
	}
	if c > 0 && !used {
		return fmt.Errorf("a correlation of %v has nothing to correlate", c)
	}
	return nil
}

func isProbability(p float64) bool { return p >= 0 && p <= 1 }

// Reorder lets some packets overtake others by giving them no delay. The zero
// value lets none.
type Reorder struct {
	Chance
	Gap int // at least so many packets from one that is struck to the next; 0 and 1: any
}

// IsZero reports whether no packet is let past others.
func (r Reorder) IsZero() bool { return r.Probability == 0 }
