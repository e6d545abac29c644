// Package result joins what trials measured into what a run found: the
// expectations judged over the repetitions of each parameter point, and the
// report.
//
// It refuses to call an expectation held that was not compared, or that could
// not have failed: such a one is inconclusive, and says why.
package result

import (
	"fmt"

	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Judge evaluates the expectations of a lab at its parameter point over the
// results of its repetitions; those that the point is not asked are left out.
// An expectation that cannot be compared (its flow failed, the kernel lacks a
// counter), or whose permitted difference would not tell the prediction from
// its rival on this kernel, is inconclusive. Errors: an expectation that does
// not compile, which labs.Validate would have refused.
func Judge(lab *tcplabv1.Lab, results []*tcplabv1.TrialResult) ([]*tcplabv1.ExpectationResult, error) {
	var judged []*tcplabv1.ExpectationResult
	for _, expectation := range lab.GetExpectations() {
		program, err := expect.Compile(lab, expectation)
		if err != nil {
			return nil, fmt.Errorf("expectation %q: %w", expectation.GetName(), err)
		}
		asked, err := program.Applies()
		switch {
		case err != nil:
			judged = append(judged, inconclusive(lab, expectation, err))
		case asked:
			judged = append(judged, evaluate(lab, expectation, program, results))
		}
	}
	return judged, nil
}

func evaluate(lab *tcplabv1.Lab, expectation *tcplabv1.Expectation, program *expect.Program, results []*tcplabv1.TrialResult) *tcplabv1.ExpectationResult {
	r, err := program.Evaluate(results)
	if err != nil {
		return inconclusive(lab, expectation, err)
	}
	if r.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
		return r
	}
	for _, result := range results {
		if err := program.CheckContrast(result.GetKernel()); err != nil {
			r.Verdict, r.Detail = tcplabv1.Verdict_VERDICT_INCONCLUSIVE, err.Error()
			break
		}
	}
	return r
}

func inconclusive(lab *tcplabv1.Lab, expectation *tcplabv1.Expectation, why error) *tcplabv1.ExpectationResult {
	return &tcplabv1.ExpectationResult{
		Name: expectation.GetName(), Verdict: tcplabv1.Verdict_VERDICT_INCONCLUSIVE, Point: lab.GetPoint(),
		Detail: why.Error(), Source: expectation.GetSource(),
	}
}

// Verdict joins the results of a run: failed where one failed, passed where
// all passed and there is one, else inconclusive.
func Verdict(results []*tcplabv1.ExpectationResult) tcplabv1.Verdict { return expect.Verdict(results) }
