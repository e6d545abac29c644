package command

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// process is one program of the flow. Its methods but start may be called on a nil one,
// of a program that the flow has not, where they say so.
type process struct {
	role    string // client or server
	program *tcplabv1.ExecProgram
	spec    program.Spec
	stdout  *output
	stderr  *output
	line    chan struct{} // closed when a line came that says it is ready; nil: no line does

	// Set by start, which happens before all that follows.
	running *program.Program
	begin   time.Time
	ended   chan struct{} // closed when it and all that it started have ended and all is read
	failed  chan struct{} // closed with it where the program did not do all it should

	// Written before ended is closed.
	end  time.Time
	exit program.Exit
	err  error // its surroundings could not be made

	mu      sync.Mutex
	ready   time.Duration // from its start; 0: it is not
	stopped bool          // it was told to end
}

func newProcess(name, role string, e *tcplabv1.Exec, p *tcplabv1.ExecProgram, place program.Spec, cfg Config) (*process, error) {
	if len(p.GetArgv()) == 0 {
		return nil, errors.New("no program is named")
	}
	spec := place
	spec.Argv, spec.Dir, spec.Folder, spec.Gainless = p.GetArgv(), program.FolderPath, &program.Folder{Files: p.GetFiles()}, true
	user := "root"
	if e.GetUser() != tcplabv1.ExecUser_EXEC_USER_ROOT {
		user, spec.Confined = "nobody", &program.Confinement{Hidden: cfg.Hidden}
	}
	spec.Env = program.EnvironmentOf(user, program.FolderPath, false, p.GetEnv())
	proc := &process{role: role, program: p, spec: spec, ended: make(chan struct{}), failed: make(chan struct{})}
	var match func([]byte)
	if pattern := p.GetReady().GetLine(); pattern != "" {
		line, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("the line by which it is ready: %w", err)
		}
		proc.line = make(chan struct{})
		var once sync.Once
		match = func(text []byte) {
			if line.Match(text) {
				once.Do(func() { close(proc.line) })
			}
		}
	}
	limit := e.GetKeepBytes()
	artifact := func(stream string) func() (Artifact, error) {
		return func() (Artifact, error) { return cfg.Keep(artifactName(name, role, stream)) }
	}
	proc.stdout = newOutput(artifactName(name, role, "stdout"), limit, len(e.GetMetrics()) > 0, match, artifact("stdout"))
	proc.stderr = newOutput(artifactName(name, role, "stderr"), limit, false, match, artifact("stderr"))
	return proc, nil
}

// artifactName is that of one output of one program.
func artifactName(flow, role, stream string) string { return flow + "." + role + "." + stream }

// name is the program's, for people.
func (p *process) name() string { return path.Base(p.program.GetArgv()[0]) }

// started may be called on a nil process.
func (p *process) started() bool { return p != nil && p.running != nil }

// wrong sets the end before an error, if there is one. It may be called on a nil process
// that has none.
func (p *process) wrong(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.role, err)
}

// start starts the program. A port by which it is to be ready must be free.
func (p *process) start() error {
	if port := p.program.GetReady().GetPort(); port != 0 {
		taken, err := listened(p.spec.Node, port)
		if err != nil {
			return err
		}
		if taken {
			return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR,
				fmt.Errorf("somebody listens on port %d of %s already, so that nothing tells when %s does", port, p.spec.Node.Name(), p.name()))
		}
	}
	begin := time.Now()
	running, err := program.Start(p.spec)
	if err != nil {
		return err
	}
	p.running, p.begin = running, begin
	var reading sync.WaitGroup
	reading.Go(func() { p.stdout.read(running.Stdout) })
	reading.Go(func() { p.stderr.read(running.Stderr) })
	_ = running.EndInput() // it has none, ended or not
	go func() {
		// Ends with the program, which Close kills.
		defer close(p.ended)
		p.exit, p.err = running.Wait()
		p.end = time.Now()
		reading.Wait()
		if p.failure() != nil {
			close(p.failed)
		}
	}()
	return nil
}

