package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestTooLateForTheExpectations(t *testing.T) {
	link := func(p99, most time.Duration) *tcplabv1.LinkReport {
		return &tcplabv1.LinkReport{Name: "a-b", Direction: tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD, Lateness: &tcplabv1.LinkLateness{
			Summary: &tcplabv1.LatencySummary{Count: 1000, P99: durationpb.New(p99), Max: durationpb.New(most)},
		}}
	}
	within := func(permitted float64, unit string) *tcplabv1.ExpectationResult {
		return &tcplabv1.ExpectationResult{Permitted: permitted, Unit: unit}
	}
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		expectations []*tcplabv1.ExpectationResult
		links        []*tcplabv1.LinkReport
		want         string
	}{
		"in time":                   {[]*tcplabv1.ExpectationResult{within(2e-3, "s")}, []*tcplabv1.LinkReport{link(400*time.Microsecond, 3*ms)}, ""},
		"late":                      {[]*tcplabv1.ExpectationResult{within(40e-3, "s"), within(2e-3, "s"), within(1e-9, "")}, []*tcplabv1.LinkReport{link(ms, 3*ms)}, "on a-b ← one frame in a hundred came 1 ms late or more, the latest 3 ms; these expectations bear 500 µs"},
		"the worst of two":          {[]*tcplabv1.ExpectationResult{within(2e-3, "s")}, []*tcplabv1.LinkReport{link(ms, 3*ms), link(2*ms, 9*ms)}, "the latest 9 ms; these expectations bear 500 µs (and 1 more direction)"},
		"expectations bear it":      {[]*tcplabv1.ExpectationResult{within(40e-3, "s")}, []*tcplabv1.LinkReport{link(2*ms, 3*ms)}, ""},
		"no expectation of a time":  {nil, []*tcplabv1.LinkReport{link(600*time.Microsecond, 3*ms)}, "bear 500 µs"},
		"an engine without a clock": {nil, []*tcplabv1.LinkReport{{Name: "a-b"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := tooLate(&tcplabv1.RunReport{Expectations: test.expectations, Trials: []*tcplabv1.TrialReport{{Links: test.links}}})
			if (got == "") != (test.want == "") || !strings.HasSuffix(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
