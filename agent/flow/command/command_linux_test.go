package command

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when something that should long have happened is given up.
const limit = 20 * time.Second

// asAgent makes the test's own program one that runs a flow and is killed.
const asAgent = "TCPLAB_TEST_COMMAND"

func TestMain(m *testing.M) {
	switch {
	case program.IsFirst():
		os.Exit(program.First())
	case os.Getenv(asAgent) != "":
		victim()
	default:
		goleak.VerifyTestMain(m)
	}
}

// kept are the artifacts of a test's flow.
type kept struct {
	mu    sync.Mutex
	whole map[string]string
	open  int
	full  bool // the disk is
}

type file struct {
	strings.Builder
	name string
	of   *kept
}

func (k *kept) keep(name string) (Artifact, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open++
	return &file{name: name, of: k}, nil
}

func (f *file) Write(p []byte) (int, error) {
	if f.of.full {
		return 0, errors.New("no space left on device")
	}
	return f.Builder.Write(p)
}

func (f *file) Commit() error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.of.whole[f.name] = f.String()
	f.of.open--
	return nil
}

func (f *file) Abandon() error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.of.open--
	return nil
}

// bed is one node, which is client and server at once.
type bed struct {
	cfg  Config
	kept *kept
}

func newBed(t testing.TB) *bed {
	t.Helper()
	need.NetNS(t)
	node, err := netns.New("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	k := &kept{whole: make(map[string]string)}
	place := program.Spec{Node: node, HostName: "node", Hosts: "127.0.0.1 server\n", Resolv: "# nobody\n"}
	return &bed{cfg: Config{Client: place, Server: place, Keep: k.keep}, kept: k}
}

func sh(script string) *tcplabv1.ExecProgram {
	return &tcplabv1.ExecProgram{Argv: []string{"sh", "-c", script}}
}

func exe(client, server *tcplabv1.ExecProgram) *tcplabv1.Exec {
	return &tcplabv1.Exec{Client: client, Server: server, KeepBytes: 1 << 20}
}

// run runs a flow to its end, and sees that nothing is left of it.
func (b *bed) run(ctx context.Context, t testing.TB, e *tcplabv1.Exec) *tcplabv1.FlowResult {
	t.Helper()
	c, err := New(&tcplabv1.Flow{Name: "x", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Exec{Exec: e}}, b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := c.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	r := c.Run(ctx)
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(begin); took > limit {
		t.Errorf("it took %v", took)
	}
	if b.kept.open != 0 {
		t.Errorf("%d artifacts are neither kept nor gone", b.kept.open)
	}
	return r
}

func TestOutput(t *testing.T) {
	b := newBed(t)
	e := exe(sh("echo out; echo err >&2; cat /etc/hosts"), nil)
	r := b.run(t.Context(), t, e)
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED || r.GetError() != "" || r.GetKind() != "exec" {
		t.Fatalf("%s %s: %s", r.GetKind(), r.GetOutcome(), r.GetError())
	}
	end := r.GetExec().GetClient()
	if r.GetExec().GetServer() != nil || end.GetStatus() != 0 || end.GetStopped() || end.GetElapsed().AsDuration() <= 0 {
		t.Errorf("%v", r.GetExec())
	}
	const want = "out\n127.0.0.1 server\n"
	if got := end.GetStdout(); got.GetTail() != want || got.GetBytes() != uint64(len(want)) || got.GetBytesKept() != got.GetBytes() || got.GetArtifact() != "x.client.stdout" {
		t.Errorf("standard output is %v", got)
	}
	if b.kept.whole["x.client.stdout"] != want || b.kept.whole["x.client.stderr"] != "err\n" || len(b.kept.whole) != 2 {
		t.Errorf("kept is %q", b.kept.whole)
	}
}

// Much output is counted, and its beginning kept.
func TestOutputBounded(t *testing.T) {
	b := newBed(t)
	e := exe(sh("yes tcplab | head -c 5000000; echo end"), nil)
	e.KeepBytes = 1000
	r := b.run(t.Context(), t, e)
	got := r.GetExec().GetClient().GetStdout()
	if r.GetError() != "" || got.GetBytes() != 5_000_004 || got.GetBytesKept() != 1000 || !strings.HasSuffix(got.GetTail(), "end\n") || len(got.GetTail()) > tailSize {
		t.Errorf("%s: %d bytes, %d kept, tail of %d", r.GetError(), got.GetBytes(), got.GetBytesKept(), len(got.GetTail()))
	}
	if text := b.kept.whole["x.client.stdout"]; len(text) != 1000 || !strings.HasPrefix(text, "tcplab\n") {
		t.Errorf("%d bytes are kept: %.20q", len(text), text)
	}
}

// A server's program is waited for, serves, is told to end, and what it says at its end
// is kept.
func TestServer(t *testing.T) {
	for name, ready := range map[string]*tcplabv1.Readiness{
		"line": {By: &tcplabv1.Readiness_Line{Line: "^ready: [0-9]+"}},
		"none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			server := sh(`trap 'echo bye; exit 3' TERM; echo ready: 80 >&2; while :; do sleep 0.01; done`)
			server.Ready = ready
			r := b.run(t.Context(), t, exe(sh("echo asked"), server))
			end := r.GetExec().GetServer()
			if r.GetError() != "" || !end.GetStopped() || end.GetReady().AsDuration() <= 0 || end.GetReady().AsDuration() > end.GetElapsed().AsDuration() {
				t.Errorf("%s: %v", r.GetError(), end)
			}
			if ready != nil && (end.GetStatus() != 3 || end.GetStdout().GetTail() != "bye\n") {
				t.Errorf("it was not told to end: %v", end)
			}
		})
	}
}

