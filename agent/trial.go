//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/agent/spool"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// trial is one execution of a deployment's experiments. Its goroutine ends with
// its flows, at cancel, or with its deployment.
type trial struct {
	id         string
	deployment *deployment
	start      time.Time // when its first experiment starts; zero: as soon as it can
	cancel     context.CancelCauseFunc
	ended      chan struct{} // closed when it is carried out and stored, before its last event
	events     events
	files      *artifacts // of its flows
	live       *observe.Live
}

// hasEnded reports whether the trial is carried out.
func (t *trial) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// startTrial starts a trial in a deployment, or finds it started.
//
//nolint:contextcheck // the trial outlives the call that starts it
func (a *agent) startTrial(ctx context.Context, r *tcplabv1.StartTrialRequest) error {
	id := r.GetTrialId()
	var start time.Time
	if r.GetStartTime() != nil {
		start = r.GetStartTime().AsTime()
	}
	if ahead := time.Until(start); !start.IsZero() && ahead > maxAhead {
		return rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "Choose an earlier time, and compare this host's clock.",
			"the start is %v ahead, more than %v", ahead.Round(time.Millisecond), maxAhead)
	}
	d, err := a.deployment(ctx, r.GetDeploymentId())
	if err != nil {
		return err
	}
	if err := permit(d.lab, r.GetExec()); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, ok := a.trials[id]; ok {
		if t.deployment == d {
			return nil
		}
		return rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Give each trial an ID of its own.",
			"trial %s is one of deployment %s", id, t.deployment.id)
	}
	release, err := d.occupy("trial " + id)
	if err != nil {
		return err
	}
	kept, err := a.spool.Begin(id)
	if err != nil {
		release()
		return err
	}
	t := &trial{id: id, deployment: d, start: start, ended: make(chan struct{}), files: &artifacts{trial: kept}, live: observe.NewLive()}
	life, cancel := context.WithCancelCause(d.life)
	t.cancel = cancel
	a.trials[id] = t
	a.running.Go(func() {
		defer cancel(nil)
		last := a.carryOut(life, t, kept)
		t.live.End()
		// Who sees the last event may at once start another trial, or acknowledge this one.
		release()
		close(t.ended)
		t.events.add(ended(last))
	})
	return nil
}

// watchTrial sends what happened and happens in a trial, until its end.
func (a *agent) watchTrial(ctx context.Context, id string, send func(*tcplabv1.WatchTrialResponse) error) error {
	if t := a.trial(id); t != nil {
		return t.events.follow(ctx, send)
	}
	result, err := a.spool.Result(id)
	if err != nil {
		return err
	}
	last := ended(result)
	if start := result.GetResult().GetStartTime(); start != nil {
		last.Time = timestamppb.New(start.AsTime().Add(result.GetResult().GetElapsed().AsDuration()))
	}
	return send(last)
}

// defaultLive is the time between two responses of WatchTrialSamples.
const defaultLive = 100 * time.Millisecond

// watchSamples sends the newest of what a trial that is under way samples, until it ends.
func (a *agent) watchSamples(ctx context.Context, id string, interval time.Duration, send func(*tcplabv1.LiveSamples) error) error {
	t := a.trial(id)
	if t == nil || t.hasEnded() {
		return rpcerr.New(codes.NotFound, rpcerr.NotFound, "What a trial sampled is in its artifacts.", "trial %s is not under way", id)
	}
	if interval == 0 {
		interval = defaultLive
	}
	return t.live.Follow(ctx, interval, send)
}

