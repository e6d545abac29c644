package link

import (
	"math"
	"slices"
	"testing"
)

func moments(values []float64) (mean, deviation, skew float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean) / n
		skew += (v - mean) * (v - mean) * (v - mean) / n
	}
	deviation = math.Sqrt(deviation)
	return mean, deviation, skew / (deviation * deviation * deviation)
}

func TestDeviationsHaveTheirMeanAndWidth(t *testing.T) {
	tests := []struct {
		name            string
		jitter          Jitter
		mean, deviation float64
		least, most     float64 // that are there, both within the distribution's own
		skewed          bool
	}{
		{"uniform", Jitter{}, 0, 1 / math.Sqrt(3), -1, 1, false},
		{"normal", Jitter{Distribution: Normal}, 0, 1, -4, 4, false},
		// Uncut the least is -1/√3; a fifth of the variance is cut off and made up for.
		{"pareto", Jitter{Distribution: Pareto}, 0, 1, -0.83, 4, true},
		{"paretonormal", Jitter{Distribution: ParetoNormal}, 0, 1, -2.5, 4, true},
		{"table", Jitter{Distribution: Table, Quantiles: []float64{-1, 0, 4}}, 0.75, math.Sqrt((1./3+16./3)/2 - 0.75*0.75), -1, 4, true},
		{"table of two", Jitter{Distribution: Table, Quantiles: []float64{0, 2}}, 1, 1 / math.Sqrt(3), 0, 2, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, n := range []int{256, 4096, 16384} {
				got := test.jitter.Deviations(n)
				if len(got) != n || !slices.IsSorted(got) {
					t.Fatalf("%d values, sorted: %v", len(got), slices.IsSorted(got))
				}
				mean, deviation, skew := moments(got)
				exact := 1e-9
				if test.jitter.Distribution == Uniform || test.jitter.Distribution == Table {
					exact = 2 / float64(n) / float64(n) // of the midpoint rule
				}
				if math.Abs(mean-test.mean) > exact || math.Abs(deviation-test.deviation) > exact {
					t.Errorf("of %d the mean is %v and the deviation %v, want %v and %v", n, mean, deviation, test.mean, test.deviation)
				}
				if got[0] < test.least || got[n-1] > test.most {
					t.Errorf("of %d the least is %v and the most %v, not within %v and %v", n, got[0], got[n-1], test.least, test.most)
				}
				if (skew > 0.5) != test.skewed {
					t.Errorf("of %d the skew is %v", n, skew)
				}
			}
		})
	}
}

// Quantiles of the standard normal distribution, as tables print them.
func TestDeviationsAreTheDistributions(t *testing.T) {
	const n = 10_001
	normal := Jitter{Distribution: Normal}.Deviations(n)
	for p, want := range map[float64]float64{0.5: 0, 0.8413447461: 1, 0.9772498681: 2, 0.0013498980: -3} {
		// A deviation of the cut normal is stretched by some 0.05%.
		if got := normal[int(p*n)]; math.Abs(got-want) > 0.01 {
			t.Errorf("the normal's quantile at %v is %v, want %v", p, got, want)
		}
	}
	// Pareto's median is 2^(1/3), and how far its quartiles lie apart relative to each
	// other no moving and stretching changes.
	pareto := Jitter{Distribution: Pareto}.Deviations(n)
	at := func(p float64) float64 { return pareto[int(p*n)] }
	inverse := func(p float64) float64 { return math.Pow(1-p, -1./3) }
	want := (inverse(0.95) - inverse(0.5)) / (inverse(0.5) - inverse(0.05))
	if got := (at(0.95) - at(0.5)) / (at(0.5) - at(0.05)); math.Abs(got/want-1) > 0.01 {
		t.Errorf("the pareto's quantiles are %v apart, want %v", got, want)
	}
}

func TestDeviationsOfATableAreLinearBetween(t *testing.T) {
	got := Jitter{Distribution: Table, Quantiles: []float64{-2, 0, 4}}.Deviations(4)
	for i, want := range []float64{-1.5, -0.5, 1, 3} {
		if got[i] != want {
			t.Errorf("value %d is %v, want %v", i, got[i], want)
		}
	}
}

func TestDeviationsOfFew(t *testing.T) {
	for n := range 10 {
		for _, d := range []Distribution{Uniform, Normal, Pareto, ParetoNormal} {
			for _, v := range (Jitter{Distribution: d}).Deviations(n) {
				if math.IsNaN(v) || math.Abs(v) > Spread {
					t.Errorf("%d of %q hold %v", n, d, v)
				}
			}
		}
	}
}
