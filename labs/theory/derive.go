package theory

import (
	"fmt"
	"math"
	"time"
)

// Derivation is a formula at work: its steps at one point, and what they come to.
type Derivation struct {
	Steps  []Step
	Sum    bool    // whether the result is the sum of the steps; else it is the last one
	Result float64 // in the formula's unit
}

// Step is one part of a derivation.
type Step struct {
	What  string  // what happens, or is worked out: "SYN and SYN-ACK cross the link"
	Law   string  // how: "R + 8·1514/C"
	Value float64 // in Unit
	Unit  string  // "s", "bit/s", "B", or "" for plain numbers
}

// term is one part of a sum. Formulas that are sums are built from their terms, so that
// what is printed of them is what they are.
type term[T int | time.Duration] struct {
	what, law string
	amount    T
}

type terms[T int | time.Duration] []term[T]

func (t terms[T]) total() T {
	var sum T
	for _, part := range t {
		sum += part.amount
	}
	return sum
}

// derivation is the sum, with its terms as steps.
func (t terms[T]) derivation(unit string) Derivation {
	value := func(amount T) float64 {
		if d, ok := any(amount).(time.Duration); ok {
			return d.Seconds()
		}
		return float64(amount)
	}
	out := Derivation{Sum: true, Result: value(t.total())}
	for _, part := range t {
		out.Steps = append(out.Steps, Step{part.what, part.law, value(part.amount), unit})
	}
	return out
}

// chain is a derivation each of whose steps rests on those before it: the last is the result.
func chain(steps ...Step) Derivation {
	return Derivation{Steps: steps, Result: steps[len(steps)-1].Value}
}

// Kind is what a parameter of a formula is.
type Kind int

// The kinds, and what a value of each is.
const (
	Count      Kind = iota // a whole number
	Bytes                  // a whole number of bytes
	Time                   // seconds
	Rate                   // bit/s; 0: no bottleneck
	Chance                 // a probability, 0 to 1
	Switch                 // 0: off; any other number: on
	PolicyName             // a [Policy]
)

// Parameter is one of a formula's.
type Parameter struct {
	Name     string // as expressions and messages have it: "server_time"
	Kind     Kind
	About    string  // what it is, in some words
	Optional bool    // whether Default may stand for it
	Default  float64 // where Optional
	Least    float64 // of Count and Bytes
	Most     float64 // 0: the most that the kind has
}

// Bounds of what a formula is asked for: beyond them an int64 of nanoseconds
// or a loop over rounds would overflow.
const (
	maxTime  = 100 * 24 * time.Hour
	maxCount = 1 << 50
)

// check says what is wrong with a value.
func (p Parameter) check(v float64) error {
	least, most, unit := p.Least, p.Most, ""
	switch p.Kind {
	case Count, Bytes:
		v = math.Round(v)
		if most == 0 {
			most = maxCount
		}
	case Time:
		unit = " s"
		if most == 0 {
			most = maxTime.Seconds()
		}
	case Chance:
		most = 1
	default:
		return nil
	}
	if math.IsNaN(v) || v < least || v > most {
		return fmt.Errorf("is %v%s, out of range", v, unit)
	}
	return nil
}

// values are those of a formula's parameters, in their order.
type values []float64

func (v values) count(i int) int              { return int(math.Round(v[i])) }
func (v values) duration(i int) time.Duration { return seconds(v[i]) }
func (v values) on(i int) bool                { return v[i] != 0 }

// Formula is one of the package's functions with what a reader needs to use it.
type Formula struct {
	Name       string // as expressions have it behind theory: "slow_start"
	About      string // what it predicts, in one line
	Parameters []Parameter
	Unit       string // of the result: "s", "bit/s", "B" or ""
	Law        string // the formula
	Valid      string // where it is
	Source     string // RFC, kernel file or paper
	derive     func(values) Derivation
}

// Derive works the formula out for values of its parameters, in their order and in SI
// units, and fails where one is out of range or the result is no finite number.
func (f Formula) Derive(arguments ...float64) (Derivation, error) {
	if len(arguments) != len(f.Parameters) {
		return Derivation{}, fmt.Errorf("%s has %d parameters, not %d", f.Name, len(f.Parameters), len(arguments))
	}
	for i, p := range f.Parameters {
		if err := p.check(arguments[i]); err != nil {
			return Derivation{}, &ArgumentError{Index: i, Parameter: p, Reason: err}
		}
	}
	out := f.derive(arguments)
	if math.IsNaN(out.Result) || math.IsInf(out.Result, 0) {
		return Derivation{}, fmt.Errorf("the result is %v", out.Result)
	}
	return out, nil
}

// ArgumentError says which of a formula's arguments cannot be.
type ArgumentError struct {
	Index     int // from 0
	Parameter Parameter
	Reason    error // to follow the parameter's name: "is -1, out of range"
}

// Error names the parameter.
func (e *ArgumentError) Error() string { return e.Parameter.Name + " " + e.Reason.Error() }

// Unwrap is the reason.
func (e *ArgumentError) Unwrap() error { return e.Reason }