// cancelTrial stops a trial and waits until it has stopped. One that has ended stays as it
// is.
func (a *agent) cancelTrial(ctx context.Context, id string) error {
	t := a.trial(id)
	if t == nil {
		_, err := a.spool.Result(id)
		return err
	}
	t.cancel(errCancelled)
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// acknowledgeTrial deletes what the controller has stored. A trial that is not
// there was acknowledged before.
func (a *agent) acknowledgeTrial(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, ok := a.trials[id]; ok && !t.hasEnded() {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Wait until it has ended, or cancel it.", "trial %s is under way", id)
	}
	if err := a.spool.Delete(id); err != nil {
		return err
	}
	delete(a.trials, id)
	return nil
}

func (a *agent) trial(id string) *trial {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trials[id]
}

// ended is a trial's last event.
func ended(e *tcplabv1.TrialEnded) *tcplabv1.WatchTrialResponse {
	return &tcplabv1.WatchTrialResponse{Event: &tcplabv1.WatchTrialResponse_TrialEnded{TrialEnded: e}}
}

// carryOut runs the experiments and seals what they measured.
func (a *agent) carryOut(ctx context.Context, t *trial, kept *spool.Trial) *tcplabv1.TrialEnded {
	result, err := a.measure(ctx, t, kept)
	if cause := context.Cause(ctx); cause != nil {
		// What the flows said of their end is a consequence.
		err = cause
	}
	last := &tcplabv1.TrialEnded{Result: result, Failure: failure(err)}
	if errors.Is(err, errAgentEnds) || a.life.Err() != nil {
		// Nobody is left to fetch it.
		err = kept.Discard()
	} else if err = kept.Seal(last); err != nil {
		last.Failure = failure(err)
		last.GetResult().Artifacts = nil
		err = kept.Discard()
	}
	if err != nil {
		a.cfg.Log.Error("discard a trial", "trial", t.id, "error", err)
	}
	return last
}

// failure is an error with its remedy, for a person; empty for none.
func failure(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	var told *rpcerr.Error
	if errors.As(err, &told) && told.Remedy != "" {
		text += ". " + told.Remedy
	}
	return text
}

// measure runs the experiments one after another. It always returns what was
// measured, as far as it went.
func (a *agent) measure(ctx context.Context, t *trial, kept *spool.Trial) (_ *tcplabv1.TrialResult, err error) {
	d := t.deployment
	result := &tcplabv1.TrialResult{Links: d.verified(), Kernel: a.kernel()}
	defer func() { result.Artifacts = append(result.Artifacts, t.files.committed()...) }()
	recorded := &captures{deployment: d, kept: kept}
	defer func() { err = errors.Join(err, recorded.commit(result)) }()
	// What an earlier trial drew of the random generators and counted is not this one's.
	if err := d.rearm(d.allLinks()); err != nil {
		return result, err
	}
	before, err := d.counters()
	if err != nil {
		return result, err
	}
	// What building and verifying left is collected now, not in the middle of
	// the measurement.
	if !a.once {
		runtime.GC()
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	watching, err := a.observeTrial(t, kept)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, watching.finish(result)) }()
	experiments := d.lab.GetExperiments()
	next, err := a.newExperiment(ctx, t, experiments[0], watching)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, next.close()) }()
	if err := recorded.start(experiments[0]); err != nil {
		return result, err
	}
	if err := t.awaitStart(ctx); err != nil {
		return result, err
	}
	playing, err := d.play(ctx, fail)
	if err != nil {
		return result, err
	}
	start := time.Now()
	watching.begin = start
	result.StartTime = timestamppb.New(start)
	for i, e := range experiments {
		if i > 0 {
			following, nextErr := a.newExperiment(ctx, t, e, watching)
			if err = errors.Join(nextErr, next.close()); err != nil {
				break
			}
			next = following
			if err = recorded.start(e); err != nil {
				break
			}
		}
		t.events.add(&tcplabv1.WatchTrialResponse{Event: &tcplabv1.WatchTrialResponse_ExperimentStarted{
			ExperimentStarted: &tcplabv1.ExperimentStarted{Experiment: e.GetName()},
		}})
		flows, experimentErr := next.run(ctx)
		result.Flows = append(result.Flows, flows...)
		if err = errors.Join(experimentErr, recorded.stop(ctx)); err != nil {
			break
		}
	}
	result.Elapsed = durationpb.New(time.Since(start))
	if playErr := playing.Stop(); playErr != nil {
		// What the flows said of their end is a consequence.
		err = playErr
	}
	watchErr := watching.stop(result)
	after, counterErr := d.counters()
	if counterErr == nil {
		for i, n := range d.plan.Nodes {
			if n.Foreign {
				continue // what else the host does would be counted as the lab's
			}
			result.Counters = append(result.Counters, &tcplabv1.NodeCounters{Node: n.Name, Values: observe.Delta(before[i], after[i])})
		}
	}
	return result, errors.Join(err, watchErr, counterErr, d.countLinks(result.GetLinks()))
}

// maxAhead is how far ahead a trial's start may be agreed (StartTrialRequest.start_time).
const maxAhead = time.Minute

// awaitStart waits for the time at which the trial was agreed to start. Whoever is late has missed
// it: others have begun without this host.
func (t *trial) awaitStart(ctx context.Context) error {
	if t.start.IsZero() {
		return nil
	}
	if late := time.Since(t.start); late > 0 {
		return fmt.Errorf("the flows were ready %v after the agreed start; agree on a later one", late.Round(time.Millisecond))
	}
	return waitUntil(ctx, t.start)
}

// counters reads the kernel's of every node.
func (d *deployment) counters() ([]observe.Counters, error) {
	all := make([]observe.Counters, len(d.standing.Nodes))
	for i, node := range d.standing.Nodes {
		if node == nil {
			continue
		}
		var err error
		if all[i], err = observe.ReadCounters(node); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// countLinks enters what each direction did since it was re-armed. A frame
// that an engine itself lost makes the trial void.
func (d *deployment) countLinks(reports []*tcplabv1.LinkReport) error {
	var errs []error
	for i, l := range d.standing.Links {
		counters, err := l.Counters()
		if err != nil {
			errs = append(errs, fmt.Errorf("count the frames of link %s: %w", d.plan.Links[i].Name, err))
			continue
		}
		for way, c := range counters {
			r := d.place(reports, i, way)[0]
			r.Counters = countersMessage(c)
			if c.Failed > 0 {
				errs = append(errs, fmt.Errorf(
					"link %s %s: the %s engine itself lost %d of %d frames, which the lab did not ask for: this host is too busy for the lab; lower its rate, or leave the host idle",
					r.GetName(), strings.ToLower(strings.TrimPrefix(r.GetDirection().String(), "LINK_DIRECTION_")),
					engineName(r.GetEngine()), c.Failed, c.Received))
			}
		}
		errs = append(errs, d.timeLink(i, l, reports))
	}
	return errors.Join(errs...)
}

// timeLink enters how late the link's engine handed frames over, where it knows.
func (d *deployment) timeLink(i int, l link.Link, reports []*tcplabv1.LinkReport) error {
	timed, ok := l.(lateness)
	if !ok {
		return nil
	}
	late, err := timed.Lateness()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lateness of link %s: %w", d.plan.Links[i].Name, err)
	}
	for way := range late {
		d.place(reports, i, way)[0].Lateness = latenessMessage(&late[way])
	}
	return nil
}
