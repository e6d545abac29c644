package flow

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/latency"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// onceWith is a time with these latencies.
func onceWith(bytes uint64, bps float64, latencies ...time.Duration) *tcplabv1.FlowResult {
	var set latency.Set
	for _, d := range latencies {
		set.Add(d)
	}
	return &tcplabv1.FlowResult{
		Name: "f", Kind: "transaction", Bytes: bytes, GoodputBps: bps, SamplesCount: 2, Latency: set.Summary(),
		Histograms: []*tcplabv1.LatencyHistogram{set.Histogram("latency", "client")},
		Client:     &tcplabv1.FlowEnd{Node: "client", BytesRead: bytes, TcpInfo: &tcplabv1.TcpInfo{}},
		Outcome:    tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED,
	}
}

func TestRepeatedAddsUp(t *testing.T) {
	const ms = time.Millisecond
	times := []*tcplabv1.FlowResult{
		onceWith(1000, 8000, 1*ms, 2*ms, 3*ms), // 1 s
		onceWith(1000, 2000, 10*ms),            // 4 s
	}
	r := Repeated(times, 2)
	if r.GetBytes() != 2000 || r.GetGoodputBps() != 3200 || r.GetSamplesCount() != 4 || r.GetClient().GetBytesRead() != 2000 || r.GetClient().GetTcpInfo() != nil {
		t.Errorf("%v", r)
	}
	l := r.GetLatency()
	if l.GetCount() != 4 || l.GetMin().AsDuration() != ms || l.GetMax().AsDuration() != 10*ms || l.GetMean().AsDuration() != 4*ms {
		t.Errorf("latency %v", l)
	}
	// Three significant digits.
	if p50 := l.GetP50().AsDuration(); (p50 - 2*ms).Abs() > 2*time.Microsecond {
		t.Errorf("the median is %v", p50)
	}
	if len(r.GetHistograms()) != 1 || r.GetHistograms()[0].GetCount() != 4 || r.GetConnect() != nil || r.GetUncorrected() != nil {
		t.Errorf("histograms %v", r.GetHistograms())
	}
	// It can be added up once more.
	if again := Repeated([]*tcplabv1.FlowResult{r, times[1]}, 2); again.GetLatency().GetCount() != 5 || again.GetLatency().GetMean() == durationpb.New(0) {
		t.Errorf("latency %v", again.GetLatency())
	}
	times[0].Histograms = nil
	if r := Repeated(times, 2); r.GetLatency() != nil {
		t.Errorf("a latency without durations: %v", r.GetLatency())
	}
}

func TestRepeatedIsAsTheFirstThatFailed(t *testing.T) {
	refused := &tcplabv1.FlowResult{Name: "f", Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED, Error: "nobody"}
	late := &tcplabv1.FlowResult{Name: "f", Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE, Error: "too late"}
	r := Repeated([]*tcplabv1.FlowResult{onceWith(1, 1), refused, late}, 5)
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED || r.GetError() != "time 2 of 5: nobody" || len(r.GetRepetitions()) != 3 {
		t.Errorf("%v", r)
	}
}
