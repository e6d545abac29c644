package verify

import "math"

// binomialTest is the exact two-sided probability that of n independent trials, each
// of chance p, a number at least as extreme as k comes out: twice the smaller tail,
// at most 1 (Clopper and Pearson 1934).
func binomialTest(k, n int, p float64) float64 {
	return min(1, 2*min(binomialTail(0, k, n, p), binomialTail(k, n, n, p)))
}

// binomialTail is P(from ≤ X ≤ to) for X binomial with n trials of chance p.
func binomialTail(from, to, n int, p float64) float64 {
	switch p { // where the logarithms below have no value
	case 0:
		return indicator(from <= 0)
	case 1:
		return indicator(to >= n)
	}
	sum := 0.0
	for k := from; k <= to; k++ {
		sum += math.Exp(logChoose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	return min(1, sum)
}

func indicator(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// logChoose is ln(n over k).
func logChoose(n, k int) float64 {
	all, _ := math.Lgamma(float64(n + 1))
	in, _ := math.Lgamma(float64(k + 1))
	out, _ := math.Lgamma(float64(n - k + 1))
	return all - in - out
}
