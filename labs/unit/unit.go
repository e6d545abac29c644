// Package unit reads and writes quantities the way people write them in a lab
// file: "20ms", "10Mbit", "64KiB", "1%", "40".
//
// A quantity is one number and one unit, without a space between them. Units
// are case sensitive, since 1Mbit and 1mbit differ by nine orders of
// magnitude. The package refuses what could be read in two ways: KB (kB is
// 1000, KiB is 1024 bytes) and bps (bytes per second to some tools, bits to
// others).
package unit

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Dimension is what a quantity measures.
type Dimension int

// The dimensions, with the SI unit that [Quantity.Value] has in each.
const (
	Scalar   Dimension = iota // a plain number
	Duration                  // seconds
	Rate                      // bit/s
	Size                      // bytes
	Ratio                     // a share; 1% is 0.01
)

// String names the dimension as an error message does: "a duration".
func (d Dimension) String() string {
	switch d {
	case Scalar:
		return "a plain number"
	case Duration:
		return "a duration"
	case Rate:
		return "a rate"
	case Size:
		return "a size"
	case Ratio:
		return "a ratio"
	}
	return "Dimension(" + strconv.Itoa(int(d)) + ")"
}

// Symbol is the SI unit of the dimension's values: "s", "bit/s", "B", or ""
// for plain numbers and ratios.
func (d Dimension) Symbol() string {
	switch d {
	case Duration:
		return "s"
	case Rate:
		return "bit/s"
	case Size:
		return "B"
	}
	return ""
}

// Example is a quantity of the dimension, for messages: "20ms".
func (d Dimension) Example() string {
	switch d {
	case Duration:
		return "20ms"
	case Rate:
		return "10Mbit"
	case Size:
		return "64KiB"
	case Ratio:
		return "1%"
	}
	return "40"
}

// Quantity is a number with its dimension, in SI units: seconds, bit/s, bytes,
// or plain.
type Quantity struct {
	Value     float64
	Dimension Dimension
}

// Error says why a text is not a quantity.
type Error struct {
	Text   string // what was read
	Reason string // what is wrong with it, to follow the text: "has a space"
	Hint   string // what may have been meant; may be empty
}

// Error joins the text, the reason and the hint.
func (e *Error) Error() string {
	s := fmt.Sprintf("%q %s", e.Text, e.Reason)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// symbol is a unit: 1 of it is num/den SI units.
type symbol struct {
	text      string
	dimension Dimension
	num, den  int64
	alias     bool // read, never written
}

// symbols are all units, each dimension's SI unit being the first of it.
func symbols() []symbol {
	return []symbol{
		{text: "", dimension: Scalar, num: 1, den: 1},
		{text: "%", dimension: Ratio, num: 1, den: 100},
		{text: "s", dimension: Duration, num: 1, den: 1},
		{text: "ns", dimension: Duration, num: 1, den: 1e9},
		{text: "us", dimension: Duration, num: 1, den: 1e6},
		{text: "µs", dimension: Duration, num: 1, den: 1e6, alias: true}, // U+00B5, micro sign
		{text: "μs", dimension: Duration, num: 1, den: 1e6, alias: true}, // U+03BC, Greek mu
		{text: "ms", dimension: Duration, num: 1, den: 1e3},
		{text: "m", dimension: Duration, num: 60, den: 1},
		{text: "min", dimension: Duration, num: 60, den: 1, alias: true},
		{text: "h", dimension: Duration, num: 3600, den: 1},
		{text: "bit", dimension: Rate, num: 1, den: 1},
		{text: "kbit", dimension: Rate, num: 1e3, den: 1},
		{text: "Mbit", dimension: Rate, num: 1e6, den: 1},
		{text: "Gbit", dimension: Rate, num: 1e9, den: 1},
		{text: "Tbit", dimension: Rate, num: 1e12, den: 1},
		{text: "B", dimension: Size, num: 1, den: 1},
		{text: "kB", dimension: Size, num: 1e3, den: 1},
		{text: "MB", dimension: Size, num: 1e6, den: 1},
		{text: "GB", dimension: Size, num: 1e9, den: 1},
		{text: "TB", dimension: Size, num: 1e12, den: 1},
		{text: "KiB", dimension: Size, num: 1 << 10, den: 1},
		{text: "MiB", dimension: Size, num: 1 << 20, den: 1},
		{text: "GiB", dimension: Size, num: 1 << 30, den: 1},
		{text: "TiB", dimension: Size, num: 1 << 40, den: 1},
	}
}

// maxText bounds what [Parse] looks at: the longest exact decimal of use, and
// then some. It keeps the rational arithmetic small.
const maxText = 100

// Parse reads a quantity: a decimal number, perhaps with sign and exponent,
// and one of the units
//
//	ns us µs ms s m (or min) h
//	bit kbit Mbit Gbit Tbit, each also with "/s"
//	B kB MB GB TB KiB MiB GiB TiB
//	%
//	none, for a plain number
//
// The value is the float64 nearest to what is written. Errors are [*Error]:
// not a number, NaN or infinite, out of range, or an unknown unit with the one
// that was probably meant. Negative quantities are read; who asks must
// refuse them.
func Parse(s string) (Quantity, error) {
	if len(s) > maxText {
		return Quantity{}, &Error{Text: s[:20] + "…", Reason: "is too long for a quantity"}
	}
	number, suffix := split(s)
	if number == "" {
		return Quantity{}, notANumber(s)
	}
	sym, ok := lookup(suffix)
	if !ok {
		return Quantity{}, unknownUnit(s, number, suffix)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return Quantity{}, notANumber(s)
	}
	v, _ := r.Mul(r, big.NewRat(sym.num, sym.den)).Float64()
	if math.IsInf(v, 0) {
		return Quantity{}, &Error{Text: s, Reason: "is too large"}
	}
	return Quantity{Value: v, Dimension: sym.dimension}, nil
}

// split cuts s after its leading decimal number; number is empty where there
// is none, or where its exponent is absurd.
func split(s string) (number, suffix string) {
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	digits := func() int {
		from := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		return i - from
	}
	n := digits()
	if i < len(s) && s[i] == '.' {
		i++
		n += digits()
	}
	if n == 0 {
		return "", s
	}
	if end := i; i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		switch n := digits(); {
		case n == 0:
			i = end
		case n > 3: // beyond any float64
			return "", s
		}
	}
	return s[:i], s[i:]
}

