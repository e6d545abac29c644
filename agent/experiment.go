//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultTimeout is when an experiment that names no timeout is stopped
// (Experiment.timeout).
const defaultTimeout = time.Minute

// experiment is one experiment's flows on their way: first all are made ready, then
// run starts them together. Whoever made it closes it.
type experiment struct {
	spec    *tcplabv1.Experiment
	prepare func(context.Context, *tcplabv1.Flow) (traffic, error)
	tell    func(*tcplabv1.FlowResult) // of a flow that has ended
	flows   []*member                  // in the order of the lab
	byName  map[string]*member

	stop   context.CancelCauseFunc // ends all flows; set by run
	first  sync.Once               // guards failed
	failed error                   // the first failure of a flow that may not fail
}

// member is a flow of an experiment.
type member struct {
	spec    *tcplabv1.Flow
	traffic traffic              // ready
	ready   error                // why it is not, of a flow that may fail
	ended   chan struct{}        // closed once result is there
	result  *tcplabv1.FlowResult // how it ended
	fatal   bool                 // it did not complete, and may not fail; there with result
}

// newExperiment makes an experiment's flows ready: all listen before any connects.
func (a *agent) newExperiment(ctx context.Context, t *trial, e *tcplabv1.Experiment, watching *observation) (_ *experiment, err error) {
	x := &experiment{spec: e, byName: map[string]*member{}}
	x.prepare = func(ctx context.Context, spec *tcplabv1.Flow) (traffic, error) {
		return a.prepare(ctx, t, spec, e, watching)
	}
	x.tell = func(r *tcplabv1.FlowResult) {
		t.events.add(&tcplabv1.WatchTrialResponse{Event: &tcplabv1.WatchTrialResponse_FlowEnded{
			FlowEnded: &tcplabv1.FlowEnded{Flow: r.GetName(), Error: r.GetError(), Outcome: r.GetOutcome()},
		}})
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	for _, spec := range e.GetFlows() {
		m := &member{spec: spec, ended: make(chan struct{})}
		x.flows = append(x.flows, m)
		x.byName[spec.GetName()] = m
	}
	ctx, cancel := context.WithTimeoutCause(ctx, x.timeout(), &flow.OutOfTime{What: "making the flows ready", Limit: x.timeout()})
	defer cancel()
	for _, m := range x.flows {
		if m.traffic, err = x.prepare(ctx, m.spec); err == nil {
			continue
		}
		if !m.spec.GetMayFail() || ctx.Err() != nil {
			return nil, err
		}
		m.ready = err
	}
	return x, nil
}

func (x *experiment) timeout() time.Duration {
	if timeout := x.spec.GetTimeout().AsDuration(); timeout > 0 {
		return timeout
	}
	return defaultTimeout
}

// close ends what is left of the flows.
func (x *experiment) close() error {
	var errs []error
	for _, m := range x.flows {
		if m.traffic != nil {
			errs = append(errs, m.traffic.Close())
		}
	}
	return errors.Join(errs...)
}

// run runs the flows, each when the lab says, and returns when all have ended, soon after the
// experiment's timeout at the latest. Where one fails that may not, the others are stopped,
// and its failure is returned. Results are in the order of the lab.
func (x *experiment) run(ctx context.Context) ([]*tcplabv1.FlowResult, error) {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, x.timeout(), &flow.OutOfTime{What: "the experiment", Limit: x.timeout()})
	defer cancelTimeout()
	ctx, x.stop = context.WithCancelCause(ctx)
	defer x.stop(nil)
	begin := time.Now()
	var running sync.WaitGroup
	for _, m := range x.flows {
		running.Go(func() {
			x.ended(m, x.carryOut(ctx, m, begin))
		})
	}
	running.Wait()
	results := make([]*tcplabv1.FlowResult, len(x.flows))
	for i, m := range x.flows {
		results[i] = m.result
	}
	return results, x.failed
}

// carryOut waits for a flow's time and runs it.
func (x *experiment) carryOut(ctx context.Context, m *member, begin time.Time) *tcplabv1.FlowResult {
	if err := x.await(ctx, m, begin); err != nil {
		return unbegun(m.spec, err)
	}
	if m.ready != nil {
		return unbegun(m.spec, m.ready)
	}
	planned := max(1, int(m.spec.GetRepeat()))
	if planned == 1 {
		return m.traffic.Run(ctx)
	}
	var times []*tcplabv1.FlowResult
	for len(times) < planned {
		r := x.once(ctx, m, len(times) > 0)
		times = append(times, r)
		if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED && (!m.spec.GetMayFail() || ctx.Err() != nil) {
			break
		}
	}
	return flow.Repeated(times, planned)
}

// once carries a flow out that is repeated; again: it was carried out before.
func (x *experiment) once(ctx context.Context, m *member, again bool) *tcplabv1.FlowResult {
	if again {
		if err := waitUntil(ctx, time.Now().Add(m.spec.GetRepeatGap().AsDuration())); err != nil {
			return unbegun(m.spec, &flow.Stopped{Doing: "waiting for its next time", Cause: err})
		}
		next, err := x.prepare(ctx, m.spec)
		if err = errors.Join(err, m.traffic.Close()); err != nil {
			if next != nil {
				err = errors.Join(err, next.Close())
			}
			return unbegun(m.spec, err)
		}
		m.traffic = next
	}
	return m.traffic.Run(ctx)
}

// ended tells of a flow's end, to those first that come after it, and stops all others where it failed
// and may not. A flow that is skipped fails nothing: the one that it waited for did.
func (x *experiment) ended(m *member, r *tcplabv1.FlowResult) {
	m.result = r
	m.fatal = r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED && !m.spec.GetMayFail()
	close(m.ended)
	if m.fatal && r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_SKIPPED {
		x.first.Do(func() { // the others' failures are its consequence
			x.failed = fmt.Errorf("flow %s: %s", r.GetName(), r.GetError())
			x.stop(fmt.Errorf("flow %s failed", r.GetName()))
		})
	}
	x.tell(r)
}

// await waits until a flow may begin: until those that it comes after have ended, and
// then, or since the experiment's beginning, its start offset.
func (x *experiment) await(ctx context.Context, m *member, begin time.Time) error {
	for _, name := range m.spec.GetAfter() {
		before := x.byName[name]
		select {
		case <-before.ended:
		case <-ctx.Done():
			select {
			case <-before.ended: // whose failure ended ctx
			default:
				return &flow.Stopped{Doing: "waiting for the end of flow " + name, Cause: context.Cause(ctx)}
			}
		}
		if before.fatal {
			return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_SKIPPED, fmt.Errorf("it comes after flow %s, which did not complete", name))
		}
		begin = time.Now()
	}
	if err := waitUntil(ctx, begin.Add(m.spec.GetStart().AsDuration())); err != nil {
		return &flow.Stopped{Doing: "waiting for the flow's start", Cause: err}
	}
	return nil
}

// unbegun is the result of a flow that has done nothing.
func unbegun(spec *tcplabv1.Flow, err error) *tcplabv1.FlowResult {
	return &tcplabv1.FlowResult{Name: spec.GetName(), Kind: flow.Kind(spec), Error: err.Error(), Outcome: flow.OutcomeOf(err)}
}

// waitUntil waits for a time, or returns why ctx ended before.
func waitUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
