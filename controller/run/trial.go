package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxResult bounds the message with a trial's result: a lab of 1000 flows
// whose windows changed 512 times at both ends has 20 MB.
const maxResult = 64 << 20

// trial is one trial under way, and what stands and came of it so far.
type trial struct {
	drive      *drive
	message    *tcplabv1.Trial
	deployment *deployment     // nil before Apply and where it failed
	started    bool            // the agent was asked to start it
	ended      bool            // the agent says it has ended
	stored     bool            // its result is on disk here
	breaks     int             // of its events, in succession
	files      *store.Incoming // fetched, not yet stored
}

// carryOut takes the trial from nothing to a result and files that are here.
func (t *trial) carryOut(ctx context.Context) *failure {
	if f := t.build(ctx); f != nil {
		return f
	}
	return t.measure(ctx, t.verify, t.start)
}

// measure takes the trial through what comes before its end, follows it there, and fetches what it left.
func (t *trial) measure(ctx context.Context, phases ...func(context.Context) *failure) *failure {
	standing, stop := t.deployment.whileItStands(ctx)
	defer stop()
	for _, phase := range append(phases, t.follow) {
		if f := phase(standing); f != nil {
			// Where the lab is lost it may have served its end, and what came of it be in the spool.
			lost := t.drive.Lasting && t.deployment.ctx.Err() != nil && stopped(ctx) == nil
			if !t.started || !lost || !t.collect(ctx) {
				return f
			}
			break
		}
	}
	return t.fetch(ctx)
}

// collect looks whether the agent has a trial's end, and reports it.
func (t *trial) collect(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return t.follow(ctx) == nil
}

// takeUp goes on with a trial that an earlier controller began, and reports whether the agent knows it. If not,
// nothing of it stands any more.
func (t *trial) takeUp(ctx context.Context) (known bool, f *failure) {
	id := t.message.GetId()
	if t.message.Result == nil {
		t.message.Result = &tcplabv1.TrialResult{}
	}
	_, err := t.drive.agent.RenewLease(ctx, &tcplabv1.RenewLeaseRequest{Term: t.drive.Term, DeploymentId: id})
	stands := err == nil
	if err != nil && rpcerr.From(err).Code != codes.NotFound {
		return true, agentFailure(ctx, "take up the trial", err)
	}
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := t.drive.agent.WatchTrial(watch, &tcplabv1.WatchTrialRequest{TrialId: id}, grpc.MaxCallRecvMsgSize(maxResult))
	if err == nil {
		_, err = events.Recv()
	}
	switch {
	case err == nil:
	case rpcerr.From(err).Code == codes.NotFound: // it had not begun
		if _, err := t.drive.agent.Remove(ctx, &tcplabv1.RemoveRequest{Term: t.drive.Term, DeploymentId: id}); err != nil {
			return true, agentFailure(ctx, "take up the trial", err)
		}
		return false, nil
	default:
		return true, agentFailure(ctx, "take up the trial", err)
	}
	t.started = true
	if stands {
		t.deployment = stand(t.drive, id, nil)
		f = t.measure(ctx)
	} else if f = t.follow(ctx); f == nil {
		f = t.fetch(ctx)
	}
	if t.drive.run.GetEngine() == tcplabv1.Engine_ENGINE_UNSPECIFIED && t.ended {
		t.drive.run.Engine = engineOf(t.message.GetResult().GetLinks())
	}
	return true, f
}

// leave leaves all as it is on the agent, until its lease ends, to the next controller.
func (t *trial) leave() {
	if t.deployment != nil {
		t.deployment.release()
	}
	if t.files != nil {
		if err := t.files.Discard(); err != nil {
			t.drive.Log.Warn("unfinished files are left until the next start", "trial", t.message.GetId(), "error", err)
		}
	}
}

// build has the agent build and shape the lab.
func (t *trial) build(ctx context.Context) *failure {
	response, err := t.drive.agent.Apply(ctx, &tcplabv1.ApplyRequest{
		Term: t.drive.Term, DeploymentId: t.message.GetId(), Lab: t.message.GetLab(), Lease: durationpb.New(t.drive.Lease),
		Time: t.drive.plan.time, Exec: t.drive.run.GetOptions().GetExec(),
	})
	if err != nil {
		f := agentFailure(ctx, "build the lab", err)
		if stopped(ctx) != nil {
			// It may stand all the same.
			t.deployment = stand(t.drive, t.message.GetId(), nil)
		}
		return f
	}
	t.deployment = stand(t.drive, t.message.GetId(), response.GetNodes())
	t.message.Result = &tcplabv1.TrialResult{Links: response.GetLinks()}
	t.drive.engine(engineOf(response.GetLinks()))
	return t.progress(ctx, tcplabv1.TrialPhase_TRIAL_PHASE_VERIFYING, strings.Join(response.GetEngineReasons(), "; "))
}

