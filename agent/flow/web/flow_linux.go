package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what an http flow is given beside its specification.
type Config struct {
	flow.Config
	// Via are the nodes of its proxies, in their order.
	Via []Hop
}

// Hop is where a proxy is.
type Hop struct {
	flow.End            // with the address at which the hop before reaches it
	Out      netip.Addr // from which it reaches the next
}

// Flow is one http flow. Listen, Run and Close are called in this order, each once; Close may
// come at any time and from anywhere.
type Flow struct {
	spec    *tcplabv1.Flow
	plan    *plan
	cfg     Config
	client  *client
	server  *server
	proxies []*proxy

	mu        sync.Mutex
	listening bool
	closed    bool
	stop      context.CancelCauseFunc // ends Run while it runs
	running   sync.WaitGroup
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg Config) (*Flow, error) {
	p, err := newPlan(spec.GetHttp())
	if err == nil {
		err = cfg.Check(spec)
	}
	if err == nil {
		err = checkHops(spec, cfg.Via)
	}
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", spec.GetName(), err)
	}
	if cfg.SampleInterval == 0 {
		cfg.SampleInterval = flow.DefaultSampleInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Flow{spec: spec, plan: p, cfg: cfg}
	f.client = &client{side: f.side("client", socket.Client, cfg.Client), host: spec.GetServer()}
	f.server = newServer(f.side("server", socket.Server, cfg.Server))
	f.server.fault = spec.GetFault()
	if d := spec.GetDuration().AsDuration(); d > 0 {
		f.client.lasts = d
	} else {
		f.client.lasts = p.duration
	}
	for i, hop := range cfg.Via {
		declared := spec.GetHttp().GetVia()[i]
		p := newProxy(f.side("proxy "+hop.Node, socket.Server, hop.End))
		p.dumb = declared.GetKind() == tcplabv1.HttpProxyKind_HTTP_PROXY_KIND_DUMB
		p.idle = declared.GetIdleTimeout().AsDuration()
		p.via = p.plan.version.String()[len("HTTP/"):] + " " + hop.Node
		p.out = socket.Spec{End: hop.End, Role: socket.Client, Options: spec.GetSocket()}
		p.out.Addr = hop.Out
		f.proxies = append(f.proxies, p)
	}
	return f, nil
}

func (f *Flow) side(name string, role socket.Role, end flow.End) side {
	return side{
		flow:     f.spec.GetName(),
		name:     name,
		spec:     socket.Spec{End: end, Role: role, Options: f.spec.GetSocket()},
		plan:     f.plan,
		interval: f.cfg.SampleInterval,
		samples:  f.cfg.Samples,
		sampler:  f.cfg.Sampler,
		detailed: f.cfg.SampleCongestion,
		log:      f.cfg.Log,
	}
}

func checkHops(spec *tcplabv1.Flow, hops []Hop) error {
	via := spec.GetHttp().GetVia()
	if len(hops) != len(via) {
		return fmt.Errorf("there are %d proxies, and %d nodes are given for them", len(via), len(hops))
	}
	for i, hop := range hops {
		if hop.Node != via[i].GetNode() || hop.NS == nil || !hop.Addr.IsValid() || hop.Out.Is6() != hop.Addr.Is6() {
			return fmt.Errorf("the proxy at %s is given as one at %q, %s and %s", via[i].GetNode(), hop.Node, hop.Addr, hop.Out)
		}
	}
	return nil
}

// Listen opens the ports of the server and the proxies, so that all flows of an
// experiment are ready before any of them starts.
func (f *Flow) Listen(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil && f.closed {
		err = flow.ErrClosed
	}
	if err == nil {
		err = f.server.listen()
	}
	next := f.server.address
	for i := len(f.proxies) - 1; i >= 0 && err == nil; i-- {
		f.proxies[i].next = next
		err = f.proxies[i].listen()
		next = f.proxies[i].address
	}
	if err != nil {
		return fmt.Errorf("flow %s: server: %w", f.spec.GetName(), err)
	}
	f.client.to = next
	f.listening = true
	return nil
}

// Address is where the server listens, after Listen.
func (f *Flow) Address() netip.AddrPort { return f.server.address }

// station is a loop that waits for connections, under way.
type station struct {
	*listening
	name    string
	finish  func()
	started chan *loop.Loop // takes the loop, once it is there
	done    chan struct{}
	err     error // once done is closed
}

// Run carries the flow out: the client fetches, then the
// proxies and the server end. It always returns what was measured; Error says what stopped the
// flow, or the first thing that the client did not get. It returns when the flow has ended or,
// at the latest, soon after ctx or Close has ended it: with every socket closed and every goroutine
// gone.
func (f *Flow) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := f.starting(cancel); err != nil {
		return f.result(err)
	}
	defer f.running.Done()
	if f.plan.two {
		return f.runTwo(ctx)
	}
	var stations []*station
	for _, p := range f.proxies {
		stations = append(stations, &station{listening: &p.listening, name: p.name, finish: p.finish})
	}
	stations = append(stations, &station{listening: &f.server.listening, name: "server", finish: f.server.finish})
	for _, s := range stations {
		s.started, s.done = make(chan *loop.Loop, 1), make(chan struct{})
		go func() {
			defer close(s.done)
			s.err = loop.Run(ctx, s.spec.NS, func(l *loop.Loop) error {
				s.started <- l
				return s.start(l)
			})
			s.stop()
			if s.err != nil && ctx.Err() == nil {
				s.err = fmt.Errorf("%s: %w", s.name, s.err)
				cancel(s.err)
			}
		}()
	}
	err := f.fetch(ctx)
	if err != nil {
		cancel(err) // what the others still do is for nobody
	}
	for _, s := range stations {
		select {
		case l := <-s.started:
			l.Post(s.finish)
		case <-s.done:
		}
		<-s.done
		if err != nil && errors.Is(context.Cause(ctx), s.err) {
			err = s.err // it was the first
		}
	}
	if err == nil {
		err = f.client.seen.failure
	}
	return f.result(err)
}

// fetch is the client's part.
func (f *Flow) fetch(ctx context.Context) error {
	err := loop.Run(ctx, f.cfg.Client.NS, f.client.start)
	f.client.stop()
	switch {
	case ctx.Err() != nil:
		return &flow.Stopped{Doing: "fetching", Cause: context.Cause(ctx)}
	case err != nil:
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

// starting marks the flow as running.
func (f *Flow) starting(stop context.CancelCauseFunc) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return flow.ErrClosed
	case !f.listening:
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
		f.stop(flow.ErrClosed)
	}
	f.mu.Unlock()
	f.running.Wait()
	err := f.server.unlisten()
	for _, p := range f.proxies {
		err = errors.Join(err, p.unlisten())
	}
	return err
}

// series is what an end's first connection was seen to do, as the contract has it.
func (w *witness) report(s *side, start time.Time) *tcplabv1.FlowEnd {
	end := &tcplabv1.FlowEnd{
		Node:         s.spec.Node,
		BytesWritten: s.total.written,
		BytesRead:    s.total.read,
		Congestion:   w.congestion,
		CwndSeries:   w.series.Changes(start),
		Socket:       w.options,
	}
	if w.address.IsValid() {
		end.Address = w.address.String()
	}
	if w.series.Last.State != 0 {
		end.TcpInfo = w.series.Last.Proto()
	}
	return end
}