// A port is waited for until somebody listens on it in the node.
func TestServerPort(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		need.Missing(t, "iperf3", "make setup installs it")
	}
	b := newBed(t)
	server := &tcplabv1.ExecProgram{
		Argv: []string{"sh", "-c", "sleep 0.2; exec iperf3 -s -1 -J"}, EndsItself: true,
		Ready: &tcplabv1.Readiness{By: &tcplabv1.Readiness_Port{Port: 5201}},
	}
	e := exe(&tcplabv1.ExecProgram{Argv: []string{"iperf3", "-c", "server", "-J", "-n", "1M"}}, server)
	e.Metrics = map[string]string{
		"sent_bytes": "json.end.sum_sent.bytes", "server": "server.json.start.connected[0].local_port", "status": "client.status + server.status",
	}
	r := b.run(t.Context(), t, e)
	if r.GetError() != "" {
		t.Fatal(r.GetError())
	}
	found := r.GetExec().GetMetrics()
	if found["sent_bytes"] < 1<<20 || found["status"] != 0 || found["server"] != 5201 {
		t.Errorf("metrics are %v", found)
	}
	if s := r.GetExec().GetServer(); s.GetStopped() || s.GetReady().AsDuration() < 200*time.Millisecond {
		t.Errorf("the server: %v", s)
	}
}

