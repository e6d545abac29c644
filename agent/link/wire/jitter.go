package wire

import (
	"math"
	"math/rand/v2"
	"reflect"

	"github.com/tcplab/tcplab/agent/link"
)

// jitter says by how much the delay of one frame after another differs.
type jitter struct {
	asked      link.Jitter
	deviations []int64   // ns, each as probable as any other; nil: uniform
	spread     []float64 // turns correlated draws into uniform ones; nil: they are
	draw
}

// Entries of the tables: as many as those of iproute2 for netem, or, for a user's
// table of more quantiles, netem's most (NETEM_DIST_MAX).
const (
	deviations     = 4096
	mostDeviations = 16384
	spreadSteps    = 1024
)

// newJitter is a jitter before its first restart. It takes some ms for the
// tables.
func newJitter(asked link.Jitter) jitter {
	j := jitter{asked: asked}
	if asked.IsZero() {
		return j
	}
	if asked.Correlation > 0 {
		j.spread = link.Spreading(asked.Correlation, spreadSteps)
	}
	if asked.Distribution == link.Uniform {
		return j
	}
	n := deviations
	if len(asked.Quantiles) > n {
		n = mostDeviations
	}
	j.deviations = make([]int64, n)
	for i, d := range asked.Deviations(n) {
		j.deviations[i] = int64(math.Round(d * float64(asked.Amount)))
	}
	return j
}

// is reports whether the jitter is the one that is asked for.
func (j *jitter) is(asked link.Jitter) bool { return reflect.DeepEqual(j.asked, asked) }

// restart begins anew.
func (j *jitter) restart(random rand.PCG) { j.draw.restart(random, j.asked.Correlation) }

// adopt takes over another jitter, and goes on with the draws.
func (j *jitter) adopt(next jitter) {
	j.asked, j.deviations, j.spread, j.correlation = next.asked, next.deviations, next.spread, next.asked.Correlation
}

// next is by how many ns the next frame's delay differs.
func (j *jitter) next() int64 {
	u := j.draw.next()
	if j.spread != nil {
		at := u * spreadSteps
		i := min(int(at), spreadSteps-1)
		u = j.spread[i] + (at-float64(i))*(j.spread[i+1]-j.spread[i])
	}
	if j.deviations != nil {
		return j.deviations[min(int(u*float64(len(j.deviations))), len(j.deviations)-1)]
	}
	return int64(math.Round((2*u - 1) * float64(j.asked.Amount)))
}
