package controller_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	succeeded = tcplabv1.RunState_RUN_STATE_SUCCEEDED
	failed    = tcplabv1.RunState_RUN_STATE_FAILED
	cancelled = tcplabv1.RunState_RUN_STATE_CANCELLED
	running   = tcplabv1.RunState_RUN_STATE_RUNNING
	pending   = tcplabv1.RunState_RUN_STATE_PENDING
)

// labFile has two points and expects the scripted agent's 20 ms.
const labFile = `
name: scripted
title: What a scripted agent measures
params:
  rtt: [20ms, 40ms]
nodes: [client, server]
links:
  - between: [client, server]
    rtt: ${rtt}
    rate: 100Mbit
experiments:
  - flows:
      - name: get
        bulk: {from: client, to: server, bytes: 1000B}
repeat: 2
expect:
  - name: a connection takes one round trip
    measure: flow.get.connect.p50
    predict: rtt
    within: {ratio: 5%}
`

// harness is a controller that serves, and what is around it.
type harness struct {
	tcplabv1.RunServiceClient
	agent *scriptedAgent
	dir   string
	stop  func() error // ends the controller; idempotent
}

func start(t *testing.T, agent *scriptedAgent, lease time.Duration) *harness {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, agent, lease, s)
}

func startOn(t *testing.T, agent *scriptedAgent, lease time.Duration, s *store.Store) *harness {
	t.Helper()
	client := agent.serve(t)
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := controller.Run(ctx, controller.Config{Store: s, Agent: client, Lease: lease}, listener)
		ended <- errors.Join(err, s.Close())
	}()
	h := &harness{RunServiceClient: tcplabv1.NewRunServiceClient(dial(t, listener)), agent: agent, dir: s.Dir()}
	h.stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *harness) create(t *testing.T, opts *tcplabv1.RunOptions) *tcplabv1.Run {
	t.Helper()
	response, err := h.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
		Options:   opts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetRun()
}

// watch reads events until until says so or the run has ended.
func (h *harness) watch(t *testing.T, id string, until func(*tcplabv1.RunEvent) bool) []*tcplabv1.RunEvent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := h.WatchRun(ctx, &tcplabv1.WatchRunRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	var events []*tcplabv1.RunEvent
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, response.GetEvent())
		if until != nil && until(response.GetEvent()) {
			return events
		}
	}
}

// end watches the run to its end and returns it.
func (h *harness) end(t *testing.T, id string) *tcplabv1.Run {
	t.Helper()
	events := h.watch(t, id, nil)
	return events[len(events)-1].GetRun()
}