// Each fault ends in its time, has its name, and leaves what was printed.
func TestFaults(t *testing.T) {
	never := func(script string, within time.Duration) *tcplabv1.ExecProgram {
		p := sh(script)
		p.Ready = &tcplabv1.Readiness{By: &tcplabv1.Readiness_Line{Line: "never"}, Within: durationpb.New(within)}
		return p
	}
	forever := "echo here; while :; do sleep 0.01; done"
	deaf := "trap '' TERM; " + forever
	port := sh(forever)
	port.Ready = &tcplabv1.Readiness{By: &tcplabv1.Readiness_Port{Port: 1}, Within: durationpb.New(50 * time.Millisecond)}
	withMetric := func(e *tcplabv1.Exec, metric string) *tcplabv1.Exec {
		e.Metrics = map[string]string{"m": metric}
		return e
	}
	expects := func(p *tcplabv1.ExecProgram, statuses ...uint32) *tcplabv1.ExecProgram {
		p.Statuses = statuses
		return p
	}
	const (
		failed    = tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED
		unready   = tcplabv1.FlowOutcome_FLOW_OUTCOME_NEVER_READY
		deadline  = tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE
		completed = tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
		wrong     = tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR
	)
	for name, c := range map[string]struct {
		exec    *tcplabv1.Exec
		timeout time.Duration // 0: none
		outcome tcplabv1.FlowOutcome
		text    string // in the error
	}{
		"client not found":      {exec: exe(&tcplabv1.ExecProgram{Argv: []string{"no-such-program"}}, nil), outcome: failed, text: "client: no-such-program: there is no such program"},
		"server not found":      {exec: exe(sh("true"), &tcplabv1.ExecProgram{Argv: []string{"no-such-program"}}), outcome: failed, text: "server: no-such-program"},
		"not executable":        {exec: exe(&tcplabv1.ExecProgram{Argv: []string{"/etc/hosts"}}, nil), outcome: failed, text: "permission denied"},
		"client fails":          {exec: exe(sh("echo cannot >&2; exit 7"), nil), outcome: failed, text: "client: sh ended with status 7: cannot"},
		"client is expected to": {exec: exe(expects(sh("exit 7"), 0, 7), nil), outcome: completed},
		"client is not to do":   {exec: exe(expects(sh("true"), 7), nil), outcome: failed, text: "status 0"},
		"client is killed":      {exec: exe(sh("kill -SEGV $$"), nil), outcome: failed, text: "signal 11 (segmentation fault)"},
		"server dies early":     {exec: exe(sh(forever), sh("sleep 0.1; echo dying >&2; exit 1")), outcome: failed, text: "server: sh ended with status 1: dying"},
		"server dies unready":   {exec: exe(sh("true"), never("echo oh; exit 2", time.Minute)), outcome: failed, text: "server: sh ended with status 2: oh"},
		"server is a daemon":    {exec: exe(sh("true"), never("echo detaching; exit 0", time.Minute)), outcome: failed, text: "before it was ready: it must stay in the foreground"},
		"server is never ready": {exec: exe(sh("true"), never(forever, 2*time.Second)), outcome: unready, text: `server: sh was not ready within 2s: waited for a line that matches "never": here`},
		"nobody listens":        {exec: exe(sh("true"), port), outcome: unready, text: "waited for it to listen on port 1"},
		"client never ends":     {exec: exe(sh(deaf), sh(deaf)), timeout: 300 * time.Millisecond, outcome: deadline, text: "stopped while running sh: the experiment did not end within"},
		"never ready, no time":  {exec: exe(sh("true"), never(deaf, time.Minute)), timeout: 300 * time.Millisecond, outcome: deadline, text: "stopped while waiting for a line"},
		"server never ends": {
			exec: exe(sh("true"), &tcplabv1.ExecProgram{Argv: []string{"sh", "-c", deaf}, EndsItself: true}), timeout: 3 * time.Second,
			outcome: deadline, text: "waiting for the end of sh",
		},
		"not JSON":          {exec: withMetric(exe(sh("echo hello"), nil), "json.x"), outcome: wrong, text: "metric m: json.x: what sh wrote to standard output is not JSON: invalid character"},
		"no such field":     {exec: withMetric(exe(sh(`echo '{"y": 1}'`), nil), "json.x"), outcome: wrong, text: "metric m: json.x: no such key: x"},
		"no number":         {exec: withMetric(exe(sh(`echo '{"x": "1"}'`), nil), "json.x"), outcome: wrong, text: "a number is needed, this is string"},
		"no program":        {exec: withMetric(exe(sh("true"), nil), "server.status"), outcome: wrong, text: "the flow has no program at its server"},
		"metric despite it": {exec: withMetric(exe(sh("echo hello"), nil), "client.status"), outcome: completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			ctx := t.Context()
			if c.timeout > 0 {
				within, cancel := context.WithTimeoutCause(ctx, c.timeout, &flow.OutOfTime{What: "the experiment", Limit: c.timeout})
				defer cancel()
				ctx = within
			}
			r := b.run(ctx, t, c.exec)
			if r.GetOutcome() != c.outcome || !strings.Contains(r.GetError(), c.text) || (c.text == "") != (r.GetError() == "") {
				t.Errorf("%s: %q, want %s: %q", r.GetOutcome(), r.GetError(), c.outcome, c.text)
			}
			if strings.HasSuffix(c.text, ": here") && b.kept.whole["x.server.stdout"] != "here\n" {
				t.Errorf("kept is %q", b.kept.whole)
			}
		})
	}
}

