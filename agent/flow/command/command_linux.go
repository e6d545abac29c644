// Package command carries out exec flows: programs of the host in the nodes of a lab.
//
// The server's program starts while the experiment gets ready, and the flow waits until
// it is; the client's starts with the flow, and the flow ends when it does. What
// they print is kept as artifacts, bounded in size, and searched for metrics.
//
// The package refuses to leave a program behind: whatever a program has started is killed
// with it, at the flow's end, at its Close, and by the kernel when this process dies (see
// package program).
package command

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/labs"
	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// patience is how long a program may take to end that was told to (Exec).
const patience = 3 * time.Second

// Config is what an exec flow is given beside its specification.
type Config struct {
	// Client and Server say what surrounds the programs: Node, HostName, Hosts and Resolv. The
	// rest is the flow's to say.
	Client, Server program.Spec
	// Hidden are folders that a confined program does not see.
	Hidden []string
	// Keep makes an artifact.
	Keep func(name string) (Artifact, error)
}

// Artifact is a file that becomes part of the trial with Commit, and vanishes with Abandon.
type Artifact interface {
	Write(p []byte) (int, error)
	Commit() error
	Abandon() error
}

// Command is one exec flow. Listen, Run and Close are called in this order, each once; Close
// may come at any time and from anywhere.
type Command struct {
	spec           *tcplabv1.Flow
	client, server *process // nil where the flow has no such program
	metrics        map[string]*expect.Metric
	failed         error // of Listen, which Run tells

	mu      sync.Mutex
	closed  bool
	stop    context.CancelCauseFunc // ends Run while it runs
	running sync.WaitGroup
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg Config) (*Command, error) {
	e := spec.GetExec()
	c := &Command{spec: spec, metrics: make(map[string]*expect.Metric)}
	for name, source := range e.GetMetrics() {
		metric, err := expect.CompileMetric(source)
		if err != nil {
			return nil, fmt.Errorf("flow %s: metric %s: %w", spec.GetName(), name, err)
		}
		c.metrics[name] = metric
	}
	for _, end := range []struct {
		role    string
		program *tcplabv1.ExecProgram
		place   program.Spec
		into    **process
	}{
		{"client", e.GetClient(), cfg.Client, &c.client},
		{"server", e.GetServer(), cfg.Server, &c.server},
	} {
		if end.program == nil {
			continue
		}
		p, err := newProcess(spec.GetName(), end.role, e, end.program, end.place, cfg)
		if err != nil {
			return nil, fmt.Errorf("flow %s: %s: %w", spec.GetName(), end.role, err)
		}
		*end.into = p
	}
	if c.client == nil && c.server == nil {
		return nil, fmt.Errorf("flow %s runs no program", spec.GetName())
	}
	return c, nil
}

// Listen starts the server's program and waits until it is ready. That it does not
// become so is the flow's failure, with its outcome and what it printed: Run tells it.
func (c *Command) Listen(ctx context.Context) error {
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return fmt.Errorf("flow %s: %w", c.spec.GetName(), err)
	}
	defer end()
	if c.server == nil {
		return nil
	}
	if err := c.server.start(); err != nil {
		c.failed = c.server.wrong(err)
		return nil
	}
	if err := c.server.awaitReady(ctx); err != nil {
		c.failed = c.server.wrong(err)
	}
	return nil
}

// Run carries the flow out, and returns what came of it when the programs have ended or, at
// the latest, soon after ctx or Close has ended them.
func (c *Command) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return c.result(err)
	}
	defer end()
	if err = c.failed; err == nil {
		err = c.carryOut(ctx)
	}
	if err == nil && c.server != nil && c.client != nil {
		err = c.endServer(ctx)
	}
	return c.result(err)
}

// begin starts what Close waits for and ends.
func (c *Command) begin(ctx context.Context) (context.Context, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, flow.ErrClosed
	}
	ctx, stop := context.WithCancelCause(ctx)
	c.stop = stop
	c.running.Add(1)
	return ctx, func() {
		stop(nil)
		c.running.Done()
	}, nil
}

// carryOut runs the flow's program to its end, or for as long as the lab says.
func (c *Command) carryOut(ctx context.Context) error {
	main := c.server
	if c.client != nil {
		main = c.client
		if err := main.start(); err != nil {
			return main.wrong(err)
		}
	}
	var up <-chan time.Time
	if d := c.spec.GetDuration().AsDuration(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		up = timer.C
	}
	select {
	case <-up:
		main.terminate(patience)
		return nil
	case <-main.ended:
		return main.wrong(main.failure())
	case <-c.server.failing():
		return c.server.wrong(c.server.failure())
	case <-ctx.Done():
		return &flow.Stopped{Doing: "running " + main.name(), Cause: context.Cause(ctx)}
	}
}

// endServer ends the server's program after the client's has done what it should.
func (c *Command) endServer(ctx context.Context) error {
	s := c.server
	select {
	case <-s.ended:
		return s.wrong(s.failure())
	default:
	}
	if s.program.GetEndsItself() {
		select {
		case <-s.ended:
			return s.wrong(s.failure())
		case <-ctx.Done():
			return &flow.Stopped{Doing: "waiting for the end of " + s.name(), Cause: context.Cause(ctx)}
		}
	}
	s.terminate(patience)
	return nil
}

// result ends what still runs and says what came of it all.
func (c *Command) result(failed error) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name: c.spec.GetName(), Kind: "exec", Exec: &tcplabv1.ExecResult{},
		Client: &tcplabv1.FlowEnd{Node: c.spec.GetClient()}, Server: &tcplabv1.FlowEnd{Node: c.spec.GetServer()},
	}
	var client, server *expect.Printed
	var errs []error
	for _, end := range []struct {
		process *process
		into    **tcplabv1.ExecEnd
		printed **expect.Printed
	}{{c.client, &r.Exec.Client, &client}, {c.server, &r.Exec.Server, &server}} {
		if !end.process.started() {
			continue
		}
		end.process.kill()
		report, err := end.process.report()
		errs = append(errs, err)
		*end.into, *end.printed = report, end.process.printed()
	}
	if failed == nil {
		failed = errors.Join(errs...)
	}
	if failed == nil {
		r.Exec.Metrics, failed = c.find(client, server)
	}
	r.Outcome = flow.OutcomeOf(failed)
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// find evaluates the metrics.
func (c *Command) find(client, server *expect.Printed) (map[string]float64, error) {
	found := make(map[string]float64, len(c.metrics))
	var errs []error
	for name, metric := range c.metrics {
		v, err := metric.Find(client, server)
		if err != nil {
			errs = append(errs, fmt.Errorf("metric %s: %w", name, err))
			continue
		}
		found[name] = v
	}
	return found, errors.Join(errs...)
}

// Close ends the flow, abruptly if it still runs, and waits until nothing of it is left. It may
// be called again.
func (c *Command) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.stop != nil {
		c.stop(flow.ErrClosed)
	}
	c.mu.Unlock()
	c.running.Wait()
	var errs []error
	for _, p := range []*process{c.client, c.server} {
		if p.started() {
			p.kill()
			errs = append(errs, p.close())
		}
	}
	return errors.Join(errs...)
}

// readyWithin is how long a program may take to be ready.
func readyWithin(r *tcplabv1.Readiness) time.Duration {
	if d := r.GetWithin().AsDuration(); d > 0 {
		return d
	}
	return labs.DefaultReadiness
}