// engineOf is the engine that shapes: the first that is not a plain veth.
func engineOf(links []*tcplabv1.LinkReport) tcplabv1.Engine {
	for _, link := range links {
		if link.GetEngine() != tcplabv1.Engine_ENGINE_VETH {
			return link.GetEngine()
		}
	}
	return tcplabv1.Engine_ENGINE_VETH
}

// verify has every link measured. One that is not as asked ends the run; what
// could not be proven does not.
func (t *trial) verify(ctx context.Context) *failure {
	response, err := t.drive.agent.Verify(ctx, &tcplabv1.VerifyRequest{Term: t.drive.Term, DeploymentId: t.message.GetId()})
	if err != nil {
		return agentFailure(ctx, "verify the links", err)
	}
	t.message.Result.Links = response.GetLinks()
	if wrong := WrongLinks(response.GetLinks()); wrong != "" {
		return failed(tcplabv1.FailureReason_FAILURE_REASON_LINK, "%s", wrong)
	}
	return t.progress(ctx, tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING, "")
}

// WrongLinks says which links are not what they should be, with the figures; empty: none.
func WrongLinks(links []*tcplabv1.LinkReport) string {
	var wrong []string
	for _, link := range links {
		if link.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
			wrong = append(wrong, describe(link))
		}
	}
	return strings.Join(wrong, "; ")
}

// describe says what is wrong with a link, with the figures.
func describe(link *tcplabv1.LinkReport) string {
	way := strings.ToLower(strings.TrimPrefix(link.GetDirection().String(), "LINK_DIRECTION_"))
	spec, measured := link.GetSpec(), link.GetMeasured()
	if link.GetPath() != "" {
		way += " path " + link.GetPath()
	}
	text := fmt.Sprintf("link %s %s: asked for delay %v, rate %g bit/s, loss %g; measured %v, %g bit/s, %g",
		link.GetName(), way, spec.GetDelay().AsDuration(), spec.GetRateBps(), spec.GetLoss(),
		measured.GetDelay().AsDuration(), measured.GetRateBps(), measured.GetLoss())
	if link.GetDetail() != "" {
		text += ": " + link.GetDetail()
	}
	return text
}

// start starts the experiments.
func (t *trial) start(ctx context.Context) *failure {
	t.started = true
	_, err := t.drive.agent.StartTrial(ctx, &tcplabv1.StartTrialRequest{
		Term: t.drive.Term, DeploymentId: t.message.GetId(), TrialId: t.message.GetId(), Exec: t.drive.run.GetOptions().GetExec(),
	})
	if err != nil {
		return agentFailure(ctx, "start the trial", err)
	}
	return nil
}

// follow follows the experiments to their end. Where the connection to the agent breaks it goes on in the next.
func (t *trial) follow(ctx context.Context) *failure {
	t.drive.sampling.begin(t.message, t.drive.agent)
	seen := 0
	for {
		before := seen
		f, broken := t.followOnce(ctx, &seen)
		if f != nil || broken == nil {
			return f
		}
		// The call waits for the agent to come back; one that comes back and breaks off without a word does not go on for ever.
		if seen == before && rpcerr.From(broken).Reason == rpcerr.NotConnected {
			return agentFailure(ctx, "follow the trial", broken)
		}
		if seen == before {
			t.breaks++
		} else {
			t.breaks = 0
		}
		if t.breaks > maxBreaks {
			return agentFailure(ctx, "follow the trial", broken)
		}
		t.drive.Log.Warn("the connection broke while a trial was followed", "trial", t.message.GetId(), "error", broken)
	}
}

// maxBreaks is how often in succession a trial's events may break off before any comes.
const maxBreaks = 10

// followOnce reads events behind the first seen of them, in one stream. The error is that of a connection that broke.
func (t *trial) followOnce(ctx context.Context, seen *int) (f *failure, broken error) {
	events, err := t.drive.agent.WatchTrial(ctx, &tcplabv1.WatchTrialRequest{TrialId: t.message.GetId()}, grpc.MaxCallRecvMsgSize(maxResult))
	if err != nil {
		return t.brokeOff(ctx, err)
	}
	for n := 0; ; n++ {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return t.brokeOff(ctx, err)
		}
		if n < *seen && event.GetTrialEnded() == nil {
			continue // what is in the spool has the end alone
		}
		*seen = n + 1
		switch e := event.GetEvent().(type) {
		case *tcplabv1.WatchTrialResponse_ExperimentStarted:
			if name := e.ExperimentStarted.GetExperiment(); name != "" {
				if f := t.progress(ctx, tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING, name); f != nil {
					return f, nil
				}
			}
		case *tcplabv1.WatchTrialResponse_TrialEnded:
			t.ended = true
			if e.TrialEnded.GetResult() != nil {
				t.message.Result = e.TrialEnded.GetResult()
			}
			t.message.Failure = e.TrialEnded.GetFailure()
			return nil, nil
		}
	}
}

