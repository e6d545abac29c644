package run

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/result"
	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// drive is one run under way.
type drive struct {
	Config
	*job
	agent    tcplabv1.AgentServiceClient // of the job's host
	hasty    context.Context             // for what is left to do when the run was stopped
	sampling *sampling

	mu sync.Mutex // guards job.run
}

// all carries out every trial and then judges them. A failure leaves the run
// without a verdict.
func (d *drive) all(ctx context.Context) (tcplabv1.Verdict, *failure) {
	if f := d.trials(ctx); f != nil {
		return tcplabv1.Verdict_VERDICT_INCONCLUSIVE, f
	}
	verdict, f := d.judge(ctx)
	if f != nil {
		return tcplabv1.Verdict_VERDICT_INCONCLUSIVE, f
	}
	return verdict, nil
}

// trials carries out every trial. They are carried out one after another, since they would disturb one another; in
// virtual time, where they do not, side by side.
func (d *drive) trials(ctx context.Context) *failure {
	if d.plan.Virtual() {
		return d.sideBySide(ctx)
	}
	under, f := d.underWay(ctx)
	if f != nil {
		return f
	}
	for number := d.run.GetTrialsDone() + 1; number <= d.plan.Trials(); number++ {
		if f := stopped(ctx); f != nil { // before it began, or between two trials
			return f
		}
		if under != nil && under.GetNumber() == number {
			f = d.resume(ctx, under)
		} else {
			f = d.trial(ctx, number)
		}
		if f != nil {
			return f
		}
	}
	return nil
}

// trial takes one trial through its phases:
//
//	building → verifying → running → storing → done
//	    any phase → failed → held, where asked for
//
// and removes its deployment, whatever happened.
func (d *drive) trial(ctx context.Context, number uint32) *failure {
	lab, repetition := d.plan.Trial(number)
	t := &trial{
		drive: d,
		message: &tcplabv1.Trial{
			Id: fmt.Sprintf("%s.%d", d.run.GetId(), number), RunId: d.run.GetId(), Number: number, Repetition: repetition,
			State: tcplabv1.RunState_RUN_STATE_RUNNING, Lab: lab,
		},
	}
	if f := d.begin(ctx, t); f != nil {
		return f
	}
	return d.end(ctx, t, t.carryOut(ctx))
}

// underWay is the trial that an earlier controller left unended, or nil.
func (d *drive) underWay(ctx context.Context) (under *tcplabv1.Trial, f *failure) {
	if d.run.GetStartTime() == nil {
		return nil, nil
	}
	err := d.Store.Trials(ctx, d.run.GetId(), d.run.GetTrialsDone(), func(trial *tcplabv1.Trial) (bool, error) {
		if !store.Ended(trial.GetState()) {
			under = trial
		}
		return under == nil, nil
	})
	if err != nil {
		return nil, storeFailure(ctx, "find the trial under way", err)
	}
	return under, nil
}

// resume goes on with a trial that an earlier controller began: where its agent has carried it out or does, with
// that; else from its beginning.
func (d *drive) resume(ctx context.Context, under *tcplabv1.Trial) *failure {
	t := &trial{drive: d, message: under}
	known, f := t.takeUp(ctx)
	if f == nil && !known {
		f = t.carryOut(ctx)
	}
	return d.end(ctx, t, f)
}

// end stores a trial's end and takes away what stands for it.
func (d *drive) end(ctx context.Context, t *trial, f *failure) *failure {
	if f == errLeft {
		t.leave()
		return f
	}
	if f == nil {
		f = t.keep(ctx, nil)
	}
	if f != nil {
		// The first failure counts; that this one could not be stored either
		// shows in the run's end.
		if late := t.keep(ctx, f); late != nil {
			d.Log.Warn("a failed trial could not be stored", "trial", t.message.GetId(), "error", late)
		}
		d.hold(t, f)
	}
	switch late := t.remove(); {
	case late == nil:
	case f == nil:
		return late
	default:
		d.Log.Warn("the lab of a failed trial could not be removed", "trial", t.message.GetId(), "error", late)
	}
	return f
}

// begin stores that the trial starts; the first one starts the run.
func (d *drive) begin(ctx context.Context, t *trial) *failure {
	c := store.Change{Trial: t.message, Events: []*tcplabv1.RunEvent{t.event(tcplabv1.TrialPhase_TRIAL_PHASE_BUILDING, "")}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run.GetStartTime() == nil {
		d.run.State, d.run.StartTime = tcplabv1.RunState_RUN_STATE_RUNNING, timestamppb.Now()
		c.Run = d.run
		c.Events = append([]*tcplabv1.RunEvent{store.RunEvent(d.run)}, c.Events...)
	}
	if err := d.Store.Commit(ctx, d.run.GetId(), c); err != nil {
		return storeFailure(ctx, "start the trial", err)
	}
	return nil
}

// hold keeps a failed trial's nodes, where the options ask for it and they
// stand, until the run is cancelled, its controller stops or the agent loses
// them.
func (d *drive) hold(t *trial, f *failure) {
	switch {
	case !d.run.GetOptions().GetKeep(), t.deployment == nil || len(t.deployment.nodes) == 0, d.ctx.Err() != nil,
		f.reason == tcplabv1.FailureReason_FAILURE_REASON_STORAGE:
		return
	}
	held := &tcplabv1.NodesHeld{}
	for _, node := range t.deployment.nodes {
		held.Nodes = append(held.Nodes, &tcplabv1.HeldNode{Name: node.GetName(), NetnsPath: node.GetNetnsPath(), Addresses: node.GetAddresses()})
	}
	err := d.Store.Commit(d.ctx, d.run.GetId(), store.Change{Events: []*tcplabv1.RunEvent{{Event: &tcplabv1.RunEvent_Held{Held: held}}}})
	if err != nil {
		d.Log.Warn("the nodes of a failed trial are not held, since nobody could be told", "trial", t.message.GetId(), "error", err)
		return
	}
	select {
	case <-d.ctx.Done():
	case <-t.deployment.ctx.Done():
	}
}

// judge evaluates the expectations at each parameter point over its
// repetitions, and stores each result.
func (d *drive) judge(ctx context.Context) (tcplabv1.Verdict, *failure) {
	var all []*tcplabv1.ExpectationResult
	for i := range d.plan.Points() {
		lab, numbers := d.plan.point(i)
		var measured []*tcplabv1.TrialResult
		for _, number := range numbers {
			t, err := d.Store.Trial(ctx, d.run.GetId(), number)
			if err != nil {
				return 0, storeFailure(ctx, "read a trial's result", err)
			}
			measured = append(measured, t.GetResult())
		}
		results, err := result.Judge(lab, measured)
		if err != nil {
			return 0, failed(tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "evaluate the expectations: %v", err)
		}
		if len(results) == 0 {
			continue
		}
		var events []*tcplabv1.RunEvent
		for _, r := range results {
			events = append(events, &tcplabv1.RunEvent{Event: &tcplabv1.RunEvent_Expectation{Expectation: proto.CloneOf(r)}})
		}
		if err := d.Store.Commit(ctx, d.run.GetId(), store.Change{Events: events}); err != nil {
			return 0, storeFailure(ctx, "store the expectations", err)
		}
		all = append(all, results...)
	}
	return result.Verdict(all), nil
}
