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
	files      *store.Incoming // fetched, not yet stored
}

// carryOut takes the trial from nothing to a result and files that are here.
func (t *trial) carryOut(ctx context.Context) *failure {
	if f := t.build(ctx); f != nil {
		return f
	}
	ctx, stop := t.deployment.whileItStands(ctx)
	defer stop()
	for _, phase := range []func(context.Context) *failure{t.verify, t.follow, t.fetch} {
		if f := phase(ctx); f != nil {
			return f
		}
	}
	return nil
}

// build has the agent build and shape the lab.
func (t *trial) build(ctx context.Context) *failure {
	response, err := t.drive.Agent.Apply(ctx, &tcplabv1.ApplyRequest{
		Term: t.drive.Term, DeploymentId: t.message.GetId(), Lab: t.message.GetLab(), Lease: durationpb.New(t.drive.Lease),
	})
	if err != nil {
		f := agentFailure(ctx, "build the lab", err)
		if stopped(ctx) != nil {
			// It may stand all the same.
			t.deployment = stand(t.drive.Config, t.message.GetId(), nil)
		}
		return f
	}
	t.deployment = stand(t.drive.Config, t.message.GetId(), response.GetNodes())
	t.message.Result = &tcplabv1.TrialResult{Links: response.GetLinks()}
	t.drive.run.Engine = engineOf(response.GetLinks())
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
	response, err := t.drive.Agent.Verify(ctx, &tcplabv1.VerifyRequest{Term: t.drive.Term, DeploymentId: t.message.GetId()})
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

// follow starts the experiments and follows them to their end.
func (t *trial) follow(ctx context.Context) *failure {
	t.started = true
	_, err := t.drive.Agent.StartTrial(ctx, &tcplabv1.StartTrialRequest{
		Term: t.drive.Term, DeploymentId: t.message.GetId(), TrialId: t.message.GetId(), Exec: t.drive.run.GetOptions().GetExec(),
	})
	if err != nil {
		return agentFailure(ctx, "start the trial", err)
	}
	events, err := t.drive.Agent.WatchTrial(ctx, &tcplabv1.WatchTrialRequest{TrialId: t.message.GetId()}, grpc.MaxCallRecvMsgSize(maxResult))
	if err != nil {
		return agentFailure(ctx, "follow the trial", err)
	}
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return agentFailure(ctx, "follow the trial", err)
		}
		switch e := event.GetEvent().(type) {
		case *tcplabv1.WatchTrialResponse_ExperimentStarted:
			if name := e.ExperimentStarted.GetExperiment(); name != "" {
				if f := t.progress(ctx, tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING, name); f != nil {
					return f
				}
			}
		case *tcplabv1.WatchTrialResponse_TrialEnded:
			t.ended = true
			if e.TrialEnded.GetResult() != nil {
				t.message.Result = e.TrialEnded.GetResult()
			}
			t.message.Failure = e.TrialEnded.GetFailure()
			return nil
		}
	}
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
	before := t.drive.run.GetTrialsDone()
	t.drive.run.TrialsDone = t.message.GetNumber()
	err := t.drive.Store.Commit(final, t.drive.run.GetId(), store.Change{
		Run: t.drive.run, Trial: t.message, Files: t.files,
		Events: []*tcplabv1.RunEvent{t.event(phase, detail)},
	})
	if err != nil {
		// The files are gone; what is stored of the trial now has none.
		t.files = nil
		if t.message.Result != nil {
			t.message.Result.Artifacts = nil
		}
		t.drive.run.TrialsDone = before
		return storeFailure(ctx, "store the trial", err)
	}
	t.stored = true
	return nil
}

// remove takes the deployment away. A trial that runs is stopped before, and
// the agent may forget its result afterwards: it is stored here, or nobody
// wants it.
func (t *trial) remove() *failure {
	if t.deployment == nil {
		return nil
	}
	final, cancel := context.WithTimeout(t.drive.hasty, patience)
	defer cancel()
	t.deployment.release()
	id := t.message.GetId()
	if t.started && !t.ended {
		_, err := t.drive.Agent.CancelTrial(final, &tcplabv1.CancelTrialRequest{Term: t.drive.Term, TrialId: id})
		t.mention("cancel", err)
	}
	if t.stored && t.ended {
		t.acknowledge(final)
	}
	if _, err := t.drive.Agent.Remove(final, &tcplabv1.RemoveRequest{Term: t.drive.Term, DeploymentId: id}); err != nil {
		return agentFailure(context.WithoutCancel(final), "remove the lab", err)
	}
	if t.started && !t.ended {
		t.acknowledge(final)
	}
	return nil
}

func (t *trial) acknowledge(ctx context.Context) {
	_, err := t.drive.Agent.AcknowledgeTrial(ctx, &tcplabv1.AcknowledgeTrialRequest{Term: t.drive.Term, TrialId: t.message.GetId()})
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