// brokeOff tells a connection that broke, which in a fleet is made again, from all other errors.
func (t *trial) brokeOff(ctx context.Context, err error) (f *failure, broken error) {
	if t.drive.Lasting && rpcerr.From(err).Code == codes.Unavailable && ctx.Err() == nil {
		return nil, err
	}
	return agentFailure(ctx, "follow the trial", err), nil
}

// fetch brings the trial's files here. A trial that failed is fetched as well,
// and then is the run's failure.
func (t *trial) fetch(ctx context.Context) *failure {
	if f := t.progress(ctx, tcplabv1.TrialPhase_TRIAL_PHASE_STORING, ""); f != nil {
		return f
	}
	if artifacts := t.message.GetResult().GetArtifacts(); len(artifacts) > 0 {
		files, err := t.drive.Store.Receive(t.drive.run.GetId(), t.message.GetNumber())
		if err != nil {
			return storeFailure(ctx, "fetch the trial's files", err)
		}
		for _, artifact := range artifacts {
			if f := t.fetchFile(ctx, files, artifact); f != nil {
				if err := files.Discard(); err != nil {
					t.drive.Log.Warn("unfinished files are left until the next start", "trial", t.message.GetId(), "error", err)
				}
				// What is not here is not announced.
				t.message.Result.Artifacts = nil
				return f
			}
		}
		t.files = files
	}
	if t.message.GetFailure() != "" {
		return failed(tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "%s", t.message.GetFailure())
	}
	return nil
}

// keep puts the trial's end on disk, with result and files, in one
// transaction; then the agent may forget it.
func (t *trial) keep(ctx context.Context, f *failure) *failure {
	final, cancel := context.WithTimeout(t.drive.hasty, patience)
	defer cancel()
	phase, detail := tcplabv1.TrialPhase_TRIAL_PHASE_DONE, ""
	t.message.State = tcplabv1.RunState_RUN_STATE_SUCCEEDED
	if f != nil {
		phase, detail = tcplabv1.TrialPhase_TRIAL_PHASE_FAILED, f.words
		t.message.State, t.message.Failure = f.state(), f.words
	}
	err := t.drive.ended(final, store.Change{
		Trial: t.message, Files: t.files, Events: []*tcplabv1.RunEvent{t.event(phase, detail)},
	})
	if err != nil {
		// The files are gone; what is stored of the trial now has none.
		t.files = nil
		if t.message.Result != nil {
			t.message.Result.Artifacts = nil
		}
		return storeFailure(ctx, "store the trial", err)
	}
	t.stored = true
	return nil
}

// remove takes the deployment away. A trial that runs is stopped before, and
// the agent may forget its result afterwards: it is stored here, or nobody
// wants it.
func (t *trial) remove() *failure {
	if t.deployment == nil && !t.started {
		return nil
	}
	final, cancel := context.WithTimeout(t.drive.hasty, patience)
	defer cancel()
	if t.deployment != nil {
		t.deployment.release()
	}
	id := t.message.GetId()
	if t.started && !t.ended {
		_, err := t.drive.agent.CancelTrial(final, &tcplabv1.CancelTrialRequest{Term: t.drive.Term, TrialId: id})
		t.mention("cancel", err)
	}
	if t.stored && t.ended {
		t.acknowledge(final)
	}
	if _, err := t.drive.agent.Remove(final, &tcplabv1.RemoveRequest{Term: t.drive.Term, DeploymentId: id}); err != nil {
		return agentFailure(context.WithoutCancel(final), "remove the lab", err)
	}
	if t.started && !t.ended {
		t.acknowledge(final)
	}
	return nil
}

func (t *trial) acknowledge(ctx context.Context) {
	_, err := t.drive.agent.AcknowledgeTrial(ctx, &tcplabv1.AcknowledgeTrialRequest{Term: t.drive.Term, TrialId: t.message.GetId()})
	t.mention("acknowledge", err)
}

// mention logs what an agent would not do at a trial's end and what the run
// does not fail for.
func (t *trial) mention(what string, err error) {
	if err != nil && rpcerr.From(err).Code != codes.NotFound {
		t.drive.Log.Warn("the agent could not "+what+" a trial", "trial", t.message.GetId(), "error", err)
	}
}

// progress stores that the trial reached a phase.
func (t *trial) progress(ctx context.Context, phase tcplabv1.TrialPhase, detail string) *failure {
	err := t.drive.Store.Commit(ctx, t.drive.run.GetId(), store.Change{Events: []*tcplabv1.RunEvent{t.event(phase, detail)}})
	if err != nil {
		return storeFailure(ctx, "store the trial's progress", err)
	}
	return nil
}

func (t *trial) event(phase tcplabv1.TrialPhase, detail string) *tcplabv1.RunEvent {
	return &tcplabv1.RunEvent{Event: &tcplabv1.RunEvent_Trial{Trial: &tcplabv1.TrialProgress{
		Number: t.message.GetNumber(), Repetition: t.message.GetRepetition(), Point: t.message.GetLab().GetPoint(),
		Phase: phase, Detail: detail,
	}}}
}
