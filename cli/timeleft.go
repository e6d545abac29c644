package cli

import (
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// timeLeft tells how long a run still takes: the plan's estimate of the trials
// that are not done, at the pace of those that are.
type timeLeft struct {
	estimates map[string]time.Duration // of one trial, by its parameter point
	left      time.Duration            // estimated, of the trials not done
	done      time.Duration            // estimated, of those done
	started   time.Time                // the first trial
	ended     time.Time                // the last trial that ended, or started
}

func newTimeLeft(plan *tcplabv1.RunPlan) *timeLeft {
	t := &timeLeft{estimates: map[string]time.Duration{}, left: plan.GetEstimate().AsDuration()}
	for _, p := range plan.GetPoints() {
		t.estimates[pointText(p.GetLab().GetPoint())] = p.GetEstimate().AsDuration()
	}
	return t
}

// trial takes in that a trial began, or that it ended.
func (t *timeLeft) trial(point map[string]*structpb.Value, ended bool, now time.Time) {
	if t.started.IsZero() {
		t.started, t.ended = now, now
	}
	if ended {
		estimate := t.estimates[pointText(point)]
		t.left -= estimate
		t.done += estimate
		t.ended = now
	}
}

// at returns how long trials have been under way, and how long they still take:
// 0 where nothing is known.
func (t *timeLeft) at(now time.Time) (elapsed, left time.Duration) {
	if t.started.IsZero() {
		return 0, 0
	}
	pace := 1.0
	if t.done > 0 {
		pace = float64(t.ended.Sub(t.started)) / float64(t.done)
	}
	left = time.Duration(float64(t.left)*pace) - now.Sub(t.ended)
	return now.Sub(t.started), max(0, left)
}
