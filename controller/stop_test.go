package controller_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestCancelInEachPhase(t *testing.T) {
	for _, method := range []string{"Apply", "Verify", "StartTrial", "WatchTrial", "ReadArtifact"} {
		for name, stop := range map[string]func(*testing.T, *harness, string){
			"by request": func(t *testing.T, h *harness, id string) {
				if _, err := h.CancelRun(t.Context(), &tcplabv1.CancelRunRequest{RunId: id}); err != nil {
					t.Fatal(err)
				}
				h.end(t, id)
			},
			"with the controller": func(t *testing.T, h *harness, _ string) {
				if err := h.stop(); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				agent := newScriptedAgent()
				agent.files = map[string][]byte{"f": []byte("0123456789")}
				agent.block = method
				h := start(t, agent, 0)
				id := h.create(t, &tcplabv1.RunOptions{Keep: true}).GetId()
				waits := h.create(t, nil).GetId()
				<-agent.reached
				began := time.Now()
				stop(t, h, id)
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v to stop", took)
				}
				if name == "by request" {
					if _, err := h.CancelRun(t.Context(), &tcplabv1.CancelRunRequest{RunId: waits}); err != nil {
						t.Error(err)
					}
					h.end(t, waits)
					if err := h.stop(); err != nil {
						t.Fatal(err)
					}
				}
				h.wantNothingLeft(t)
				s, err := store.Open(t.Context(), h.dir, store.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for _, ref := range []string{id, waits} {
					run, err := s.Run(t.Context(), ref)
					if err != nil || run.GetState() != cancelled || run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_CANCELLED {
						t.Errorf("run %s: %v, error %v; want it cancelled", ref, run, err)
					}
				}
			})
		}
	}
}

// TestWatcherSeesTheEnd stops the controller under a watcher, as Ctrl-C does.
func TestWatcherSeesTheEnd(t *testing.T) {
	agent := newScriptedAgent()
	agent.block = "WatchTrial"
	h := start(t, agent, 0)
	id := h.create(t, nil).GetId()
	stream, err := h.WatchRun(t.Context(), &tcplabv1.WatchRunRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	<-agent.reached
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	var last *tcplabv1.RunEvent
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = response.GetEvent()
	}
	if run := last.GetRun(); run.GetState() != cancelled || run.GetFailure() != "its controller was stopped" {
		t.Errorf("the last event is %v", last)
	}
}

// TestAgentThatHangs stops a controller whose agent answers nothing any more.
func TestAgentThatHangs(t *testing.T) {
	agent := newScriptedAgent()
	agent.block = "Remove"
	agent.failure = "so that nothing follows"
	h := start(t, agent, 0)
	id := h.create(t, nil).GetId()
	<-agent.reached
	began := time.Now()
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to stop", took)
	}
	s, err := store.OpenReader(t.Context(), h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if run, err := s.Run(t.Context(), id); err != nil || !store.Ended(run.GetState()) {
		t.Errorf("the run is stored as %v, error %v", run, err)
	}
}

func TestWaitingRunIsCancelledAtOnce(t *testing.T) {
	agent := newScriptedAgent()
	agent.block, agent.release = "Verify", make(chan struct{})
	h := start(t, agent, 0)
	first, second, third := h.create(t, nil), h.create(t, nil), h.create(t, nil)
	<-agent.reached
	response, err := h.CancelRun(t.Context(), &tcplabv1.CancelRunRequest{RunId: second.GetId()})
	if err != nil || response.GetRun().GetState() != cancelled {
		t.Errorf("cancelled while it waits: %v, error %v", response.GetRun(), err)
	}
	if got, err := h.GetRun(t.Context(), &tcplabv1.GetRunRequest{RunId: third.GetId()}); err != nil || got.GetRun().GetState() != pending {
		t.Errorf("the third run: %v, error %v", got, err)
	}
	close(agent.release)
	for _, run := range []*tcplabv1.Run{first, third} {
		if end := h.end(t, run.GetId()); end.GetState() != succeeded {
			t.Errorf("run %s ended as %v", run.GetId(), end)
		}
	}
	if end := h.end(t, second.GetId()); end.GetTrialsDone() != 0 || end.GetStartTime() != nil {
		t.Errorf("the cancelled run started: %v", end)
	}
	response, err = h.CancelRun(t.Context(), &tcplabv1.CancelRunRequest{RunId: first.GetId()})
	if err != nil || response.GetRun().GetState() != succeeded {
		t.Errorf("cancelled after its end: %v, error %v", response.GetRun(), err)
	}
}

