package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow/latency"
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
	// Log takes what does not make the flow fail; nil: nothing.
	Log *slog.Logger
}

// DefaultSampleInterval is the contract's (Experiment.sample_interval).
const DefaultSampleInterval = 10 * time.Millisecond

// Flow is one flow between two nodes. Listen, Run and Close are called in this
// order, each once; Close may come at any time and from anywhere.
type Flow struct {
	spec   *tcplabv1.Flow
	client client
	server accepting

	mu      sync.Mutex
	address netip.AddrPort // the listener's; invalid before Listen
	closed  bool
	stop    context.CancelCauseFunc // ends Run while it runs
	running sync.WaitGroup
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg Config) (*Flow, error) {
	kind, err := kindOf(spec)
	if err == nil {
		err = checkEnds(spec, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("flow %s: %w", spec.GetName(), err)
	}
	common := half{
		flow:     spec.GetName(),
		kind:     kind,
		options:  spec.GetSocket(),
		limited:  spec.GetDuration().AsDuration() > 0,
		interval: cfg.SampleInterval,
		samples:  cfg.Samples,
		log:      cfg.Log,
	}
	if common.interval == 0 {
		common.interval = DefaultSampleInterval
	}
	if common.log == nil {
		common.log = slog.New(slog.DiscardHandler)
	}
	f := &Flow{spec: spec, client: client{half: common}}
	f.client.role, f.client.end = socket.Client, cfg.Client
	s := server{half: common}
	s.role, s.end = socket.Server, cfg.Server
	f.server = &s
	if fault := spec.GetFault(); fault != tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
		f.server = &faulty{s, fault}
	}
	return f, nil
}

// accepting is the server's end.
type accepting interface {
	listen() (netip.AddrPort, error)
	serve(context.Context) measured
	close() error
	report(m measured, start time.Time) *tcplabv1.FlowEnd
}

// kindOf is what the flow does, with defaults filled in.
func kindOf(spec *tcplabv1.Flow) (kind, error) {
	switch spec.GetKind().(type) {
	case *tcplabv1.Flow_Bulk:
		amount := spec.GetBulk()
		b := bulk{size: amount.GetBytes(), duration: amount.GetDuration().AsDuration()}
		if b.size == 0 && b.duration <= 0 {
			return nil, errors.New("bulk needs at least 1 byte, or a duration above 0")
		}
		return b, nil
	case *tcplabv1.Flow_Transaction:
		spec := spec.GetTransaction()
		t := transaction{
			writes:     spec.GetWrites(),
			reply:      spec.GetReply(),
			count:      max(spec.GetCount(), 1),
			thinkTime:  spec.GetThinkTime().AsDuration(),
			serverTime: spec.GetServerTime().AsDuration(),
			rate:       spec.GetRate(),
		}
		if !(t.rate >= 0) || t.rate > 0 && t.thinkTime > 0 {
			return nil, fmt.Errorf("transactions at %v a second with a think time of %s", t.rate, t.thinkTime)
		}
		if len(t.writes) == 0 || t.reply == 0 {
			return nil, errors.New("a transaction needs at least one write and a reply of at least 1 byte")
		}
		for _, size := range t.writes {
			if size == 0 || size > maxWrite {
				return nil, fmt.Errorf("a write of %d bytes: 1 to %d are possible", size, maxWrite)
			}
		}
		return t, nil
	case *tcplabv1.Flow_Burst:
		return newBurst(spec.GetBurst())
	default:
		return nil, errors.New("it is of no known kind: bulk, transaction and burst are")
	}
}

// maxWrite bounds the buffer of a transaction's write (Transaction.writes).
const maxWrite = 16 << 20

