package pace

import (
	"math"
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	const ms = time.Millisecond
	steps := []Step{{100 * ms, 1000}, {200 * ms, 0}, {500 * ms, 10}}
	for _, test := range []struct {
		rate   float64
		steps  []Step
		amount float64
		want   time.Duration
	}{
		{100, nil, 0, 0},
		{100, nil, 1, 10 * ms},
		{100, nil, 250, 2500 * ms},
		{100, steps, 9, 90 * ms},
		{100, steps, 10, 100 * ms},
		{100, steps, 60, 150 * ms},
		{100, steps, 110, 200 * ms}, // before the pause, not behind it
		{100, steps, 111, 600 * ms},
		{0, []Step{{100 * ms, 10}}, 0, 0},
		{0, []Step{{100 * ms, 10}}, 1, 200 * ms},
		{5, []Step{{0, 10}}, 1, 100 * ms}, // from the beginning on
		{1e-9, nil, 1e12, math.MaxInt64},
	} {
		p, err := New(test.rate, test.steps)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Due(test.amount); (got - test.want).Abs() > time.Microsecond {
			t.Errorf("at %g, then %v: %g is due at %v, want %v", test.rate, test.steps, test.amount, got, test.want)
		}
	}
}

// What is due is never earlier than what was due before, whatever the steps are.
func TestDueNeverFalls(t *testing.T) {
	p, err := New(3, []Step{{time.Second, 0}, {2 * time.Second, 1e6}, {3 * time.Second, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	last := time.Duration(-1)
	for i := range 3000 {
		at := p.Due(float64(i) * 401.7)
		if at < last {
			t.Fatalf("%d is due at %v, after %v", i, at, last)
		}
		last = at
	}
}

func TestPlanThatCannotBe(t *testing.T) {
	for name, test := range map[string]struct {
		rate  float64
		steps []Step
	}{
		"negative":    {-1, nil},
		"not finite":  {math.Inf(1), nil},
		"no number":   {math.NaN(), nil},
		"never":       {0, nil},
		"ends":        {1, []Step{{time.Second, 0}}},
		"backward":    {1, []Step{{2, 1}, {1, 1}}},
		"twice":       {1, []Step{{2, 1}, {2, 3}}},
		"before time": {1, []Step{{-1, 1}}},
	} {
		if _, err := New(test.rate, test.steps); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
