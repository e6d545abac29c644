package link

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The distribution of x = (1-c)u + c·x is a fixed point:
// F(x) = c/(1-c) · ∫F from (x-(1-c))/c to x/c, and symmetric about 1/2.
func TestStationaryIsTheFixedPoint(t *testing.T) {
	for _, c := range []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			s := newStationary(c)
			for _, x := range []float64{0.001, 0.01, 0.1, 0.25, 0.3, 0.4, 0.5, 0.55, 0.7, 0.99} {
				// Simpson's rule; F has as many kinks as u has edges.
				low, high := (x-(1-c))/c, x/c
				integral := max(0, high-1) // where F is 1
				low, high = max(0, low), min(1, high)
				const steps = 1000
				h := (high - low) / steps
				for i := range steps + 1 {
					weight := 2.0 + 2*float64(i%2)
					if i == 0 || i == steps {
						weight = 1
					}
					integral += weight * s.share(low+float64(i)*h) * h / 3
				}
				if got, want := s.share(x), c/(1-c)*integral; math.Abs(got-want) > 1e-6 {
					t.Errorf("F(%v) is %v, the integral says %v", x, got, want)
				}
				if got := s.share(x) + s.share(1-x); math.Abs(got-1) > 1e-12 {
					t.Errorf("F(%v) + F(1-%v) is %v", x, x, got)
				}
			}
		})
	}
}

// With c = 1/2 the sum is Fabius' function, whose values at powers of 1/2 are known
// (J. Fabius, "A probabilistic example of a nowhere analytic C∞-function", 1966).
func TestStationaryIsFabiusFunction(t *testing.T) {
	s := newStationary(0.5)
	for x, want := range map[float64]float64{
		1. / 2: 1. / 2, 1. / 4: 5. / 72, 1. / 8: 1. / 288, 1. / 16: 143. / 2073600, 1. / 32: 19. / 33177600, 3. / 4: 67. / 72,
	} {
		if got := s.share(x); math.Abs(got-want) > 1e-14 {
			t.Errorf("F(%v) is %v, want %v", x, got, want)
		}
	}
}

// strike runs the generator with a chance and returns the share that was struck.
func strike(c Chance, n int, random *rand.Rand) float64 {
	threshold, x, struck := c.Threshold(), 0.5, 0
	for i := range n + 10_000 {
		x = (1-c.Correlation)*random.Float64() + c.Correlation*x
		if i >= 10_000 && x < threshold {
			struck++
		}
	}
	return float64(struck) / float64(n)
}

func TestThresholdKeepsTheShare(t *testing.T) {
	const n = 1_000_000
	for _, p := range []float64{1e-4, 1e-3, 0.01, 0.2, 0.5, 0.9} {
		for _, c := range []float64{0, 0.1, 0.25, 0.5, 0.9, 0.95} {
			got := strike(Chance{p, c}, n, rand.New(rand.NewPCG(1, uint64(c*100))))
			// Correlated strikes come in clusters, of 1/(1-c) at most, which widens the
			// binomial deviation by the root of (1+c)/(1-c) at most.
			deviation := math.Sqrt(p * (1 - p) / n * (1 + c) / (1 - c))
			if math.Abs(got-p) > 5*deviation {
				t.Errorf("probability %v with correlation %v struck %v, %.1f deviations off", p, c, got, (got-p)/deviation)
			}
		}
	}
}

func TestThresholdAtTheEnds(t *testing.T) {
	for _, c := range []float64{0, 0.3, 0.95, 0.9999, 1e-6} {
		if got := (Chance{0, c}).Threshold(); got != 0 {
			t.Errorf("never with correlation %v has the threshold %v", c, got)
		}
		if got := (Chance{1, c}).Threshold(); got != 1 {
			t.Errorf("always with correlation %v has the threshold %v", c, got)
		}
		if got := (Chance{0.5, c}).Threshold(); math.Abs(got-0.5) > 1e-9 {
			t.Errorf("half with correlation %v has the threshold %v", c, got)
		}
	}
	// A correlation of next to nothing moves it by less than itself.
	if got := (Chance{0.01, 1e-6}).Threshold(); math.Abs(got-0.01) > 1e-6 {
		t.Errorf("1%% with correlation 1e-6 has the threshold %v", got)
	}
	// One of nearly 1 is a normal distribution around 1/2 with variance (1-c)/(1+c)/12.
	want := 0.5 - 2.3263478740408408*math.Sqrt(1e-4/1.9999/12)
	if got := (Chance{0.01, 0.9999}).Threshold(); math.Abs(got-want) > 1e-6 {
		t.Errorf("1%% with correlation 0.9999 has the threshold %v, want %v", got, want)
	}
}

func TestDraw32(t *testing.T) {
	tests := []struct {
		chance                 Chance
		threshold, correlation uint32
	}{
		{Chance{}, 0, 0},
		{Chance{1, 0}, math.MaxUint32, 0},
		{Chance{0.5, 0}, 1<<31 - 1, 0},
		{Chance{1e-12, 0}, 1, 0},
		{Chance{0.5, 0.25}, 1<<31 - 1, 1<<30 - 1},
		{Chance{5. / 72, 0.5}, 1<<30 - 1, 1<<31 - 1},
	}
	for _, test := range tests {
		threshold, correlation := test.chance.Draw32()
		if threshold != test.threshold || correlation != test.correlation {
			t.Errorf("%+v is %d and %d, want %d and %d", test.chance, threshold, correlation, test.threshold, test.correlation)
		}
		back := ChanceOf32(threshold, correlation)
		if math.Abs(back.Probability-test.chance.Probability) > 1e-9 || math.Abs(back.Correlation-test.chance.Correlation) > 1e-9 {
			t.Errorf("%+v comes back as %+v", test.chance, back)
		}
	}
}

func TestSpreading(t *testing.T) {
	spread := Spreading(0.5, 4)
	for i, want := range []float64{0, 5. / 72, 0.5, 67. / 72, 1} {
		if math.Abs(spread[i]-want) > 1e-14 {
			t.Errorf("the draw %v/4 becomes %v, want %v", i, spread[i], want)
		}
	}
	if got := Spreading(0, 2); got[1] != 0.5 {
		t.Errorf("independent draws stay themselves, 0.5 became %v", got[1])
	}
}
