package controller_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// startVirtual is start with an agent of virtual time beside the host's.
func startVirtual(t *testing.T, host, virtual *scriptedAgent) *harness {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := controller.Config{Store: s, Agent: host.serve(t)}
	if virtual != nil {
		cfg.Virtual = virtual.serve(t)
	}
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(controller.Run(ctx, cfg, listener), s.Close()) }()
	h := &harness{RunServiceClient: tcplabv1.NewRunServiceClient(dial(t, listener)), agent: virtual, dir: dir}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

// Trials in virtual time go to the agent that has it, as many at once as it has processors.
func TestVirtualTrialsAtOnce(t *testing.T) {
	host, virtual := newScriptedAgent(), newScriptedAgent()
	const cpus = 3
	virtual.cpus = cpus
	together := make(chan struct{}, cpus)
	all := make(chan struct{})
	virtual.measured = func(*tcplabv1.Lab) time.Duration {
		// The first ones wait until as many run as shall.
		select {
		case together <- struct{}{}:
			if len(together) == cpus {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(10 * time.Second):
				t.Error("no three trials run at once")
			}
		default:
		}
		return 20 * time.Millisecond
	}
	h := startVirtual(t, host, virtual)
	run := h.create(t, &tcplabv1.RunOptions{Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL})
	done := map[uint32]bool{}
	for _, e := range h.watch(t, run.GetId(), nil) {
		if p := e.GetTrial(); p.GetPhase() == tcplabv1.TrialPhase_TRIAL_PHASE_DONE {
			done[p.GetNumber()] = true
		}
	}
	report := h.report(t, run.GetId())
	if report.GetState() != succeeded || len(done) != 4 || len(report.GetTrials()) != 4 {
		t.Errorf("%v with %d trials done: %s", report.GetState(), len(done), report.GetFailure())
	}
	if host.count("Apply") != 0 || virtual.count("Apply") != 4 {
		t.Errorf("%d trials on the host, %d in virtual time", host.count("Apply"), virtual.count("Apply"))
	}
	for i, trial := range report.GetTrials() {
		if want := uint32(i/2 + 1); trial.GetRepetition() != want {
			t.Errorf("trial %d is repetition %d, want %d", i+1, trial.GetRepetition(), want)
		}
	}
	h.wantNothingLeft(t)
}

// One that fails stops those beside it, and is what the run fails for.
func TestVirtualTrialThatFails(t *testing.T) {
	virtual := newScriptedAgent()
	virtual.cpus = 2
	virtual.failure = "it broke"
	h := startVirtual(t, newScriptedAgent(), virtual)
	run := h.end(t, h.create(t, &tcplabv1.RunOptions{Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL, Repeat: 50}).GetId())
	if run.GetState() != failed || run.GetFailure() != "it broke" {
		t.Errorf("the run ended as %v: %s", run.GetState(), run.GetFailure())
	}
	if n := virtual.count("Apply"); n > 4 {
		t.Errorf("%d trials began", n)
	}
	h.wantNothingLeft(t)
}

func TestVirtualIsRefused(t *testing.T) {
	h := startVirtual(t, newScriptedAgent(), nil)
	run := h.end(t, h.create(t, &tcplabv1.RunOptions{Time: tcplabv1.TimeMode_TIME_MODE_RELAXED}).GetId())
	if run.GetState() != failed || !strings.Contains(run.GetFailure(), "no agent for virtual time") {
		t.Errorf("without an agent: %v: %s", run.GetState(), run.GetFailure())
	}
	for words, options := range map[string]*tcplabv1.RunOptions{
		"cannot be entered": {Keep: true},
		"takes netem":       {Engine: tcplabv1.Engine_ENGINE_WIRE},
	} {
		options.Time = tcplabv1.TimeMode_TIME_MODE_VIRTUAL
		_, err := h.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
			LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
			Options:   options,
		})
		wantError(t, err, codes.InvalidArgument, rpcerr.RequestInvalid, words)
	}
}
