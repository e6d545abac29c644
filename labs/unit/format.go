package unit

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// maxFraction is the most decimals that a unit may need to be preferred to
// the SI unit with an exponent.
const maxFraction = 20

// Format writes the quantity in the unit that makes the text shortest, whole
// numbers first among equals: 0.02 s is "20ms", 65536 B is "64KiB", 1e7 bit/s
// is "10Mbit". [Parse] reads exactly the same value back. A quantity that is
// NaN or infinite has no such text and is written as strconv does.
func Format(q Quantity) string {
	if math.IsNaN(q.Value) || math.IsInf(q.Value, 0) {
		return strconv.FormatFloat(q.Value, 'g', -1, 64) + q.Dimension.Symbol()
	}
	// The shortest decimal that is this float64 and no other: exact arithmetic
	// on it keeps that property in every unit.
	decimal := strconv.FormatFloat(q.Value, 'e', -1, 64)
	value, ok := new(big.Rat).SetString(decimal)
	if !ok {
		return decimal + q.Dimension.Symbol() // cannot be: FormatFloat writes decimals
	}
	best, bestFraction := "", 0
	for _, sym := range symbols() {
		if sym.dimension != q.Dimension || sym.alias {
			continue
		}
		in := new(big.Rat).Mul(value, big.NewRat(sym.den, sym.num))
		fraction, exact := in.FloatPrec()
		if !exact || fraction > maxFraction {
			continue
		}
		text := in.FloatString(fraction) + sym.text
		if best == "" || len(text) < len(best) || len(text) == len(best) && fraction < bestFraction {
			best, bestFraction = text, fraction
		}
	}
	if scientific := scientific(decimal, q.Dimension); best == "" || len(scientific) < len(best)-3 {
		return scientific
	}
	return best
}

// scientific writes a decimal with an exponent, as FormatFloat does with 'e',
// in the unit of the dimension that is always possible.
func scientific(decimal string, d Dimension) string {
	mantissa, exponent, _ := strings.Cut(decimal, "e")
	n, err := strconv.Atoi(exponent)
	if err != nil {
		n = 0 // cannot be: FormatFloat wrote it
	}
	symbol := ""
	switch d {
	case Duration:
		symbol = "s"
	case Rate:
		symbol = "bit"
	case Size:
		symbol = "B"
	case Ratio:
		symbol = "%"
		n += 2
	}
	return mantissa + "e" + strconv.Itoa(n) + symbol
}