func lookup(suffix string) (symbol, bool) {
	if rate, ok := strings.CutSuffix(suffix, "bit/s"); ok {
		suffix = rate + "bit"
	}
	for _, sym := range symbols() {
		if sym.text == suffix {
			return sym, true
		}
	}
	return symbol{}, false
}

func notANumber(s string) error {
	e := &Error{Text: s, Reason: "is not a number with a unit", Hint: "such as 20ms, 10Mbit, 64KiB, 1% or 40"}
	switch strings.ToLower(strings.TrimLeft(s, "+-.")) {
	case "nan", "inf", "infinity":
		e.Reason, e.Hint = "is not a finite number", ""
	}
	return e
}

func unknownUnit(s, number, suffix string) error {
	e := &Error{Text: s, Reason: fmt.Sprintf("has the unknown unit %q", suffix)}
	trimmed := strings.TrimSpace(suffix)
	if _, ok := lookup(trimmed); ok {
		e.Reason, e.Hint = "has a space", "write "+number+trimmed
		return e
	}
	folded := strings.ToLower(trimmed)
	switch folded {
	case "kb", "k", "kib":
		e.Hint = "kB is 1000 bytes, KiB is 1024 bytes, kbit is 1000 bit/s"
		return e
	case "sec", "secs", "second", "seconds":
		e.Hint = "write " + number + "s"
		return e
	case "msec", "millis", "usec":
		e.Hint = "write " + number + folded[:1] + "s"
		return e
	}
	// Mbps, mb/s, Mbits: bits or bytes, the author must say.
	for _, tail := range []string{"bps", "b/s", "bits", "bits/s"} {
		if prefix, ok := strings.CutSuffix(folded, tail); ok && len(prefix) <= 1 {
			if strings.HasSuffix(trimmed, "B/s") || strings.HasSuffix(trimmed, "Bps") {
				e.Hint = "rates are in bit/s; 1MB/s is 8Mbit"
				return e
			}
			if sym, ok := fold(prefix + "bit"); ok {
				e.Hint = "for bit/s write " + number + sym
				return e
			}
		}
	}
	if sym, ok := fold(folded); ok {
		e.Hint = "did you mean " + number + sym + "?"
		return e
	}
	if strings.ContainsAny(trimmed, "0123456789") {
		e.Reason, e.Hint = "is not one number with one unit", "1m30s is 90s"
		return e
	}
	e.Hint = "units are ns us ms s m h, bit kbit Mbit Gbit, B kB KiB MB MiB GB GiB, %"
	return e
}

// fold finds the unit that equals s but for the case of its letters.
func fold(s string) (string, bool) {
	for _, sym := range symbols() {
		if sym.text != "" && strings.EqualFold(sym.text, s) {
			return sym.text, true
		}
	}
	return "", false
}
