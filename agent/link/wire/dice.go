package wire

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/tcplab/tcplab/agent/link"
)

// use is what a random generator of a path is for. Each has one of its own, so that
// what a path does to its frames in one way leaves the others as they were.
type use uint64

// The uses. Losses are 0: without paths their generator is PCG-DXSM with (seed, 0).
const (
	forLoss use = iota
	forDuplicate
	forCorrupt
	forReorder
	forJitter
	forDamage // which bit
	uses      // how many
)

// generator is a path's random generator for a use: PCG-DXSM of math/rand/v2, with the
// direction's seed and a second number that is of the path's name, empty for the
// direction's own shape, and of the use. Other paths do not come into it.
func generator(seed uint64, path string, u use) rand.PCG {
	second := uint64(u)
	if path != "" {
		name := fnv.New64a()
		name.Write([]byte(path)) // never fails
		second += name.Sum64() / uint64(uses) * uint64(uses)
	}
	return *rand.NewPCG(seed, second)
}

// draw is a sequence of draws in [0,1), each of which may depend on the one before.
type draw struct {
	random      rand.PCG // not behind rand.Rand, which would call it by an interface for each frame
	correlation float64
	before      float64
}

// restart puts the draws at their beginning. Those that depend on the one before begin
// as if there had been many.
func (d *draw) restart(random rand.PCG, correlation float64) {
	*d = draw{random: random, correlation: correlation, before: 0.5}
	if correlation > 0 {
		const least = 1e-6 // of what the first 0.5 still weighs
		for range min(100_000, int(math.Log(least)/math.Log(correlation))+1) {
			d.next()
		}
	}
}

// uniform is the next random number in [0,1), as Float64 of math/rand/v2.
func (d *draw) uniform() float64 { return float64(d.random.Uint64()<<11>>11) / (1 << 53) }

func (d *draw) next() float64 {
	u := d.uniform()
	if d.correlation == 0 {
		return u
	}
	d.before = (1-d.correlation)*u + d.correlation*d.before
	return d.before
}

// chance strikes some frames. The zero value, with a draw, strikes none.
type chance struct {
	asked     link.Chance
	threshold float64
	draw
}

// newChance is a chance before its first restart.
func newChance(c link.Chance) chance { return chance{asked: c, threshold: c.Threshold()} }

// restart begins anew.
func (c *chance) restart(random rand.PCG) { c.draw.restart(random, c.asked.Correlation) }

// adopt takes over another chance, and goes on with the draws.
func (c *chance) adopt(next chance) {
	c.asked, c.threshold, c.correlation = next.asked, next.threshold, next.asked.Correlation
}

// strikes reports whether the next frame is struck. Without a probability nothing is
// drawn.
func (c *chance) strikes() bool {
	return c.threshold > 0 && c.next() < c.threshold
}
