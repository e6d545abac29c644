package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// End is where one end of a flow is.
type End = socket.End

// Config is what a flow is given beside its specification.
type Config struct {
	Client, Server End
	// SampleInterval is how often TCP_INFO of each end is read. 0 means 10 ms.
	SampleInterval time.Duration
	// Samples takes every sample; may be nil.
	Samples observe.Sink
	// Sampler reads the flow's sockets; nil: one for each of them.
	Sampler *observe.Sampler
	// SampleCongestion has each sample say what the congestion control does, where it says anything. The last
	// of all does so anyway.
	SampleCongestion bool
	// Log takes what does not make the flow fail; nil: nothing.
	Log *slog.Logger
}

// DefaultSampleInterval is the contract's (Experiment.sample_interval).
const DefaultSampleInterval = 10 * time.Millisecond

// Flow is one flow between two nodes. Listen, Run and Close are called in this
// order, each once; Close may come at any time and from anywhere.
type Flow struct {
	spec    *tcplabv1.Flow
	streams []*connection // one, but for a bulk or transactions of several
	steady  *steadiness   // nil: nobody asks

	mu      sync.Mutex
	ready   bool // it listens
	closed  bool
	stop    context.CancelCauseFunc // ends Run while it runs
	running sync.WaitGroup
}

// connection is one connection of a flow, with its two ends.
type connection struct {
	client  client
	server  accepting
	address netip.AddrPort // the server's, once it listens
}

// accepting is the server's end.
type accepting interface {
	listen() (netip.AddrPort, error)
	serve(context.Context) measured
	close() error
	report(m measured, start time.Time) *tcplabv1.FlowEnd
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg Config) (*Flow, error) {
	kinds, err := kindsOf(spec)
	if err == nil {
		err = cfg.Check(spec)
	}
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", spec.GetName(), err)
	}
	f := &Flow{spec: spec}
	for i, kind := range kinds {
		common := half{
			flow: spec.GetName(), samplesOf: spec.GetName(), kind: kind, options: spec.GetSocket(),
			duration: spec.GetDuration().AsDuration(), interval: cfg.SampleInterval, samples: cfg.Samples, log: cfg.Log,
			sampler: cfg.Sampler, detailed: cfg.SampleCongestion,
		}
		if len(kinds) > 1 {
			common.samplesOf = fmt.Sprintf("%s[%d]", spec.GetName(), i)
		}
		if common.interval == 0 {
			common.interval = DefaultSampleInterval
		}
		if common.log == nil {
			common.log = slog.New(slog.DiscardHandler)
		}
		f.streams = append(f.streams, newConnection(common, cfg, spec.GetFault()))
		if b, ok := kind.(bulk); ok {
			f.steady = b.steady // the same of all
		}
	}
	return f, nil
}

func newConnection(common half, cfg Config, fault tcplabv1.FlowFault) *connection {
	// Streams of one flow are told apart.
	cfg.Client.Flow, cfg.Server.Flow = common.samplesOf, common.samplesOf
	c := &connection{client: client{common}}
	c.client.role, c.client.end = socket.Client, cfg.Client
	s := server{half: common}
	s.role, s.end = socket.Server, cfg.Server
	if fault == tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
		c.server = &s
	} else {
		c.server = &faulty{s, fault}
	}
	return c
}

// kindsOf is what each connection of the flow does, with defaults filled in.
func kindsOf(spec *tcplabv1.Flow) ([]kind, error) {
	var one kind
	var err error
	switch spec.GetKind().(type) {
	case *tcplabv1.Flow_Bulk:
		return newBulks(spec.GetBulk())
	case *tcplabv1.Flow_Transaction:
		return newTransactions(spec.GetTransaction())
	case *tcplabv1.Flow_Burst:
		one, err = newBurst(spec.GetBurst())
	default:
		return nil, errors.New("it is of no known kind: bulk, transaction and burst are")
	}
	return []kind{one}, err
}

// maxWrite bounds the buffer of a transaction's write (Transaction.writes).
const maxWrite = 16 << 20

