package theory_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/labs/theory"
)

// arguments are values that each formula takes: its defaults, and something for what it needs.
func arguments(f theory.Formula) []float64 {
	var out []float64
	for _, p := range f.Parameters {
		switch {
		case p.Optional:
			out = append(out, p.Default)
		case p.Kind == theory.Time:
			out = append(out, 0.08)
		case p.Kind == theory.Chance:
			out = append(out, 0.01)
		case p.Kind == theory.Rate:
			out = append(out, 1e8)
		case p.Kind == theory.Bytes:
			out = append(out, 1e6)
		default:
			out = append(out, 4)
		}
	}
	return out
}

// The steps of each formula come to its result.
func TestDerivations(t *testing.T) {
	names := map[string]bool{}
	for _, f := range theory.Formulas() {
		t.Run(f.Name, func(t *testing.T) {
			if names[f.Name] || f.About == "" || f.Law == "" || f.Valid == "" || f.Source == "" {
				t.Errorf("a name that is taken, or a word that is missing: %+v", f)
			}
			names[f.Name] = true
			d, err := f.Derive(arguments(f)...)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Steps) == 0 {
				t.Fatal("no steps")
			}
			sum := 0.0
			for _, s := range d.Steps {
				sum += s.Value
				if s.What == "" || s.Law == "" || d.Sum && s.Unit != f.Unit {
					t.Errorf("a step says too little: %+v", s)
				}
			}
			last := d.Steps[len(d.Steps)-1]
			if d.Sum && math.Abs(sum-d.Result) > 1e-9 || !d.Sum && (last.Value != d.Result || last.Unit != f.Unit) {
				t.Errorf("the result is %v %s, the steps %+v", d.Result, f.Unit, d.Steps)
			}
			if _, err := f.Derive(append(arguments(f), 1)...); err == nil {
				t.Error("a value more than there are parameters is taken")
			}
			for i, p := range f.Parameters {
				if p.Kind == theory.Rate || p.Kind == theory.Switch || p.Kind == theory.PolicyName {
					continue
				}
				values := arguments(f)
				values[i] = -1
				_, err := f.Derive(values...)
				if wrong, ok := errors.AsType[*theory.ArgumentError](err); !ok || wrong.Index != i {
					t.Errorf("%s = -1: %v", p.Name, err)
				}
			}
		})
	}
}

// What a round of slow start is, told for a page that takes one byte more than three rounds.
func TestDerivationOfSlowStart(t *testing.T) {
	for _, f := range theory.Formulas() {
		if f.Name != "slow_start" {
			continue
		}
		d, err := f.Derive(101361, 0.08, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range d.Steps {
			if s.Value > 0 {
				got = append(got, s.What)
			}
		}
		want := []string{
			"SYN and SYN-ACK cross the link",
			"round 1: a window of 10 segments, 14480 B by then",
			"round 2: a window of 20 segments, 43440 B by then",
			"round 3: a window of 40 segments, 101360 B by then",
			"round 4: what is left, 1 of a window of 80 segments",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if want := theory.SlowStart(101361, 80*time.Millisecond, 0).Seconds(); d.Result != want {
			t.Errorf("%v, want %v", d.Result, want)
		}
		return
	}
	t.Error("there is no slow_start")
}
