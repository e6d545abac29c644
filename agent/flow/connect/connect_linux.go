package connect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Flow is one connect flow between two nodes. Listen, Run and Close are called in this
// order, each once; Close may come at any time and from anywhere.
type Flow struct {
	spec *tcplabv1.Flow
	plan *plan
	cfg  flow.Config

	mu       sync.Mutex
	listener socket.FD // -1 before Listen, and once it is Run's or closed
	address  netip.AddrPort
	closed   bool
	stop     context.CancelCauseFunc // ends Run while it runs
	running  sync.WaitGroup
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg flow.Config) (*Flow, error) {
	plan, err := newPlan(spec)
	if err == nil {
		err = cfg.Check(spec)
	}
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", spec.GetName(), err)
	}
	return &Flow{spec: spec, plan: plan, cfg: cfg, listener: -1}, nil
}

func (f *Flow) end(end flow.End, role socket.Role) socket.Spec {
	return socket.Spec{End: end, Role: role, Options: f.spec.GetSocket()}
}

// Listen opens the server's port; one that is to refuse takes it without listening.
func (f *Flow) Listen(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil && f.closed {
		err = flow.ErrClosed
	}
	if err == nil {
		// Where it is not to be had, connections will say so.
		if err := loop.Room(2 * f.plan.concurrency); err != nil && f.cfg.Log != nil {
			f.cfg.Log.Warn("raise the limit on open files", "flow", f.spec.GetName(), "error", err)
		}
		spec := f.end(f.cfg.Server, socket.Server)
		if f.plan.fault == tcplabv1.FlowFault_FLOW_FAULT_REFUSE {
			f.listener, err = spec.Reserve()
		} else {
			f.listener, err = spec.Listen(f.plan.backlog, unix.SOCK_NONBLOCK)
		}
	}
	if err != nil {
		return fmt.Errorf("flow %s: server: %w", f.spec.GetName(), err)
	}
	f.address = f.listener.Local()
	return nil
}

// Run carries the flow out and returns what was measured, at the latest soon after ctx or Close has
// ended it, with every socket closed and every goroutine gone.
func (f *Flow) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := f.begin(cancel); err != nil {
		return f.result(newClient(f.plan, f.end(f.cfg.Client, socket.Client), netip.AddrPort{}), newServer(f.plan, f.end(f.cfg.Server, socket.Server), -1), err)
	}
	defer f.running.Done()
	s := newServer(f.plan, f.end(f.cfg.Server, socket.Server), f.listener)
	c := newClient(f.plan, f.end(f.cfg.Client, socket.Client), f.address)
	// A stop is the client's first: it would count what a server that goes away does to it.
	serverCtx, cancelServer := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelServer(nil)
	served := make(chan error, 1)
	go func() {
		err := f.serve(serverCtx, s)
		if err != nil {
			cancel(fmt.Errorf("the server failed: %w", err))
		}
		served <- err
	}()
	var serving *loop.Loop
	var err error
	select {
	case serving = <-s.started:
	case err = <-served:
	}
	if serving != nil {
		err = loop.Run(ctx, f.cfg.Client.NS, c.begin)
		if err != nil {
			cancel(fmt.Errorf("the client failed: %w", err))
		}
		defer context.AfterFunc(ctx, func() { cancelServer(context.Cause(ctx)) })()
		// The server knows of no end but its client's.
		serving.Post(s.last)
		if serverErr := <-served; err == nil {
			err = serverErr
		}
	}
	if err != nil {
		err = flow.Explain(ctx, "making connections", err)
	}
	return f.result(c, s, err)
}

// serve runs the server's loop, which takes the listener over.
func (f *Flow) serve(ctx context.Context, s *server) error {
	began := false
	err := loop.Run(ctx, f.cfg.Server.NS, func(l *loop.Loop) error {
		err := s.begin(l)
		began = err == nil
		return err
	})
	if !began {
		s.listener.Close()
	}
	return err
}

// begin marks the flow as running; the listener is Run's from then on.
func (f *Flow) begin(stop context.CancelCauseFunc) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return flow.ErrClosed
	case !f.address.IsValid():
		return errors.New("the flow does not listen yet")
	case f.stop != nil:
		return errors.New("the flow has run already")
	}
	f.stop = stop
	f.running.Add(1)
	return nil
}

// Close ends the flow, abruptly if it still runs, and waits until nothing of it is
// left. It may be called again.
func (f *Flow) Close() error {
	f.mu.Lock()
	f.closed = true
	unused := socket.FD(-1)
	if f.stop != nil {
		f.stop(flow.ErrClosed)
	} else {
		unused, f.listener = f.listener, -1
	}
	f.mu.Unlock()
	f.running.Wait()
	if unused >= 0 {
		return unused.Close()
	}
	return nil
}

// result joins what both ends counted; stopped is why the flow was not carried out to its end.
func (f *Flow) result(c *client, s *server, stopped error) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name:    f.spec.GetName(),
		Kind:    "connect",
		Client:  c.report(),
		Server:  s.report(),
		Connect: c.connects.Summary(),
		Latency: c.latencies.Summary(),
		Bytes:   c.read,
		Connections: &tcplabv1.Connections{
			Attempted: c.attempted, Made: c.made, Completed: c.completed, Failed: c.errors.GetTotal(),
			Unfinished: c.attempted - c.completed - c.disorderly - c.errors.GetTotal(),
			Accepted:   s.accepted, Served: s.completed, Rate: c.rate(), Peak: uint32(c.peak), Request: c.requests.Summary(),
			Errors: c.errors, ServerErrors: s.errors, Disorderly: c.disorderly + s.disorderly,
		},
	}
	by := string(socket.Client)
	r.Histograms = []*tcplabv1.LatencyHistogram{c.connects.Histogram("connect", by), c.latencies.Histogram("latency", by)}
	if c.uncorrected.Count() > 0 {
		r.Uncorrected = c.uncorrected.Summary()
		r.Histograms = append(r.Histograms, c.uncorrected.Histogram("uncorrected", by))
	}
	for _, end := range []struct {
		*tcplabv1.FlowEnd
		address netip.AddrPort
	}{{r.Client, c.address}, {r.Server, f.address}} {
		if end.address.IsValid() {
			end.Address = end.address.String()
		}
	}
	if took := c.lastRead.Sub(c.firstBegan); c.read > 0 && took > 0 {
		r.GoodputBps = float64(c.read) * 8 / took.Seconds()
	}
	err := stopped
	if err == nil {
		err = firstOf("connections", c.attempted, &c.end)
		if err == nil && f.plan.fault == tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
			err = firstOf("accepted connections", s.accepted, &s.end)
		}
	}
	r.Outcome = flow.OutcomeOf(err)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// firstOf is the error of an end where connections failed.
func firstOf(what string, of uint64, e *end) error {
	if e.firstErr == nil {
		return nil
	}
	return fmt.Errorf("%s: %d of %d %s failed, the first %w", e.spec.Role, e.errors.GetTotal(), of, what, e.firstErr)
}
