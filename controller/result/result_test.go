package result_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/controller/result"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func labOf(expectations ...*tcplabv1.Expectation) *tcplabv1.Lab {
	return &tcplabv1.Lab{
		Name: "x", Point: map[string]*structpb.Value{"rtt": structpb.NewStringValue("20ms")},
		Nodes: []*tcplabv1.Node{{Name: "client"}, {Name: "server"}},
		Experiments: []*tcplabv1.Experiment{{Flows: []*tcplabv1.Flow{{
			Name: "get", Client: "client", Server: "server",
			Kind: &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: 1}}},
		}}}},
		Expectations: expectations,
	}
}

func measured(connect time.Duration) *tcplabv1.TrialResult {
	d := durationpb.New(connect)
	return &tcplabv1.TrialResult{
		Kernel: &tcplabv1.Kernel{Release: "6.18.44", Hz: 250},
		Flows:  []*tcplabv1.FlowResult{{Name: "get", Connect: &tcplabv1.LatencySummary{Count: 1, Min: d, Mean: d, P50: d, P90: d, P99: d, Max: d}}},
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*tcplabv1.Expectation)
		results []*tcplabv1.TrialResult
		want    tcplabv1.Verdict
		detail  string
	}{
		{
			"the median holds", nil,
			[]*tcplabv1.TrialResult{measured(20 * time.Millisecond), measured(20500 * time.Microsecond), measured(time.Second)},
			tcplabv1.Verdict_VERDICT_PASSED, "",
		},
		{
			"every one does not", func(e *tcplabv1.Expectation) { e.Over = tcplabv1.Over_OVER_EVERY },
			[]*tcplabv1.TrialResult{measured(20 * time.Millisecond), measured(time.Second)},
			tcplabv1.Verdict_VERDICT_FAILED, "",
		},
		{
			"not asked here", func(e *tcplabv1.Expectation) { e.Where = "rtt > 1" },
			[]*tcplabv1.TrialResult{measured(0)},
			tcplabv1.Verdict_VERDICT_UNSPECIFIED, "",
		},
		{"nothing to compare", nil, []*tcplabv1.TrialResult{{Kernel: &tcplabv1.Kernel{Hz: 250}}}, tcplabv1.Verdict_VERDICT_INCONCLUSIVE, "get"},
		{
			"the rival would hold too", func(e *tcplabv1.Expectation) { e.Rival = "rtt * 1.01" },
			[]*tcplabv1.TrialResult{measured(20 * time.Millisecond)},
			tcplabv1.Verdict_VERDICT_INCONCLUSIVE, "rival",
		},
		{
			"the rival is far", func(e *tcplabv1.Expectation) { e.Rival = "rtt * 2" },
			[]*tcplabv1.TrialResult{measured(20 * time.Millisecond)},
			tcplabv1.Verdict_VERDICT_PASSED, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &tcplabv1.Expectation{Name: "one round trip", Measure: "flow.get.connect.p50", Predict: "rtt", WithinRatio: 0.05, Source: "RFC 9293"}
			if tt.change != nil {
				tt.change(e)
			}
			lab := labOf(e)
			got, err := result.Judge(lab, tt.results)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == tcplabv1.Verdict_VERDICT_UNSPECIFIED {
				if len(got) != 0 || result.Verdict(got) != tcplabv1.Verdict_VERDICT_INCONCLUSIVE {
					t.Errorf("judged %v, want nothing", got)
				}
				return
			}
			if len(got) != 1 || got[0].GetVerdict() != tt.want || !strings.Contains(got[0].GetDetail(), tt.detail) {
				t.Fatalf("judged %v, want %v and %q", got, tt.want, tt.detail)
			}
			if result.Verdict(got) != tt.want {
				t.Errorf("the run's verdict is %v, want %v", result.Verdict(got), tt.want)
			}
			if got[0].GetName() != e.GetName() || got[0].GetSource() != e.GetSource() || got[0].GetPoint()["rtt"].GetStringValue() != "20ms" {
				t.Errorf("the result lacks where it comes from: %v", got[0])
			}
		})
	}
	if _, err := result.Judge(labOf(&tcplabv1.Expectation{Name: "x", That: "flow.got.bytes == 1"}), nil); err == nil {
		t.Error("an expectation of an unknown flow was judged")
	}
}

func TestReportLeavesZerosOut(t *testing.T) {
	counters := []*tcplabv1.NodeCounters{
		{Node: "client", Values: map[string]int64{"TcpActiveOpens": 2, "TcpEstabResets": 0, "TcpCurrEstab": -1}},
		{Node: "server", Values: map[string]int64{"TcpActiveOpens": 0}},
	}
	trial := &tcplabv1.Trial{Repetition: 2, Result: &tcplabv1.TrialResult{Counters: counters}}
	report := result.Report(&tcplabv1.Run{Id: "x-2b2b"}, nil)
	result.Add(report, trial)
	want := []*tcplabv1.NodeCounters{
		{Node: "client", Values: map[string]int64{"TcpActiveOpens": 2, "TcpCurrEstab": -1}},
		{Node: "server"},
	}
	if diff := cmp.Diff(want, report.GetTrials()[0].GetCounters(), protocmp.Transform()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if len(counters[0].GetValues()) != 3 {
		t.Error("the trial's own counters were changed")
	}
	if report.GetElapsed() != nil || report.GetKernel() != "" {
		t.Errorf("the report of a run that has not ended: %v", report)
	}
}
