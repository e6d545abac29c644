package expect_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// printed is what a program printed.
func printed(t testing.TB, text string) *expect.Printed {
	t.Helper()
	p := &expect.Printed{Status: 3, Elapsed: 2 * time.Second}
	p.NoJSON = json.Unmarshal([]byte(text), &p.JSON)
	return p
}

const report = `{"end": {"sum": {"bytes": 1000, "rate": 8e6}}, "list": [{"x": 1}, {"x": 2.5}], "text": "a", "none": null, "huge": 1e308, "a-b": 4}`

func TestMetric(t *testing.T) {
	client, server := printed(t, report), printed(t, `[7, 8]`)
	for source, want := range map[string]float64{
		"json.end.sum.bytes":                      1000,
		"client.json.end.sum.rate / 8":            1e6,
		"json.end.sum.bytes * 8 / client.elapsed": 4000,
		"json.list[1].x + json.list[0].x":         3.5,
		`json["a-b"]`:                             4,
		"size(json.list)":                         2,
		"server.json[1]":                          8,
		"client.status":                           3,
		"max(json.list[0].x, json.list[1].x)":     2.5,
		"json.end.sum.bytes > 10 ? 1 : 0":         1,
		"1":                                       1,
	} {
		m, err := expect.CompileMetric(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := m.Find(client, server); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", source, got, err, want)
		}
	}
	// The only program's is json.
	m, err := expect.CompileMetric("json[0]")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Find(nil, server); err != nil || got != 7 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMetricNotFound(t *testing.T) {
	client := printed(t, report)
	for source, want := range map[string]string{
		"json.missing":        "no such key: missing",
		"json.text":           "a number is needed, this is string",
		"json.none":           "it is null",
		"json.end":            "a number is needed, this is map",
		"json.list[2].x":      "index out of bounds",
		"json.huge * 10":      "is +Inf",
		"json.text + 1":       "no such overload",
		"size(json.text)":     "no such overload",
		"server.json.x":       "no program at its server",
		"json.end.sum.bytes.": "",
	} {
		m, err := expect.CompileMetric(source)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", source, err)
			}
			continue
		}
		if got, err := m.Find(client, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", source, got, err, want)
		}
	}
	none := &expect.Printed{NoJSON: errors.New("it is no JSON")}
	for _, source := range []string{"json.x", "client.json.x"} {
		m, err := expect.CompileMetric(source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Find(none, nil); err == nil || !strings.Contains(err.Error(), "it is no JSON") {
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestMetricErrors(t *testing.T) {
	for source, want := range map[string]string{
		"jsn.x":         "metrics: unknown name jsn (did you mean json?)",
		"client.stdout": "metrics: client has no field stdout (there are elapsed, json, status)",
		"json.x > 1":    "metrics: a number is needed, this is a condition (true or false)",
		"json.":         "metrics: the expression ends too early",
		"[json.x]":      "metrics: lists and maps cannot be made in a metric",
		"flow.get":      "metrics: flow is not known to a metric",
	} {
		_, err := expect.CompileMetric(source)
		var wrong *expect.Error
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v; want %s", source, err, want)
		}
	}
}

// Metrics of an exec flow are fields of it, and of no other flow.
func TestMetricsInExpectations(t *testing.T) {
	lab := testLab()
	flow := lab.GetExperiments()[0].GetFlows()[0]
	flow.Kind = &tcplabv1.Flow_Exec{Exec: &tcplabv1.Exec{Metrics: map[string]string{"goodput_bps": "json.x", "size_bytes": "json.y"}}}
	result := testResult(84 * ms)
	result.Flows[0].Exec = &tcplabv1.ExecResult{
		Metrics: map[string]float64{"goodput_bps": 9e6, "size_bytes": 4e6}, Client: &tcplabv1.ExecEnd{Status: 22},
	}
	p, err := expect.Compile(lab, &tcplabv1.Expectation{Name: "rate", Measure: "flow.get.metrics.goodput_bps", Predict: "rate", WithinRatio: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Evaluate([]*tcplabv1.TrialResult{result})
	if err != nil || r.GetMeasured() != 9e6 || r.GetUnit() != "bit/s" || r.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
		t.Errorf("%v, %v", r, err)
	}
	for expr, want := range map[string]float64{"flow.get.exec.client.status": 22, "flow.get.goodput_bps": 9.5e6} {
		p, err := expect.Compile(lab, &tcplabv1.Expectation{Name: "n", Measure: expr, Predict: "1", WithinRatio: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := p.Evaluate([]*tcplabv1.TrialResult{result}); err != nil || r.GetMeasured() != want {
			t.Errorf("%s: %v, %v", expr, r, err)
		}
	}
	for expr, want := range map[string]string{
		"flow.get.metrics.godput_bps": "measure: flow.get.metrics has no field godput_bps (did you mean goodput_bps?)",
		"flow.get.metric.x":           "measure: flow.get has no field metric (did you mean metrics?)",
		"flow.bulk.metrics.x":         "measure: flow.bulk has no field metrics",
		"flow.get.metrics":            "measure: a number is needed",
	} {
		_, err := expect.Compile(lab, &tcplabv1.Expectation{Name: "n", Measure: expr, Predict: "1", WithinRatio: 0.1})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v; want %s", expr, err, want)
		}
	}
}

// Whatever is written as a metric has its error at a place in it, or yields a finite
// number, or says why not.
func FuzzMetric(f *testing.F) {
	for _, source := range []string{"json.end.sum.bytes", "client.json.list[0].x * 8 / server.elapsed", `json["a-b"]`, "size(json)", "json.x.map(y, y)", "json[0][1]", "1 / 0", "-json"} {
		f.Add(source, report)
	}
	f.Add("json[0]", "[1e999]")
	f.Fuzz(func(t *testing.T, source, text string) {
		m, err := expect.CompileMetric(source)
		if err != nil {
			var wrong *expect.Error
			if !errors.As(err, &wrong) || wrong.Field != "metrics" || wrong.Message == "" || wrong.Offset < 0 || wrong.Offset > len(source) {
				t.Fatalf("%q: %v", source, err)
			}
			return
		}
		if v, err := m.Find(printed(t, text), nil); err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Fatalf("%q is %v", source, v)
		}
	})
}
