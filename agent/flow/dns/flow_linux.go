package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// DefaultTTL is how long an answer may be kept (Dns.ttl).
const DefaultTTL = time.Minute

// Config is what a dns flow is given beside its specification.
type Config struct {
	Client, Server *netns.Handle
	Address        netip.Addr              // at which the client reaches the server
	Nodes          map[string][]netip.Addr // the addresses of the lab's nodes, by name

	port uint16 // other than 53, for tests
}

// Flow is a name server, and lookups. Listen, Run and Close are called in this order, each
// once; Close may come at any time and from anywhere. The server serves until Close.
type Flow struct {
	spec *tcplabv1.Flow
	cfg  Config
	zone Zone

	mu      sync.Mutex
	server  *Server
	closed  bool
	stop    context.CancelCauseFunc // ends Run while it runs
	running sync.WaitGroup
}

// New checks the flow and touches nothing.
func New(spec *tcplabv1.Flow, cfg Config) (*Flow, error) {
	d := spec.GetDns()
	f := &Flow{spec: spec, cfg: cfg, zone: Zone{
		Names: make(map[string][]netip.Addr), TTL: DefaultTTL, Delay: d.GetDelay().AsDuration(), Lose: d.GetLose(), Silent: d.GetSilent(),
	}}
	if f.cfg.port == 0 {
		f.cfg.port = port
	}
	if d.GetTtl() != nil {
		f.zone.TTL = d.GetTtl().AsDuration()
	}
	maps.Copy(f.zone.Names, cfg.Nodes)
	for _, record := range d.GetRecords() {
		var addresses []netip.Addr
		for _, text := range record.GetAddresses() {
			if of, ok := cfg.Nodes[text]; ok {
				addresses = append(addresses, of...)
				continue
			}
			address, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("flow %s: the record %s: %q is no address, and no node that has one", spec.GetName(), record.GetName(), text)
			}
			addresses = append(addresses, address.Unmap())
		}
		f.zone.Names[record.GetName()] = addresses
	}
	return f, nil
}

// Listen starts the name server.
func (f *Flow) Listen(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := context.Cause(ctx)
	if err == nil && f.closed {
		err = flow.ErrClosed
	}
	if err == nil {
		f.server, err = serve(ctx, f.cfg.Server, f.zone, f.cfg.port)
	}
	if err != nil {
		return fmt.Errorf("flow %s: %w", f.spec.GetName(), err)
	}
	return nil
}

// Run looks the names up, one after another. It returns when the last has ended or, at the latest,
// soon after ctx or Close has ended. A lookup that fails is counted, and keeps no other
// from being made; the first is the flow's failure.
func (f *Flow) Run(ctx context.Context) *tcplabv1.FlowResult {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &measured{rcodes: make(map[string]uint32)}
	if err := f.begin(cancel); err != nil {
		return f.result(m, err)
	}
	defer f.running.Done()
	return f.result(m, f.lookUp(ctx, m))
}

func (f *Flow) begin(stop context.CancelCauseFunc) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return flow.ErrClosed
	case f.server == nil:
		return errors.New("the flow does not listen yet")
	case f.stop != nil:
		return errors.New("the flow has run already")
	}
	f.stop = stop
	f.running.Add(1)
	return nil
}

// measured is what came of the lookups.
type measured struct {
	begun, found, notFound, failed, timedOut, again, truncated uint32

	rcodes                 map[string]uint32
	latencies, uncorrected latency.Set
	err                    error // the first
}

// lookUp makes the lookups.
func (f *Flow) lookUp(ctx context.Context, m *measured) error {
	d := f.spec.GetDns()
	names, count := d.GetLookups(), uint64(d.GetCount())
	limit := f.spec.GetDuration().AsDuration()
	if count == 0 && limit == 0 {
		count = uint64(len(names))
	}
	begin := time.Now()
	for i := uint64(0); len(names) > 0 && (count == 0 || i < count); i++ {
		due := time.Now()
		if d.GetRate() > 0 {
			due = begin.Add(time.Duration(float64(i) / d.GetRate() * float64(time.Second)))
		}
		if limit > 0 && due.Sub(begin) >= limit {
			return m.err
		}
		name := names[i%uint64(len(names))]
		if err := waitUntil(ctx, due); err != nil {
			return &flow.Stopped{Doing: "waiting to look up " + name, Cause: err}
		}
		if err := f.one(ctx, m, name, due); err != nil {
			return err
		}
	}
	return m.err
}

