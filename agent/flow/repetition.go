package flow

import (
	"fmt"

	"github.com/tcplab/tcplab/agent/flow/latency"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Repeated is the result of a flow of any kind that was carried out several times, of which planned
// were asked for. It refuses to guess: latencies that were not kept so that they add up are left out.
func Repeated(times []*tcplabv1.FlowResult, planned int) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name: times[0].GetName(), Kind: times[0].GetKind(), Repetitions: times,
		Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED,
	}
	var seconds float64
	for i, one := range times {
		r.Client, r.Server = addEnd(r.Client, one.GetClient()), addEnd(r.Server, one.GetServer())
		r.Bytes += one.GetBytes()
		r.SamplesCount += one.GetSamplesCount()
		r.SamplesMissed += one.GetSamplesMissed()
		if one.GetGoodputBps() > 0 {
			seconds += float64(one.GetBytes()) * 8 / one.GetGoodputBps()
		}
		if r.Error == "" && one.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
			r.Outcome, r.Error = one.GetOutcome(), fmt.Sprintf("time %d of %d: %s", i+1, planned, one.GetError())
		}
	}
	if seconds > 0 {
		r.GoodputBps = float64(r.GetBytes()) * 8 / seconds
	}
	r.Connect = joinLatency(r, times, "connect", (*tcplabv1.FlowResult).GetConnect)
	r.Latency = joinLatency(r, times, "latency", (*tcplabv1.FlowResult).GetLatency)
	r.Uncorrected = joinLatency(r, times, "uncorrected", (*tcplabv1.FlowResult).GetUncorrected)
	return r
}

// addEnd adds to the sum of an end's bytes.
func addEnd(sum, one *tcplabv1.FlowEnd) *tcplabv1.FlowEnd {
	if one == nil {
		return sum
	}
	if sum == nil {
		sum = &tcplabv1.FlowEnd{Node: one.GetNode(), Congestion: one.GetCongestion(), Socket: one.GetSocket()}
	}
	sum.BytesWritten += one.GetBytesWritten()
	sum.BytesRead += one.GetBytesRead()
	return sum
}

// joinLatency is what summarises the durations of all times, and adds their histogram to the result; nil
// where none has any, or those of one were not kept.
func joinLatency(r *tcplabv1.FlowResult, times []*tcplabv1.FlowResult, name string, of func(*tcplabv1.FlowResult) *tcplabv1.LatencySummary) *tcplabv1.LatencySummary {
	var all latency.Set
	there, by := false, ""
	for _, one := range times {
		var histogram *tcplabv1.LatencyHistogram
		for _, h := range one.GetHistograms() {
			if h.GetName() == name {
				histogram, by = h, h.GetEnd()
			}
		}
		there = there || of(one) != nil
		if err := all.AddSummarised(of(one), histogram); err != nil {
			return nil
		}
	}
	if !there {
		return nil
	}
	r.Histograms = append(r.Histograms, all.Histogram(name, by))
	return all.Summary()
}
