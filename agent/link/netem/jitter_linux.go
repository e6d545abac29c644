package netem

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	tableSize  = 16384     // NETEM_DIST_MAX: values in a table
	tableScale = 8192      // NETEM_DIST_SCALE: what stands for 1
	maxJitter  = 1<<31 - 1 // ns; netem_change cuts it off at INT_MAX
)

// checkJitter says why netem cannot have a jitter.
func checkJitter(j link.Jitter) error {
	if j.Amount > maxJitter {
		return fmt.Errorf("a jitter of %v is more than netem's %v: make it smaller", j.Amount, time.Duration(maxJitter))
	}
	if j.Correlation > 0 {
		// tabledist takes rnd % size (or % 2·sigma): the low bits of a correlated number, which do not depend on the
		// one before.
		return errors.New("netem's jitter has no memory, whatever correlation it is given: it draws by the low bits of a correlated number (tabledist in " +
			"net/sched/sch_netem.c), which are as random as ever; leave the correlation out, or take the wire engine")
	}
	return nil
}

// table is netem's of a jitter's distribution.
func table(j link.Jitter) []int16 {
	deviations := j.Deviations(tableSize)
	values := make([]int16, len(deviations))
	for i, d := range deviations {
		values[i] = int16(max(math.MinInt16, min(math.MaxInt16, math.Round(d*tableScale))))
	}
	return values
}
