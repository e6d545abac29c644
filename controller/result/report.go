package result

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Report begins the report of a run: everything but its trials, which Add
// takes one by one. A run that has not ended has no elapsed time.
func Report(run *tcplabv1.Run, expectations []*tcplabv1.ExpectationResult) *tcplabv1.RunReport {
	report := &tcplabv1.RunReport{
		Id: run.GetId(), Lab: run.GetLab(), Title: run.GetTitle(),
		State: run.GetState(), Verdict: run.GetVerdict(), Engine: run.GetEngine(),
		Expectations: expectations, Failure: run.GetFailure(),
		Seed: run.GetOptions().GetSeed(), CreateTime: run.GetCreateTime(),
	}
	if run.GetStartTime() != nil && run.GetEndTime() != nil {
		report.Elapsed = durationpb.New(run.GetEndTime().AsTime().Sub(run.GetStartTime().AsTime()))
	}
	return report
}

// Add appends the next trial to a report.
func Add(report *tcplabv1.RunReport, trial *tcplabv1.Trial) {
	if kernel := trial.GetResult().GetKernel(); report.GetKernel() == "" && kernel.GetRelease() != "" {
		report.Kernel = fmt.Sprintf("%s, HZ %d", kernel.GetRelease(), kernel.GetHz())
	}
	addTime(report, trial.GetResult())
	report.Trials = append(report.Trials, &tcplabv1.TrialReport{
		Point: trial.GetLab().GetPoint(), Repetition: trial.GetRepetition(),
		State: trial.GetState(), Failure: trial.GetFailure(),
		Links: trial.GetResult().GetLinks(), Flows: trial.GetResult().GetFlows(),
		Captures: trial.GetResult().GetCaptures(),
		Counters: counted(trial.GetResult().GetCounters()),
	})
}

// addTime adds up how virtual time went.
func addTime(report *tcplabv1.RunReport, r *tcplabv1.TrialResult) {
	report.Time = max(report.GetTime(), r.GetTime())
	one := r.GetVirtualTime()
	if one == nil {
		return
	}
	if report.GetVirtualTime() == nil {
		report.VirtualTime = &tcplabv1.VirtualTime{ConfigHash: one.GetConfigHash(), Source: one.GetSource()}
	}
	sum := report.GetVirtualTime()
	passed := sum.GetPassed().AsDuration() + one.GetPassed().AsDuration()
	wall := sum.GetWall().AsDuration() + one.GetWall().AsDuration()
	sum.Passed, sum.Wall = durationpb.New(passed), durationpb.New(wall)
	if wall > 0 {
		sum.Speedup = passed.Seconds() / wall.Seconds()
	}
}

// counted is the counters without those that did not count.
func counted(nodes []*tcplabv1.NodeCounters) []*tcplabv1.NodeCounters {
	var out []*tcplabv1.NodeCounters
	for _, node := range nodes {
		node = proto.CloneOf(node)
		for name, value := range node.GetValues() {
			if value == 0 {
				delete(node.Values, name)
			}
		}
		out = append(out, node)
	}
	return out
}
