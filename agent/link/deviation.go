package link

import (
	"math"
	"slices"
)

// Deviations are n values of the jitter's distribution in units of Amount, rising, each as
// probable as any other: the quantiles in the middles of n equal steps of probability.
// Times Amount, and on top of the delay, they are the delays of packets.
//
// Of the distributions with a standard deviation, mean and standard deviation of the n values
// are 0 and 1 exactly: what is cut off at [Spread] is made up for by stretching the rest.
// Where two quantiles of a table differ, the values between them are evenly spread.
func (j Jitter) Deviations(n int) []float64 {
	deviations := make([]float64, n)
	for i := range deviations {
		deviations[i] = j.quantile((float64(i) + 0.5) / float64(n))
	}
	switch j.Distribution {
	case Normal, Pareto, ParetoNormal:
		standardize(deviations)
	}
	return deviations
}

// quantile is the deviation that the share u, in (0,1), does not exceed; of unbounded distributions
// before anything is cut off.
func (j Jitter) quantile(u float64) float64 {
	switch j.Distribution {
	case Normal:
		return normalQuantile(u)
	case Pareto:
		return paretoQuantile(u)
	case ParetoNormal:
		// At the same probability, as in netem/paretonormal.c of iproute2: not a sum of two draws.
		return 0.25*normalQuantile(u) + 0.75*paretoQuantile(u)
	case Table:
		at := u * float64(len(j.Quantiles)-1)
		i := min(int(at), len(j.Quantiles)-2)
		return j.Quantiles[i] + (at-float64(i))*(j.Quantiles[i+1]-j.Quantiles[i])
	}
	return 2*u - 1
}

func normalQuantile(u float64) float64 { return math.Sqrt2 * math.Erfinv(2*u-1) }

// paretoQuantile is that of shape 3 and scale 1, whose mean is 3/2 and whose variance is 3/4, moved to
// mean 0 and stretched to variance 1.
func paretoQuantile(u float64) float64 {
	return (1/math.Cbrt(1-u) - 1.5) / math.Sqrt(0.75)
}

// standardize moves and stretches values, cut off at ±Spread, until their mean is 0 and their standard
// deviation 1. Each step takes away most of what is missing; all distributions
// here are there after some twenty.
func standardize(values []float64) {
	if len(values) < 3 {
		return // too few to have both
	}
	original := slices.Clone(values)
	shift, stretch := 0.0, 1.0
	for range 200 {
		mean, square := 0.0, 0.0
		for i, v := range original {
			v = min(Spread, max(-Spread, v*stretch+shift))
			values[i] = v
			mean += v
			square += v * v
		}
		mean /= float64(len(values))
		deviation := math.Sqrt(square/float64(len(values)) - mean*mean)
		if math.Abs(mean) < 1e-12 && math.Abs(deviation-1) < 1e-12 {
			return
		}
		stretch /= deviation
		shift = (shift - mean) / deviation
	}
}
