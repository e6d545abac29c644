package expect_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Whatever is written as an expression either has its error at a place in it,
// or yields a finite number, or says why not.
func FuzzCompile(f *testing.F) {
	for _, expr := range []string{
		"flow.get.connect.p50 + rtt", "flow.^x", `counter["node-1"].TcpExtDelayedACKs`, "at(flow.get.server.cwnd_series, 2 * rtt)",
		"theory.write_write_read(rtt, theory.nagle, kernel.hz)", "kernel.at_least(6, 5) ? 1 : 0", "1 +\n é", "a[0][\"b\"].c(", "size([1])",
		"-9223372036854775808", "0x7fffffffffffffff", "1e308 * 10", "theory.slow_start(1e18, 1e18, 1e-300)", "b'x' + r'y'", "has(flow.get)", "x.map(y, y)",
		"flow.get.server.cwnd_series[-1].snd_cwnd", "flow.get.server.cwnd_series[1.5]", "theory.window(2000)", `flow["get"]["connect"]["p50"]`, "`rtt`", "{}", "T{a: 1}", "?x", "null", "1u",
	} {
		f.Add(expr)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		if expr == "" {
			return
		}
		p, err := expect.Compile(testLab(), &tcplabv1.Expectation{Name: "fuzz", Measure: expr, Predict: "1"})
		if err != nil {
			var wrong *expect.Error
			if !errors.As(err, &wrong) {
				t.Fatalf("%q: %v is no *Error", expr, err)
			}
			if wrong.Field != "measure" || wrong.Message == "" || wrong.Offset < 0 || wrong.Offset > len(expr) {
				t.Fatalf("%q: %+v", expr, wrong)
			}
			return
		}
		r, err := p.Evaluate([]*tcplabv1.TrialResult{testResult(84 * time.Millisecond)})
		if err == nil && (math.IsNaN(r.GetMeasured()) || math.IsInf(r.GetMeasured(), 0)) {
			t.Fatalf("%q is %v", expr, r.GetMeasured())
		}
	})
}