// Check checks that the ends are those of the flow, and can be used.
func (cfg *Config) Check(spec *tcplabv1.Flow) error {
	for _, end := range []struct {
		End
		role, node string
	}{
		{cfg.Client, "client", spec.GetClient()},
		{cfg.Server, "server", spec.GetServer()},
	} {
		switch {
		case end.Node != end.node:
			return fmt.Errorf("the %s is %q, and the end given for it is %q", end.role, end.node, end.Node)
		case end.NS == nil:
			return fmt.Errorf("the %s has no namespace", end.role)
		case !end.Addr.IsValid() || end.Addr.Zone() != "" || end.Addr.Is4In6():
			return fmt.Errorf("the %s's address %q is not a plain IPv4 or IPv6 address", end.role, end.Addr)
		case end.Addr.Is6() != (spec.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6):
			return fmt.Errorf("the %s's address %s is not of the flow's family (%s)", end.role, end.Addr, spec.GetFamily())
		}
	}
	if cfg.SampleInterval < 0 {
		return fmt.Errorf("a sample interval of %s", cfg.SampleInterval)
	}
	return nil
}

// Listen opens the server's ports, so that all flows of an experiment are ready
// before any of them starts.
func (f *Flow) Listen(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil && f.closed {
		err = ErrClosed
	}
	for _, c := range f.streams {
		if err == nil {
			c.address, err = c.server.listen()
		}
	}
	if err != nil {
		return fmt.Errorf("flow %s: server: %w", f.spec.GetName(), err)
	}
	f.ready = true
	return nil
}

// ended is what one end of a connection has measured.
type ended struct {
	stream int
	role   socket.Role
	measured
}

// Run carries the flow out: the client connects,
// both do their part, and both end the connection in order. It always returns
// what was measured; Error says what stopped the flow, if anything did. It
// returns when the flow has ended or, at the latest, soon after ctx or Close has ended it: with
// every socket closed and every goroutine gone.
func (f *Flow) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]connectionResult, len(f.streams))
	if err := f.begin(cancel); err != nil {
		return f.result(results, err)
	}
	defer f.running.Done()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if f.steady != nil {
			f.steady.watch(ctx)
		}
	}()

	ends := make(chan ended, 2*len(f.streams))
	run := func(stream int, role socket.Role, part func() measured) {
		m := part()
		ends <- ended{stream, role, m} // before cancel: the first to fail is the first to come
		if m.err != nil {
			cancel(fmt.Errorf("the %s failed: %w", role, m.err))
		} else if role == socket.Client && f.spec.GetFault() != tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
			cancel(errors.New("the client has ended")) // for which a faulty server waits
		}
	}
	for i, c := range f.streams {
		go run(i, socket.Server, func() measured { return c.server.serve(ctx) })
		go run(i, socket.Client, func() measured { return c.client.run(ctx, c.address) })
	}
	var failed error
	for range cap(ends) {
		e := <-ends
		r := &results[e.stream]
		if e.role == socket.Client {
			r.client = e.measured
		} else {
			r.server = e.measured
		}
		if e.err == nil {
			continue
		}
		err := fmt.Errorf("%s: %w", e.role, e.err)
		r.failed, failed = first(r.failed, err), first(failed, err)
	}
	cancel(nil)
	<-watched
	return f.result(results, failed)
}

// begin marks the flow as running.
func (f *Flow) begin(stop context.CancelCauseFunc) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return ErrClosed
	case !f.ready:
		return errors.New("the flow does not listen yet")
	case f.stop != nil:
		return errors.New("the flow has run already")
	}
	f.stop = stop
	f.running.Add(1)
	return nil
}

// Close ends the flow, abruptly if it still runs, and waits until nothing of it
// is left. It may be called again.
func (f *Flow) Close() error {
	f.mu.Lock()
	f.closed = true
	if f.stop != nil {
		f.stop(ErrClosed)
	}
	f.mu.Unlock()
	f.running.Wait()
	var errs []error
	for _, c := range f.streams {
		errs = append(errs, c.server.close())
	}
	return errors.Join(errs...)
}