// awaitReady waits until the program is ready.
func (p *process) awaitReady(ctx context.Context) error {
	r := p.program.GetReady()
	within := readyWithin(r)
	late := time.NewTimer(within)
	defer late.Stop()
	runs := p.running.Running()
	select {
	case <-runs: // or it has ended
	case <-ctx.Done():
		return &flow.Stopped{Doing: "starting " + p.name(), Cause: context.Cause(ctx)}
	}
	what := "its start"
	var found <-chan struct{}
	switch {
	case r.GetPort() != 0:
		what = fmt.Sprintf("it to listen on port %d", r.GetPort())
		ready, done := make(chan struct{}), make(chan struct{})
		looking, stop := context.WithCancel(ctx)
		go func() {
			defer close(done)
			if awaitPort(looking, p.spec.Node, r.GetPort()) {
				close(ready)
			}
		}()
		defer func() {
			stop()
			<-done
		}()
		found = ready
	case p.line != nil:
		what = fmt.Sprintf("a line that matches %q", r.GetLine())
		found = p.line
	default:
		found = runs
	}
	select {
	case <-found:
		select {
		case <-p.ended: // that was the end, and no start
		default:
			p.mu.Lock()
			p.ready = max(time.Since(p.begin), 1)
			p.mu.Unlock()
			return nil
		}
	case <-p.ended:
	case <-late.C:
		return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_NEVER_READY,
			fmt.Errorf("%s was not ready within %v: waited for %s%s", p.name(), within, what, p.lastWords()))
	case <-ctx.Done():
		return &flow.Stopped{Doing: "waiting for " + what, Cause: context.Cause(ctx)}
	}
	if r == nil {
		return p.failure() // it was quick, and may have done all it should
	}
	if err := p.failure(); err != nil {
		return err
	}
	return programFailed(fmt.Errorf("%s ended with status %d before it was ready: it must stay in the foreground%s", p.name(), p.exit.Status, p.lastWords()))
}

// failing is closed when the program has failed; of a nil process, never.
func (p *process) failing() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.failed
}

// failure is what is wrong with how the program ended.
func (p *process) failure() error {
	switch {
	case p.err != nil:
		return p.err
	case p.exit.Failure != "":
		return programFailed(errors.New(p.exit.Failure))
	case p.wasStopped():
		return nil
	case p.exit.Signal != 0:
		return programFailed(fmt.Errorf("%s was ended by signal %d (%s)%s", p.name(), p.exit.Signal, p.exit.Signal, p.lastWords()))
	}
	expected := p.program.GetStatuses()
	if len(expected) == 0 {
		expected = []uint32{0}
	}
	if !slices.Contains(expected, uint32(p.exit.Status)) {
		return programFailed(fmt.Errorf("%s ended with status %d%s", p.name(), p.exit.Status, p.lastWords()))
	}
	return nil
}

func programFailed(err error) error {
	return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED, err)
}

// wordsLimit is how much of a program's last line an error repeats, in bytes.
const wordsLimit = 300

// lastWords is the last line that the program wrote, to standard error if to both.
func (p *process) lastWords() string {
	for _, o := range []*output{p.stderr, p.stdout} {
		lines := strings.Split(strings.TrimSpace(o.tail()), "\n")
		if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
			if len(last) > wordsLimit {
				last = strings.ToValidUTF8(last[:wordsLimit], "") + "…"
			}
			return ": " + last
		}
	}
	return ""
}

func (p *process) wasStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// terminate tells the program to end, and kills it where it has not within the time.
func (p *process) terminate(within time.Duration) {
	if !p.markStopped() {
		return
	}
	_ = p.running.Signal(syscall.SIGTERM) // it may have ended by itself
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
		p.kill()
	}
}

// kill ends the program and all that it started, and waits for that.
func (p *process) kill() {
	p.markStopped()
	p.running.Kill()
	<-p.ended
}

// markStopped notes that what follows is not the program's own end, if it has not ended yet.
func (p *process) markStopped() (runs bool) {
	select {
	case <-p.ended:
		return false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	return true
}

// report is what came of the program, which has ended. The error says that its output could
// not be kept.
func (p *process) report() (*tcplabv1.ExecEnd, error) {
	stdout, err := p.stdout.report()
	stderr, err2 := p.stderr.report()
	r := &tcplabv1.ExecEnd{
		Status: uint32(p.exit.Status), Signal: uint32(p.exit.Signal), Stopped: p.wasStopped(),
		Elapsed: durationpb.New(p.end.Sub(p.begin)), Stdout: stdout, Stderr: stderr,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready > 0 {
		r.Ready = durationpb.New(p.ready)
	}
	return r, errors.Join(err, err2)
}

// printed is what metrics see of the program, which has ended.
func (p *process) printed() *expect.Printed {
	v, err := p.stdout.json()
	if err != nil {
		err = fmt.Errorf("what %s wrote to standard output is not JSON: %w", p.name(), err)
	}
	return &expect.Printed{JSON: v, NoJSON: err, Status: p.exit.Status, Elapsed: p.end.Sub(p.begin)}
}

// close closes this side's files, and removes what was not kept.
func (p *process) close() error {
	return errors.Join(p.running.Close(), p.stdout.abandon(), p.stderr.abandon())
}