func checkEnds(spec *tcplabv1.Flow, cfg Config) error {
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

// Listen opens the server's port, so that all flows of an experiment are ready
// before any of them starts.
func (f *Flow) Listen(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil && f.closed {
		err = ErrClosed
	}
	if err == nil {
		f.address, err = f.server.listen()
	}
	if err != nil {
		return fmt.Errorf("flow %s: server: %w", f.spec.GetName(), err)
	}
	return nil
}

// Run carries the flow out: the client connects,
// both do their part, and both end the connection in order. It always returns
// what was measured; Error says what stopped the flow, if anything did. It
// returns when the flow has ended or, at the latest, soon after ctx or Close has ended it: with
// every socket closed and every goroutine gone.
func (f *Flow) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address, err := f.begin(cancel)
	if err != nil {
		return f.result(measured{err: err}, measured{}, err)
	}
	defer f.running.Done()

	type ended struct {
		role socket.Role
		measured
	}
	ends := make(chan ended, 2)
	run := func(role socket.Role, part func() measured) {
		m := part()
		ends <- ended{role, m} // before cancel: the first to fail is the first to come
		if m.err != nil {
			cancel(fmt.Errorf("the %s failed: %w", role, m.err))
		} else if role == socket.Client && f.spec.GetFault() != tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
			cancel(errors.New("the client has ended")) // for which a faulty server waits
		}
	}
	go run(socket.Server, func() measured { return f.server.serve(ctx) })
	go run(socket.Client, func() measured { return f.client.run(ctx, address) })

	var client, server measured
	var failed error
	for range 2 {
		e := <-ends
		if e.role == socket.Client {
			client = e.measured
		} else {
			server = e.measured
		}
		if failed == nil && e.err != nil {
			failed = fmt.Errorf("%s: %w", e.role, e.err)
		}
	}
	return f.result(client, server, failed)
}

// begin marks the flow as running.
func (f *Flow) begin(stop context.CancelCauseFunc) (netip.AddrPort, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return netip.AddrPort{}, ErrClosed
	case !f.address.IsValid():
		return netip.AddrPort{}, errors.New("the flow does not listen yet")
	case f.stop != nil:
		return netip.AddrPort{}, errors.New("the flow has run already")
	}
	if d := f.spec.GetDuration().AsDuration(); d > 0 {
		f.client.until = time.Now().Add(d)
	}
	f.stop = stop
	f.running.Add(1)
	return f.address, nil
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
	return f.server.close()
}

// result joins what both ends measured.
func (f *Flow) result(client, server measured, failed error) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name:         f.spec.GetName(),
		Kind:         f.client.kind.name(),
		Client:       f.client.report(client, client.started),
		Server:       f.server.report(server, client.started),
		Latency:      client.latencies.Summary(),
		SamplesCount: client.series.Count + server.series.Count,
	}
	if client.uncorrected.Count() > 0 {
		r.Uncorrected = client.uncorrected.Summary()
	}
	r.Writes = timings(client, server)
	if len(r.Writes) > 0 {
		var delays latency.Set
		for i, span := range server.arrived {
			delays.Add(span.end.Sub(client.wrote[i].begin))
		}
		r.Latency = delays.Summary()
	}
	var connects latency.Set
	if client.connect > 0 {
		connects.Add(client.connect)
	}
	r.Connect = connects.Summary()
	receiver := client
	if f.client.kind.forward() {
		receiver = server
	}
	r.Bytes = receiver.read
	if took := receiver.lastRead.Sub(client.started); r.Bytes > 0 && took > 0 {
		r.GoodputBps = float64(r.Bytes) * 8 / took.Seconds()
	}
	r.Outcome = OutcomeOf(failed)
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// report is one end as the contract sends it. Times count from start.
func (h *half) report(m measured, start time.Time) *tcplabv1.FlowEnd {
	end := &tcplabv1.FlowEnd{
		Node:         h.end.Node,
		BytesWritten: m.written,
		BytesRead:    m.read,
		Congestion:   m.congestion,
		CwndSeries:   m.series.Changes(start),
		Socket:       m.socket,
	}
	if m.address.IsValid() {
		end.Address = m.address.String()
	}
	if m.series.Last.State != 0 {
		end.TcpInfo = m.series.Last.Proto()
	}
	return end
}