func (h *harness) report(t *testing.T, id string) *tcplabv1.RunReport {
	t.Helper()
	response, err := h.GetRunReport(t.Context(), &tcplabv1.GetRunReportRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetReport()
}

func (h *harness) wantNothingLeft(t *testing.T) {
	t.Helper()
	if deployments, results := h.agent.left(); deployments != 0 || results != 0 {
		t.Errorf("%d deployments and %d results are left on the agent", deployments, results)
	}
}

func wantError(t *testing.T, err error, code codes.Code, reason rpcerr.Reason, words string) {
	t.Helper()
	e := rpcerr.From(err)
	if e == nil {
		t.Errorf("no error, want code %v", code)
	} else if e.Code != code || e.Reason != reason || !strings.Contains(e.Message+" / "+e.Remedy, words) {
		t.Errorf("error %v (%+v), want code %v, reason %q and %q", err, e, code, reason, words)
	}
}

// file reads a trial's file through the service.
func (h *harness) file(t *testing.T, run string, trial uint32, name string) (content []byte, _ error) {
	t.Helper()
	stream, err := h.ReadRunArtifact(t.Context(), &tcplabv1.ReadRunArtifactRequest{RunId: run, Trial: trial, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return nil, err
		}
		content = append(content, piece.GetData()...)
	}
}

func TestRunIsCarriedOut(t *testing.T) {
	agent := newScriptedAgent()
	agent.files = map[string][]byte{"samples.parquet": []byte(strings.Repeat("sample ", 100_000))}
	agent.measured = func(lab *tcplabv1.Lab) time.Duration { return 20 * time.Millisecond }
	agent.links = []*tcplabv1.LinkReport{{Name: "client-server", Engine: tcplabv1.Engine_ENGINE_WIRE, Verdict: tcplabv1.LinkVerdict_LINK_VERDICT_UNPROVEN}}
	h := start(t, agent, 0)
	run := h.create(t, &tcplabv1.RunOptions{Engine: tcplabv1.Engine_ENGINE_WIRE, Seed: 7})
	if run.GetState() != pending || run.GetTrialsCount() != 4 || run.GetOptions().GetRepeat() != 2 {
		t.Errorf("created: %v", run)
	}

	var phases []string
	var verdicts []tcplabv1.Verdict
	events := h.watch(t, run.GetId(), nil)
	for i, event := range events {
		if event.GetCursor() != uint64(i+1) {
			t.Fatalf("event %d has cursor %d", i+1, event.GetCursor())
		}
		if p := event.GetTrial(); p != nil && p.GetNumber() == 3 {
			phases = append(phases, strings.TrimPrefix(p.GetPhase().String(), "TRIAL_PHASE_"))
			if p.GetRepetition() != 2 || p.GetPoint()["rtt"].GetStringValue() != "20ms" {
				t.Errorf("trial 3 is %v, want the second repetition of the first point", p)
			}
		}
		if e := event.GetExpectation(); e != nil {
			verdicts = append(verdicts, e.GetVerdict())
		}
	}
	if diff := cmp.Diff([]string{"BUILDING", "VERIFYING", "RUNNING", "STORING", "DONE"}, phases); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]tcplabv1.Verdict{tcplabv1.Verdict_VERDICT_PASSED, tcplabv1.Verdict_VERDICT_FAILED}, verdicts); diff != "" {
		t.Errorf("verdicts at the two points (-want +got):\n%s", diff)
	}
	end := events[len(events)-1].GetRun()
	if end.GetState() != succeeded || end.GetVerdict() != tcplabv1.Verdict_VERDICT_FAILED || end.GetTrialsDone() != 4 ||
		end.GetEngine() != tcplabv1.Engine_ENGINE_WIRE || end.GetStartTime() == nil || end.GetEndTime() == nil {
		t.Errorf("the run ended as %v", end)
	}
	h.wantNothingLeft(t)

	report := h.report(t, "last")
	if report.GetKernel() != "6.18.44, HZ 250" || report.GetSeed() != 7 || len(report.GetTrials()) != 4 ||
		len(report.GetExpectations()) != 2 || report.GetElapsed().AsDuration() <= 0 || report.GetTitle() == "" {
		t.Errorf("report: %v", report)
	}
	counters := []*tcplabv1.NodeCounters{{Node: "client", Values: map[string]int64{"TcpActiveOpens": 1}}}
	if diff := cmp.Diff(counters, report.GetTrials()[0].GetCounters(), protocmp.Transform()); diff != "" {
		t.Errorf("counters in the report (-want +got):\n%s", diff)
	}
	if got := report.GetTrials()[1].GetPoint()["rtt"].GetStringValue(); got != "40ms" {
		t.Errorf("the second trial is at %q, want the second point: repetitions are the outer loop", got)
	}

	page, err := h.ListTrials(t.Context(), &tcplabv1.ListTrialsRequest{RunId: run.GetId(), PageSize: 3})
	if err != nil || len(page.GetTrials()) != 3 {
		t.Fatalf("first page: %d trials, error %v", len(page.GetTrials()), err)
	}
	page, err = h.ListTrials(t.Context(), &tcplabv1.ListTrialsRequest{RunId: run.GetId(), PageSize: 3, PageToken: page.GetNextPageToken()})
	if err != nil || len(page.GetTrials()) != 1 || page.GetNextPageToken() != "" {
		t.Fatalf("last page: %v, error %v", page, err)
	}
	if content, err := h.file(t, "last", 4, "samples.parquet"); err != nil || string(content) != string(agent.files["samples.parquet"]) {
		t.Errorf("the file that is read has %d bytes, error %v", len(content), err)
	}
	if _, err := h.file(t, "last", 4, "other"); rpcerr.From(err).Code != codes.NotFound {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := h.file(t, "last", 9, "samples.parquet"); rpcerr.From(err).Code != codes.NotFound {
		t.Errorf("a trial that is not there: %v", err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenReader(t.Context(), h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file, err := s.OpenArtifact(t.Context(), run.GetId(), 4, "samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if content, err := io.ReadAll(file); err != nil || string(content) != string(agent.files["samples.parquet"]) {
		t.Errorf("the artifact has %d bytes, error %v", len(content), err)
	}
}

func TestSeeds(t *testing.T) {
	seedsOf := func(seed uint64) []uint64 {
		agent := newScriptedAgent()
		h := start(t, agent, 0)
		h.end(t, h.create(t, &tcplabv1.RunOptions{Seed: seed}).GetId())
		var seeds []uint64
		for _, lab := range agent.applied {
			for _, link := range lab.GetLinks() {
				seeds = append(seeds, link.GetForward().GetSeed(), link.GetBackward().GetSeed())
				if link.GetEngine() != tcplabv1.Engine_ENGINE_AUTO || len(link.GetA().GetAddresses()) == 0 {
					t.Errorf("link %v lacks its engine or addresses", link)
				}
			}
		}
		return seeds
	}
	first, again, other := seedsOf(42), seedsOf(42), seedsOf(43)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same seed made others (-first +again):\n%s", diff)
	}
	all := slices.Sorted(slices.Values(append(first, other...)))
	if len(all) != 16 || len(slices.Compact(all)) != 16 || all[0] == 0 {
		t.Errorf("seeds of 2 runs × 4 trials × 2 directions are not 16 different ones: %v", all)
	}
}

func TestFailureInEachPhase(t *testing.T) {
	wrong := &tcplabv1.LinkReport{
		Name: "client-server", Direction: tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD, Engine: tcplabv1.Engine_ENGINE_WIRE,
		Spec:     &tcplabv1.Shape{Delay: durationpb.New(10 * time.Millisecond)},
		Measured: &tcplabv1.LinkMeasurement{Delay: durationpb.New(17 * time.Millisecond)},
		Verdict:  tcplabv1.LinkVerdict_LINK_VERDICT_FAILED,
	}
	broken := rpcerr.New(codes.Internal, "", "look into it", "it broke")
	for _, tt := range []struct {
		name   string
		script func(*scriptedAgent)
		reason tcplabv1.FailureReason
		words  string
		result bool // what was measured is stored all the same
	}{
		{"host", func(a *scriptedAgent) {
			a.errs["Apply"] = rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "see tcplab doctor", "no namespaces here")
		}, tcplabv1.FailureReason_FAILURE_REASON_HOST, "no namespaces here (see tcplab doctor)", false},
		{"build", func(a *scriptedAgent) { a.errs["Apply"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "build the lab: it broke (look into it)", false},
		{"link", func(a *scriptedAgent) { a.links = []*tcplabv1.LinkReport{wrong} }, tcplabv1.FailureReason_FAILURE_REASON_LINK, "asked for delay 10ms, rate 0 bit/s, loss 0; measured 17ms", false},
		{"verify", func(a *scriptedAgent) { a.errs["Verify"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "verify the links: it broke", false},
		{"start", func(a *scriptedAgent) { a.errs["StartTrial"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "start the trial: it broke", false},
		{"follow", func(a *scriptedAgent) { a.errs["WatchTrial"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "follow the trial: it broke", false},
		{"broken off", func(a *scriptedAgent) { a.breakOff = true }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "follow the trial: unexpected EOF", false},
		{"trial", func(a *scriptedAgent) { a.failure = "flow get: connection refused" }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "connection refused", true},
		{"file", func(a *scriptedAgent) { a.errs["ReadArtifact"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "fetch f: it broke", true},
		{"damaged file", func(a *scriptedAgent) {
			a.announce = func(files []*tcplabv1.Artifact) { files[0].Sha256[0]++ }
		}, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "SHA-256", true},
		{"long file", func(a *scriptedAgent) {
			a.announce = func(files []*tcplabv1.Artifact) { files[0].Size-- }
		}, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "bytes announced", true},
		{"hostile file", func(a *scriptedAgent) {
			a.announce = func(files []*tcplabv1.Artifact) { files[0].Name = "../../evil" }
		}, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "not a plain file name", true},
		{"remove", func(a *scriptedAgent) { a.errs["Remove"] = broken }, tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "remove the lab: it broke", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agent := newScriptedAgent()
			agent.files = map[string][]byte{"f": []byte("0123456789")}
			tt.script(agent)
			h := start(t, agent, 0)
			run := h.end(t, h.create(t, nil).GetId())
			if run.GetState() != failed || run.GetFailureReason() != tt.reason || !strings.Contains(told(run), tt.words) ||
				run.GetVerdict() != tcplabv1.Verdict_VERDICT_INCONCLUSIVE {
				t.Errorf("the run ended as %v, want %v and %q", run, tt.reason, tt.words)
			}
			trials := h.report(t, run.GetId()).GetTrials()
			if len(trials) != 1 || (len(trials[0].GetFlows()) > 0) != tt.result {
				t.Errorf("trials %v, want one, measured: %v", trials, tt.result)
			}
			h.wantNothingLeft(t)
		})
	}
}

func TestAcknowledgementMayFail(t *testing.T) {
	agent := newScriptedAgent()
	agent.errs["AcknowledgeTrial"] = rpcerr.New(codes.Internal, "", "", "it broke")
	h := start(t, agent, 0)
	if run := h.end(t, h.create(t, nil).GetId()); run.GetState() != succeeded {
		t.Errorf("the run ended as %v", run)
	}
}

// told is what a run's failure tells a person.
func told(run *tcplabv1.Run) string {
	if run.GetRemedy() == "" {
		return run.GetFailure()
	}
	return run.GetFailure() + " (" + run.GetRemedy() + ")"
}

func TestFilesThatCannotBeStored(t *testing.T) {
	agent := newScriptedAgent()
	agent.files = map[string][]byte{"f": []byte("0123456789")}
	h := start(t, agent, 0)
	if err := os.WriteFile(filepath.Join(h.dir, "incoming"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := h.end(t, h.create(t, &tcplabv1.RunOptions{Keep: true}).GetId())
	if run.GetState() != failed || run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_STORAGE || !strings.Contains(run.GetRemedy(), "another state directory") {
		t.Errorf("the run ended as %v", run)
	}
	h.wantNothingLeft(t)
}

func TestRequestsThatAreRefused(t *testing.T) {
	h := start(t, newScriptedAgent(), 0)
	source := func(content string) *tcplabv1.CreateRunRequest_Source {
		return &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "my.yaml", Content: []byte(content)}}
	}
	for _, tt := range []struct {
		name   string
		req    *tcplabv1.CreateRunRequest
		code   codes.Code
		reason rpcerr.Reason
		field  string
	}{
		{"no lab", &tcplabv1.CreateRunRequest{}, codes.InvalidArgument, rpcerr.RequestInvalid, "lab_source"},
		{"unknown key", &tcplabv1.CreateRunRequest{LabSource: source(labFile + "nods: []\n")}, codes.InvalidArgument, rpcerr.LabInvalid, "my.yaml:21:1"},
		{
			"unknown parameter", &tcplabv1.CreateRunRequest{LabSource: source(labFile), Overrides: []*tcplabv1.ParamOverride{{Name: "rttt", Values: []string{"1ms"}}}},
			codes.InvalidArgument, rpcerr.LabInvalid, "--set",
		},
		{"wrong message", &tcplabv1.CreateRunRequest{LabSource: &tcplabv1.CreateRunRequest_Lab{Lab: &tcplabv1.Lab{
			Name: "x", Nodes: []*tcplabv1.Node{{Name: "a"}, {Name: "a"}},
		}}}, codes.InvalidArgument, rpcerr.LabInvalid, "nodes[1]"},
		{
			"too many repetitions", &tcplabv1.CreateRunRequest{LabSource: source(labFile), Options: &tcplabv1.RunOptions{Repeat: 1001}},
			codes.InvalidArgument, rpcerr.RequestInvalid, "options.repeat",
		},
		{
			"no time", &tcplabv1.CreateRunRequest{LabSource: source(labFile), Options: &tcplabv1.RunOptions{Timeout: durationpb.New(-1)}},
			codes.InvalidArgument, rpcerr.RequestInvalid, "options.timeout",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.CreateRun(t.Context(), tt.req)
			wantError(t, err, tt.code, tt.reason, "")
			if violations := rpcerr.From(err).Violations; len(violations) == 0 || !strings.HasPrefix(violations[0].Field, tt.field) {
				t.Errorf("violations %+v, want one of %q", violations, tt.field)
			}
		})
	}
	_, err := h.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: source(labFile), Options: &tcplabv1.RunOptions{Repeat: 1000},
		Overrides: []*tcplabv1.ParamOverride{{Name: "rtt", Values: milliseconds(200)}},
	})
	wantError(t, err, codes.ResourceExhausted, rpcerr.LabInvalid, "200 parameter points × 1000 repetitions")
	_, err = h.GetRun(t.Context(), &tcplabv1.GetRunRequest{RunId: "nagle"})
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "runs list")
	if runs, err := h.ListRuns(t.Context(), &tcplabv1.ListRunsRequest{}); err != nil || len(runs.GetRuns()) != 0 {
		t.Errorf("refused requests made runs %v, error %v", runs, err)
	}
}

func TestPlan(t *testing.T) {
	h := start(t, newScriptedAgent(), 0)
	response, err := h.PlanRun(t.Context(), &tcplabv1.PlanRunRequest{
		LabSource: &tcplabv1.PlanRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
		Overrides: []*tcplabv1.ParamOverride{{Name: "rtt", Values: milliseconds(3)}},
		Options:   &tcplabv1.RunOptions{Repeat: 5},
	})
	if err != nil {
		t.Fatal(err)
	}
	plan := response.GetPlan()
	if plan.GetLab() != "scripted" || len(plan.GetPoints()) != 3 || plan.GetTrialsCount() != 15 || plan.GetRepeat() != 5 {
		t.Errorf("plan: %v", plan)
	}
	var sum time.Duration
	for _, point := range plan.GetPoints() {
		sum += point.GetEstimate().AsDuration()
	}
	if got := plan.GetEstimate().AsDuration(); got != 5*sum || got == 0 {
		t.Errorf("estimate %v, want five times %v", got, sum)
	}
}

func TestSameRequestSameRun(t *testing.T) {
	h := start(t, newScriptedAgent(), 0)
	req := &tcplabv1.CreateRunRequest{
		RequestId: "once", LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	}
	first, err := h.CreateRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.CreateRun(t.Context(), req)
	if err != nil || again.GetRun().GetId() != first.GetRun().GetId() || again.GetRun().GetOptions().GetSeed() != first.GetRun().GetOptions().GetSeed() {
		t.Errorf("again: %v, error %v; want run %v", again.GetRun(), err, first.GetRun())
	}
	req.Options = &tcplabv1.RunOptions{Repeat: 9}
	_, err = h.CreateRun(t.Context(), req)
	wantError(t, err, codes.AlreadyExists, rpcerr.Conflict, "once")
	h.end(t, first.GetRun().GetId())
	if got := h.agent.count("Apply"); got != 4 {
		t.Errorf("%d trials were carried out, want 4", got)
	}
}

func TestReaderServesWhatIsThere(t *testing.T) {
	h := start(t, newScriptedAgent(), 0)
	id := h.end(t, h.create(t, nil).GetId()).GetId()

	s, err := store.OpenReader(t.Context(), h.dir)
	if err != nil {
		t.Fatal(err)
	}
	reader := startOn(t, newScriptedAgent(), 0, s)
	if got := reader.end(t, id); got.GetState() != succeeded {
		t.Errorf("the reader's run: %v", got)
	}
	_, err = reader.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Busy, "another process")
}

// milliseconds is 1ms, 2ms and so on.
func milliseconds(n int) []string {
	var out []string
	for i := range n {
		out = append(out, (time.Duration(i+1) * time.Millisecond).String())
	}
	return out
}