func TestTimeout(t *testing.T) {
	agent := newScriptedAgent()
	agent.block = "WatchTrial"
	h := start(t, agent, 0)
	run := h.end(t, h.create(t, &tcplabv1.RunOptions{Timeout: durationpb.New(200 * time.Millisecond)}).GetId())
	if run.GetState() != failed || run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_TIMEOUT || !strings.Contains(run.GetFailure(), "200ms") {
		t.Errorf("the run ended as %v", run)
	}
	if agent.count("StartTrial") > 0 && agent.count("CancelTrial") != 1 { // on a very slow machine it never started
		t.Error("the trial was not cancelled")
	}
	h.wantNothingLeft(t)
}

func TestKeepHoldsTheNodes(t *testing.T) {
	agent := newScriptedAgent()
	agent.failure = "flow get: connection refused"
	agent.renewed = make(chan struct{})
	h := start(t, agent, 30*time.Millisecond)
	id := h.create(t, &tcplabv1.RunOptions{Keep: true}).GetId()
	events := h.watch(t, id, func(e *tcplabv1.RunEvent) bool { return e.GetHeld() != nil })
	held := events[len(events)-1].GetHeld()
	want := &tcplabv1.NodesHeld{Nodes: []*tcplabv1.HeldNode{
		{Name: "client", NetnsPath: "/proc/1/fd/7"}, {Name: "server", NetnsPath: "/proc/1/fd/7"},
	}}
	if diff := cmp.Diff(want, held, protocmp.Transform()); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	<-agent.renewed // the lease goes on
	if got, err := h.GetRun(t.Context(), &tcplabv1.GetRunRequest{RunId: id}); err != nil || got.GetRun().GetState() != running {
		t.Errorf("while held: %v, error %v", got, err)
	}
	if deployments, _ := agent.left(); deployments != 1 {
		t.Errorf("%d deployments stand, want the held one", deployments)
	}
	if _, err := h.CancelRun(t.Context(), &tcplabv1.CancelRunRequest{RunId: id}); err != nil {
		t.Fatal(err)
	}
	run := h.end(t, id)
	if run.GetState() != failed || run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_TRIAL || !strings.Contains(run.GetFailure(), "refused") {
		t.Errorf("the run ended as %v, want its first failure", run)
	}
	h.wantNothingLeft(t)
}

func TestLostDeployment(t *testing.T) {
	agent := newScriptedAgent()
	agent.block = "WatchTrial"
	agent.errs["RenewLease"] = rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "the agent was started anew")
	h := start(t, agent, 30*time.Millisecond)
	run := h.end(t, h.create(t, &tcplabv1.RunOptions{Keep: true}).GetId())
	if run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_TRIAL || !strings.Contains(run.GetFailure(), "started anew") {
		t.Errorf("the run ended as %v", run)
	}
	h.wantNothingLeft(t)
}

// TestEndThatCannotBeStored takes the database away from a driver: watchers
// must learn it, since no event can tell them.
func TestEndThatCannotBeStored(t *testing.T) {
	agent := newScriptedAgent()
	agent.block, agent.release = "Verify", make(chan struct{})
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	driver := run.NewDriver(run.Config{Store: s, Agent: agent.serve(t), Log: slog.New(slog.DiscardHandler)})
	lab := &tcplabv1.Lab{Name: "x"}
	plan, err := run.NewPlan([]*tcplabv1.Lab{lab}, nil)
	if err != nil {
		t.Fatal(err)
	}
	created, err := driver.Create(t.Context(), &tcplabv1.Run{Lab: "x"}, plan, store.Request{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		driver.Drive(ctx)
		close(ended)
	}()
	<-agent.reached
	if err := driver.Unsaved(created.GetId()); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(agent.release)
	cancel()
	<-ended
	wantError(t, driver.Unsaved(created.GetId()), codes.Internal, rpcerr.Storage, "another state directory")
	if _, err := driver.Create(t.Context(), &tcplabv1.Run{Lab: "x"}, plan, store.Request{}); rpcerr.From(err).Code != codes.Unavailable {
		t.Errorf("created by a driver that has ended: %v", err)
	}
	if deployments, _ := agent.left(); deployments != 0 {
		t.Errorf("%d deployments are left", deployments)
	}
}