// A port that is taken says nothing about a program, and so it is not started.
func TestPortTaken(t *testing.T) {
	b := newBed(t)
	c, err := New(&tcplabv1.Flow{Name: "first", Kind: &tcplabv1.Flow_Exec{Exec: exe(nil, &tcplabv1.ExecProgram{
		Argv: []string{"iperf3", "-s"}, Ready: &tcplabv1.Readiness{By: &tcplabv1.Readiness_Port{Port: 5201}},
	})}}, b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(t.Context()); err != nil || c.failed != nil {
		t.Fatal(err, c.failed)
	}
	second := sh("echo started")
	second.Ready = &tcplabv1.Readiness{By: &tcplabv1.Readiness_Port{Port: 5201}}
	other := &bed{cfg: b.cfg, kept: &kept{whole: make(map[string]string)}}
	other.cfg.Keep = other.kept.keep
	r := other.run(t.Context(), t, exe(nil, second))
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR || !strings.Contains(r.GetError(), "somebody listens on port 5201 of node already") || r.GetExec().GetServer() != nil {
		t.Errorf("%s: %s, %v", r.GetOutcome(), r.GetError(), r.GetExec())
	}
	if err := c.Close(); err != nil { // without Run
		t.Error(err)
	}
	if b.kept.open != 0 {
		t.Errorf("%d artifacts are left", b.kept.open)
	}
}

// A program that is to run for a time is told to end then, and has done all it should.
func TestDuration(t *testing.T) {
	for name, e := range map[string]*tcplabv1.Exec{
		"client": exe(sh(`trap 'echo bye; exit 1' TERM; while :; do sleep 0.01; done`), sh("sleep 1000")),
		"server": exe(nil, sh(`trap 'echo bye; exit 1' TERM; while :; do sleep 0.01; done`)),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			c, err := New(&tcplabv1.Flow{Name: "x", Kind: &tcplabv1.Flow_Exec{Exec: e}, Duration: durationpb.New(200 * time.Millisecond)}, b.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := c.Run(t.Context())
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			end := r.GetExec().GetClient()
			if name == "server" {
				end = r.GetExec().GetServer()
			}
			if r.GetError() != "" || end.GetStdout().GetTail() != "bye\n" || !end.GetStopped() || end.GetElapsed().AsDuration() < 200*time.Millisecond {
				t.Errorf("%s: %v", r.GetError(), end)
			}
		})
	}
}

// A disk that is full is the flow's error, and not the programs'.
func TestDiskFull(t *testing.T) {
	b := newBed(t)
	b.kept.full = true
	r := b.run(t.Context(), t, exe(sh("echo out"), nil))
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR || !strings.Contains(r.GetError(), "keep x.client.stdout: no space left") {
		t.Errorf("%s: %s", r.GetOutcome(), r.GetError())
	}
}

// Close ends a flow that runs, and Run says so.
func TestClose(t *testing.T) {
	b := newBed(t)
	c, err := New(&tcplabv1.Flow{Name: "x", Kind: &tcplabv1.Flow_Exec{Exec: exe(sh("echo here; sleep 1000"), nil)}}, b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan *tcplabv1.FlowResult, 1)
	go func() { ended <- c.Run(t.Context()) }()
	await(t, "it runs", func() bool { return c.client.stdout.tail() != "" })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r := <-ended
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED || !r.GetExec().GetClient().GetStopped() {
		t.Errorf("%s: %v", r.GetOutcome(), r.GetExec())
	}
}

// An agent that is killed takes a flow's programs with it, daemons of theirs too.
func TestKilledAgent(t *testing.T) {
	need.NetNS(t)
	mark := "TCPLAB_TEST_MARK=" + strconv.Itoa(os.Getpid()) + filepath.Base(t.TempDir())
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asAgent+"="+mark)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "three programs run", func() bool { return len(marked(t, mark)) >= 3 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(t, "nothing is left", func() bool { return len(marked(t, mark)) == 0 })
}

// victim runs a flow that does not end.
func victim() {
	node, err := netns.New("node")
	if err != nil {
		panic(err)
	}
	place := program.Spec{Node: node, HostName: "node"}
	k := &kept{whole: make(map[string]string)}
	name, value, _ := strings.Cut(os.Getenv(asAgent), "=")
	forever := func(script string) *tcplabv1.ExecProgram {
		p := sh(script)
		p.Env = map[string]string{name: value}
		return p
	}
	e := exe(forever("sleep 1000"), forever("setsid sleep 1000 & sleep 1001"))
	c, err := New(&tcplabv1.Flow{Name: "x", Kind: &tcplabv1.Flow_Exec{Exec: e}}, Config{Client: place, Server: place, Keep: k.keep})
	if err != nil {
		panic(err)
	}
	if err := c.Listen(context.Background()); err != nil {
		panic(err)
	}
	panic(c.Run(context.Background()).GetError())
}

// marked are the processes that have the variable in their environment.
func marked(t *testing.T, variable string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.Contains("\x00"+string(content), "\x00"+variable) {
			found = append(found, file)
		}
	}
	return found
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.After(limit)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("in %v it did not become so that %s", limit, what)
		}
	}
}