// one makes one lookup. An error is that it was stopped.
func (f *Flow) one(ctx context.Context, m *measured, name string, due time.Time) error {
	m.begun++
	begin := time.Now()
	answer, err := Lookup(ctx, QueryOf(f.spec.GetDns().GetQuery(), f.spec.GetFamily(), Query{
		Node: f.cfg.Client, Server: f.cfg.Address, Name: name, port: f.cfg.port,
	}))
	m.again += uint32(max(0, answer.Sent-1))
	if answer.Truncated {
		m.truncated++
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return &flow.Stopped{Doing: "looking up " + name, Cause: cause}
	}
	if answer.Code != "" {
		m.rcodes[answer.Code]++
		if f.spec.GetDns().GetRate() > 0 {
			m.latencies.Add(begin.Sub(due) + answer.Took)
			m.uncorrected.Add(answer.Took)
		} else {
			m.latencies.Add(answer.Took)
		}
	}
	var wrong *net.DNSError
	switch {
	case err == nil:
		m.found++
	case errors.As(err, &wrong) && wrong.IsNotFound:
		m.notFound++
	case errors.As(err, &wrong) && wrong.IsTimeout:
		m.timedOut++
	default:
		m.failed++
	}
	if m.err == nil && err != nil {
		m.err = fmt.Errorf("lookup %d: %w", m.begun, err)
	}
	return nil
}

// QueryOf is a query as the lab says it, of a name from a node.
func QueryOf(how *tcplabv1.DnsQuery, family tcplabv1.IpFamily, q Query) Query {
	q.Timeout, q.Attempts, q.TCP = how.GetTimeout().AsDuration(), int(how.GetAttempts()), how.GetTcp()
	switch how.GetType() {
	case tcplabv1.DnsType_DNS_TYPE_A:
	case tcplabv1.DnsType_DNS_TYPE_AAAA:
		q.IPv6 = true
	default:
		q.IPv6 = family == tcplabv1.IpFamily_IP_FAMILY_IPV6
	}
	return q
}

func waitUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

func (f *Flow) result(m *measured, failed error) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name: f.spec.GetName(), Kind: "dns", Outcome: flow.OutcomeOf(failed),
		Client: &tcplabv1.FlowEnd{Node: f.spec.GetClient()}, Server: &tcplabv1.FlowEnd{Node: f.spec.GetServer()},
		Dns: &tcplabv1.DnsResult{
			Lookups: m.begun, Found: m.found, NotFound: m.notFound, Failed: m.failed, TimedOut: m.timedOut,
			Retransmissions: m.again, Truncated: m.truncated, Rcodes: m.rcodes,
		},
		Latency: m.latencies.Summary(),
	}
	if m.uncorrected.Count() > 0 {
		r.Uncorrected = m.uncorrected.Summary()
		r.Histograms = append(r.Histograms, m.uncorrected.Histogram("uncorrected", "client"))
	}
	r.Histograms = append(r.Histograms, m.latencies.Histogram("latency", "client"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		r.Dns.Queries, r.Dns.Lost = f.server.Counts()
	}
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// Close ends the lookups and the server, and waits until nothing of them is left. It may
// be called again.
func (f *Flow) Close() error {
	f.mu.Lock()
	before := f.closed
	f.closed = true
	if f.stop != nil {
		f.stop(flow.ErrClosed)
	}
	server := f.server
	f.mu.Unlock()
	f.running.Wait()
	if server == nil || before {
		return nil
	}
	return server.Close()
}
