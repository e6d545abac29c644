package expect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Evaluate judges the repetitions of this point. Without any there is nothing
// to judge by, and the verdict is inconclusive. An error means that a
// repetition could not be compared, and says why; it is never a verdict.
func (p *Program) Evaluate(results []*tcplabv1.TrialResult) (*tcplabv1.ExpectationResult, error) {
	r := &tcplabv1.ExpectationResult{
		Name:   p.expectation.GetName(),
		Point:  p.point,
		Unit:   p.unit(),
		Source: p.expectation.GetSource(),
	}
	if len(results) == 0 {
		r.Verdict, r.Detail = tcplabv1.Verdict_VERDICT_INCONCLUSIVE, "no trial was carried out"
		return r, nil
	}
	var holds bool
	var err error
	switch {
	case p.measure != nil:
		holds, err = p.compare(r, results)
	case p.left != nil:
		holds, err = p.relate(r, results)
	default:
		holds, err = p.ask(r, results)
	}
	if err != nil {
		return nil, err
	}
	r.Verdict = tcplabv1.Verdict_VERDICT_FAILED
	if holds {
		r.Verdict = tcplabv1.Verdict_VERDICT_PASSED
	}
	return r, nil
}

// measured is what the expressions see of one repetition.
func measured(result *tcplabv1.TrialResult) map[string]any {
	return map[string]any{
		"kernel":  kernelObject(result.GetKernel()),
		"flow":    flowsObject(result),
		"counter": nodesObject(result),
		"link":    linksObject(result),
		"capture": capturesObject(result),
		"sockets": socketsObject(result),
	}
}

// numbers evaluates x in each repetition.
func (p *Program) numbers(field string, x *expression, results []*tcplabv1.TrialResult) ([]float64, error) {
	values := make([]float64, len(results))
	for i, result := range results {
		v, err := x.number(measured(result))
		if err != nil {
			return nil, p.failed(field, fmt.Errorf("repetition %d: %w", i+1, err))
		}
		values[i] = v
	}
	return values, nil
}

func (p *Program) every() bool { return p.expectation.GetOver() == tcplabv1.Over_OVER_EVERY }

// compare sets `measure` beside `predict`.
func (p *Program) compare(r *tcplabv1.ExpectationResult, results []*tcplabv1.TrialResult) (bool, error) {
	values, err := p.numbers("measure", p.measure, results)
	if err != nil {
		return false, err
	}
	predicted, err := p.prediction(results[0].GetKernel())
	if err != nil {
		return false, err
	}
	far := func(v float64) float64 { return math.Abs(v - predicted.value) }
	r.Measured, r.Predicted, r.Permitted, r.Repetitions = median(values), predicted.value, predicted.permitted, values
	which := ""
	if p.every() {
		r.Measured = slices.MaxFunc(values, func(a, b float64) int { return cmp.Compare(far(a), far(b)) })
		which = fmt.Sprintf(", the farthest of %d", len(values))
	}
	distance := far(r.Measured)
	if distance <= r.Permitted {
		r.Detail = fmt.Sprintf("measured %s%s, predicted %s within %s",
			human(r.Measured, r.Unit), which, human(r.Predicted, r.Unit), human(r.Permitted, r.Unit))
		return true, nil
	}
	r.Detail = fmt.Sprintf("measured %s%s, predicted %s: they differ by %s, permitted is %s",
		human(r.Measured, r.Unit), which, human(r.Predicted, r.Unit), human(distance, r.Unit), human(r.Permitted, r.Unit))
	return false, nil
}

// relate asks a condition `that` compares two numbers.
func (p *Program) relate(r *tcplabv1.ExpectationResult, results []*tcplabv1.TrialResult) (bool, error) {
	left, err := p.numbers("that", p.left, results)
	if err != nil {
		return false, err
	}
	right, err := p.numbers("that", p.right, results)
	if err != nil {
		return false, err
	}
	relation := comparisons()[p.op]
	r.Measured, r.Predicted, r.Repetitions = median(left), median(right), left
	which := ""
	if p.every() {
		// The first repetition in which it does not hold tells most.
		r.Measured, r.Predicted = left[0], right[0]
		which = fmt.Sprintf(" in each of %d repetitions", len(left))
		for i := range left {
			if !relation(left[i], right[i]) {
				r.Measured, r.Predicted = left[i], right[i]
				which = fmt.Sprintf(" in repetition %d of %d", i+1, len(left))
				break
			}
		}
	}
	holds := relation(r.Measured, r.Predicted)
	verb := "does not hold"
	if holds {
		verb = "holds"
	}
	r.Detail = fmt.Sprintf("%s %s %s %s%s", human(r.Measured, r.Unit), symbolOf(p.op), human(r.Predicted, r.Unit), verb, which)
	return holds, nil
}

// ask evaluates any other condition: it must hold in more than half of the
// repetitions, or in every one.
func (p *Program) ask(r *tcplabv1.ExpectationResult, results []*tcplabv1.TrialResult) (bool, error) {
	yes := 0
	for i, result := range results {
		ok, err := p.that.holds(measured(result))
		if err != nil {
			return false, p.failed("that", fmt.Errorf("repetition %d: %w", i+1, err))
		}
		if ok {
			yes++
		}
	}
	r.Detail = fmt.Sprintf("holds in %d of %d repetitions", yes, len(results))
	if p.every() {
		return yes == len(results), nil
	}
	return 2*yes > len(results), nil
}

// Verdict joins the expectations of a run: failed where any failed, passed where all
// passed, and inconclusive where there is none or one could not be judged.
func Verdict(results []*tcplabv1.ExpectationResult) tcplabv1.Verdict {
	passed := 0
	for _, r := range results {
		switch r.GetVerdict() {
		case tcplabv1.Verdict_VERDICT_FAILED:
			return tcplabv1.Verdict_VERDICT_FAILED
		case tcplabv1.Verdict_VERDICT_PASSED:
			passed++
		}
	}
	if passed == 0 || passed < len(results) {
		return tcplabv1.Verdict_VERDICT_INCONCLUSIVE
	}
	return tcplabv1.Verdict_VERDICT_PASSED
}

// median is the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// human writes a number in its unit with four digits, prefixed so that it is
// short: 0.0841234 s is "84.12 ms". Whole numbers are written out.
func human(v float64, unit string) string {
	type scale struct {
		from   float64
		symbol string
	}
	var scales []scale
	switch unit {
	case "s":
		scales = []scale{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}, {1e-9, "ns"}}
	case "bit/s":
		scales = []scale{{1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}}
	}
	for _, s := range scales {
		if math.Abs(v) >= s.from {
			return short(v/s.from, 4) + " " + s.symbol
		}
	}
	digits := 4
	if v == math.Trunc(v) {
		digits = 15 // counts and sizes are exact
	}
	return strings.TrimSuffix(short(v, digits)+" "+unit, " ")
}

// short is v with at most so many digits, without an exponent for everyday
// numbers and without trailing zeros.
func short(v float64, digits int) string {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil || math.Abs(rounded) >= 1e15 {
		return strconv.FormatFloat(v, 'g', digits, 64)
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}
