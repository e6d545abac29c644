package link

import "math"

// stationary is the distribution of correlated draws in the long run: of
//
//	x = (1-c)·(u₀ + c·u₁ + c²·u₂ + …)
//
// with independent u, uniform in [0,1]. The characteristic function of such a sum is
// a product, and x lies in [0,1], so that its density is a Fourier series there whose
// coefficients are known:
//
//	aₙ = Π sinc(n(1-c)cᵏ), k = 0, 1, …   with sinc(z) = sin(πz)/(πz)
//	F(x) = x + Σ aₙ·sin(2πn(x-½))/(πn), n = 1, 2, …
type stationary struct {
	terms []float64 // aₙ/(πn)
}

// Beyond these the series adds less than a draw of 32 bits can tell.
const (
	leastTerm = 1e-17
	mostTerms = 1 << 16 // reached where c < 0.01: aₙ falls as 1/n at first
)

func newStationary(c float64) stationary {
	var s stationary
	for small := 0; len(s.terms) < mostTerms && small < 8; {
		n := float64(len(s.terms) + 1)
		term := sincs(n*(1-c), c) / (math.Pi * n)
		s.terms = append(s.terms, term)
		// One alone may be at a zero of sinc.
		if math.Abs(term) < leastTerm {
			small++
		} else {
			small = 0
		}
	}
	return s
}

// sincs is the product of sinc(z·cᵏ) over k = 0, 1, …
func sincs(z, c float64) float64 {
	product := 1.0
	for ; z > 0.1; z *= c {
		product *= math.Sin(math.Pi*z) / (math.Pi * z)
	}
	// ln sinc z = -Σ ζ(2j)z²ʲ/j, and the sum over k of (z·cᵏ)²ʲ is geometric. Six of
	// them leave 1e-15.
	zeta := [...]float64{math.Pi * math.Pi / 6, math.Pow(math.Pi, 4) / 90, math.Pow(math.Pi, 6) / 945, 1.00407735619794, 1.00099457512782, 1.00024608655331}
	logarithm := 0.0
	for i, value := range zeta {
		j := float64(i + 1)
		logarithm -= value / j * math.Pow(z, 2*j) / (1 - math.Pow(c, 2*j))
	}
	return product * math.Exp(logarithm)
}

// share is F(x): how many of the draws are below x.
func (s stationary) share(x float64) float64 {
	if x <= 0 || x >= 1 {
		return min(1, max(0, x))
	}
	sum := x
	for i, term := range s.terms {
		sum += term * math.Sin(2*math.Pi*float64(i+1)*(x-0.5))
	}
	return min(1, max(0, sum))
}

// quantile is the inverse of share.
func (s stationary) quantile(p float64) float64 {
	if p <= 0 || p >= 1 {
		return min(1, max(0, p))
	}
	low, high := 0.0, 1.0
	for range 44 { // more than the 32 bits of a draw
		middle := (low + high) / 2
		if s.share(middle) < p {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// Threshold is the draw in [0,1] below which a packet is struck: Probability
// itself for independent draws, and for correlated ones, which crowd around 1/2, the value that
// the share Probability of them is below. It takes some ms where 0 < Correlation < 0.01.
func (c Chance) Threshold() float64 {
	if c.Correlation == 0 {
		return c.Probability
	}
	return newStationary(c.Correlation).quantile(c.Probability)
}

// Spreading is the distribution function of correlated draws at steps+1 equally spaced
// draws from 0 to 1: what turns a draw into a uniform one that remembers as much.
func Spreading(correlation float64, steps int) []float64 {
	s := stationary{}
	if correlation > 0 {
		s = newStationary(correlation)
	}
	spread := make([]float64, steps+1)
	for i := range spread {
		spread[i] = s.share(float64(i) / float64(steps))
	}
	return spread
}

// Draw32 is the chance in the units of sch_netem: a packet is struck where a draw of 32 bits
// is at most threshold, and 0 strikes none, so that a probability above 0 is at least
// 1; the draw before has the weight (correlation+1)/2³², and 0 is independence.
func (c Chance) Draw32() (threshold, correlation uint32) {
	return draw32(c.Threshold()), draw32(c.Correlation)
}

// ChanceOf32 is the inverse of [Chance.Draw32].
func ChanceOf32(threshold, correlation uint32) Chance {
	c := Chance{Probability: share32(threshold), Correlation: share32(correlation)}
	if c.Correlation > 0 && c.Probability > 0 {
		c.Probability = newStationary(c.Correlation).share(c.Probability)
	}
	return c
}

// draw32 is the greatest of the 32-bit numbers that are the share of all.
func draw32(share float64) uint32 {
	if share == 0 {
		return 0
	}
	return uint32(max(1, min(math.Round(share*(1<<32))-1, math.MaxUint32)))
}

// share32 is the inverse of draw32.
func share32(draw uint32) float64 {
	if draw == 0 {
		return 0
	}
	return (float64(draw) + 1) / (1 << 32)
}
