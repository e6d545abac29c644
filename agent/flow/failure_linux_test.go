package flow

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// signal is a Sink that tells when a sample of each end has come.
type signal struct{ client, server chan struct{} }

func newSignal() signal {
	return signal{make(chan struct{}, 1), make(chan struct{}, 1)}
}

func (s signal) Add(sample *observe.Sample) {
	c := s.client
	if sample.End == "server" {
		c = s.server
	}
	if sample.Info.BytesAcked+sample.Info.BytesReceived < 100_000 {
		return
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// underWay waits until data has been seen at both ends.
func (s signal) underWay(t *testing.T) {
	t.Helper()
	for _, c := range []chan struct{}{s.client, s.server} {
		select {
		case <-c:
		case <-time.After(limit):
			t.Fatal("no data was seen")
		}
	}
}

func TestCancelledFlowLeavesNothing(t *testing.T) {
	for name, stop := range map[string]func(cancel context.CancelFunc, f *Flow){
		"context": func(cancel context.CancelFunc, _ *Flow) { cancel() },
		"close":   func(_ context.CancelFunc, f *Flow) { f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t, false)
			seen := newSignal()
			cfg.Samples = seen
			f := listening(t, bulkFor(time.Hour), cfg)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan *tcplabv1.FlowResult, 1)
			go func() { result <- f.Run(ctx) }()
			seen.underWay(t)
			stop(cancel, f)
			r := <-result
			if !strings.Contains(r.GetError(), "stopped while exchanging data") {
				t.Errorf("error %q", r.GetError())
			}
			if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED {
				t.Errorf("outcome %s", r.GetOutcome())
			}
			if r.GetBytes() == 0 || r.GetClient().GetBytesWritten() < r.GetBytes() || r.GetGoodputBps() <= 0 || r.GetSamplesCount() < 2 {
				t.Errorf("measured so far: %v", r)
			}
			for _, end := range []*tcplabv1.FlowEnd{r.GetClient(), r.GetServer()} {
				if info := end.GetTcpInfo(); info.GetBytesAcked()+info.GetBytesReceived() < 100_000 {
					t.Errorf("%s: the last TCP_INFO is not that of the connection: %v", end.GetNode(), info)
				}
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

func TestOrderlyEndIsAFINExchange(t *testing.T) {
	cfg := nodes(t, false)
	for _, spec := range []*tcplabv1.Flow{bulkBytes(1 << 20), bulkFor(20 * time.Millisecond), transactions(3, 10, 10)} {
		before := flowtest.Counters(t, cfg.Client, cfg.Server)
		run(t, spec, cfg)
		after := flowtest.Counters(t, cfg.Client, cfg.Server)
		var timeWait int64
		for i := range after {
			delta := observe.Delta(before[i], after[i])
			if n := delta["TcpOutRsts"] + delta["TcpExtTCPAbortOnData"] + delta["TcpExtTCPAbortOnClose"] + delta["TcpExtTCPAbortOnLinger"]; n != 0 {
				t.Errorf("%v: %d resets", spec, n)
			}
			if n := delta["SockstatTCPInuse"]; n != 0 {
				t.Errorf("%v: %d sockets are left", spec, n)
			}
			timeWait += after[i]["SockstatTCPTw"] - before[i]["SockstatTCPTw"]
		}
		if timeWait != 1 {
			t.Errorf("%v: %d ends in TIME_WAIT, not 1", spec, timeWait)
		}
	}
}

func testClient(cfg Config, k kind) *client {
	return &client{half: half{flow: "f", role: "client", end: cfg.Client, kind: k, interval: DefaultSampleInterval, log: slog.New(slog.DiscardHandler)}}
}

func TestConnectionThatCannotBeMade(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	// Packets to this address are dropped without a word.
	flowtest.BlackHole(t, cfg.Client, cfg.Server, "10.88.0.0/24")
	for name, test := range map[string]struct {
		to      string
		want    error
		outcome tcplabv1.FlowOutcome
	}{
		"refused":     {"10.77.0.2:9", unix.ECONNREFUSED, tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED},
		"unreachable": {"10.99.0.1:9", unix.ENETUNREACH, tcplabv1.FlowOutcome_FLOW_OUTCOME_UNREACHABLE},
		"silent":      {"10.88.0.1:9", context.DeadlineExceeded, tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			m := testClient(cfg, bulk{size: 1}).run(ctx, netip.MustParseAddrPort(test.to))
			if !errors.Is(m.err, test.want) || !strings.Contains(m.err.Error(), test.to) {
				t.Errorf("error %v, want %v", m.err, test.want)
			}
			if got := OutcomeOf(m.err); got != test.outcome {
				t.Errorf("outcome %s, want %s", got, test.outcome)
			}
			if m.connect != 0 || m.started.IsZero() {
				t.Errorf("connect took %s from %s", m.connect, m.started)
			}
			if early := !errors.Is(test.want, context.DeadlineExceeded); early != (ctx.Err() == nil) {
				t.Errorf("the context's end is %v", ctx.Err())
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

func TestServerThatNeverAccepts(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	s := server{half: half{end: cfg.Server}}
	address, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	m := testClient(cfg, transaction{writes: []uint32{10}, reply: 1, turns: newTurns(1, 1)}).run(ctx, address)
	if !errors.Is(m.err, context.DeadlineExceeded) || m.connect == 0 || m.written != 10 {
		t.Errorf("%d bytes written, connected in %s: %v", m.written, m.connect, m.err)
	}
}

func TestClientThatNeverComes(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	s := server{half: half{end: cfg.Server, kind: bulk{size: 1}}}
	if _, err := s.listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if m := s.serve(ctx); !errors.Is(m.err, context.DeadlineExceeded) || !strings.Contains(m.err.Error(), "waiting for the client") {
		t.Errorf("error %v", m.err)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

// A client that fails takes its server with it, and the error is the client's.
func TestFirstFailureIsReported(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	f := listening(t, bulkBytes(1), cfg)
	f.streams[0].server.(*server).listener.Interrupt(unix.SHUT_RD) // the port is closed: the client is refused
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if r := f.Run(ctx); r.GetError() == "" || ctx.Err() != nil {
		t.Errorf("error %q", r.GetError())
	}
}

func TestPeerThatBreaksTheAgreement(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	for name, test := range map[string]struct {
		client, server kind
		want           error
	}{
		"too little":   {bulk{size: 100}, bulk{size: 1000}, context.Canceled},
		"too soon":     {transaction{writes: []uint32{5}, reply: 5, turns: newTurns(1, 1)}, transaction{writes: []uint32{5}, reply: 5, turns: newTurns(2, 1)}, ErrEnded},
		"wrong answer": {bulk{size: 5}, transaction{writes: []uint32{5}, reply: 5, turns: newTurns(1, 1)}, socket.ErrTooMuch},
	} {
		t.Run(name, func(t *testing.T) {
			s := server{half: testClient(cfg, test.server).half}
			s.end = cfg.Server
			address, err := s.listen()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served := make(chan measured, 1)
			go func() { served <- s.serve(ctx) }()
			asked := make(chan measured, 1)
			go func() { asked <- testClient(cfg, test.client).run(ctx, address) }()
			if errors.Is(test.want, context.Canceled) {
				cancel() // both wait for one another
			}
			if errs := errors.Join((<-asked).err, (<-served).err); !errors.Is(errs, test.want) {
				t.Errorf("errors %v, want %v", errs, test.want)
			}
		})
	}
}

func TestFlowThatMakesNoSense(t *testing.T) {
	cfg := nodes(t, false)
	for name, change := range map[string]func(*tcplabv1.Flow, *Config){
		"no kind":     func(f *tcplabv1.Flow, _ *Config) { f.Kind = nil },
		"nothing":     func(f *tcplabv1.Flow, _ *Config) { f.Kind = bulkBytes(0).Kind },
		"no time":     func(f *tcplabv1.Flow, _ *Config) { f.Kind = bulkFor(0).Kind },
		"no write":    func(f *tcplabv1.Flow, _ *Config) { f.Kind = transactions(1, 1).Kind },
		"empty write": func(f *tcplabv1.Flow, _ *Config) { f.Kind = transactions(1, 1, 0).Kind },
		"no reply":    func(f *tcplabv1.Flow, _ *Config) { f.Kind = transactions(1, 0, 1).Kind },
		"busy and idle": func(f *tcplabv1.Flow, _ *Config) {
			f.Kind = transactions(1, 1, 1).Kind
			f.GetTransaction().Rate, f.GetTransaction().ThinkTime = 1, durationpb.New(1)
		},
		"other node":    func(f *tcplabv1.Flow, _ *Config) { f.Client = "somebody" },
		"no namespace":  func(_ *tcplabv1.Flow, c *Config) { c.Server.NS = nil },
		"no address":    func(_ *tcplabv1.Flow, c *Config) { c.Server.Addr = netip.Addr{} },
		"mixed":         func(_ *tcplabv1.Flow, c *Config) { c.Server.Addr = netip.MustParseAddr("fd77::2") },
		"wrong family":  func(f *tcplabv1.Flow, _ *Config) { f.Family = tcplabv1.IpFamily_IP_FAMILY_IPV6 },
		"mapped":        func(_ *tcplabv1.Flow, c *Config) { c.Server.Addr = netip.MustParseAddr("::ffff:10.77.0.2") },
		"negative time": func(_ *tcplabv1.Flow, c *Config) { c.SampleInterval = -1 },
	} {
		spec, changed := bulkBytes(1), cfg
		change(spec, &changed)
		if _, err := New(spec, changed); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFlowOutOfOrder(t *testing.T) {
	cfg := nodes(t, false)
	f, err := New(bulkBytes(1), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Run(t.Context()); r.GetError() == "" {
		t.Error("it ran before it listened")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Listen(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("listening after Close: %v", err)
	}
	if r := f.Run(t.Context()); !strings.Contains(r.GetError(), ErrClosed.Error()) {
		t.Errorf("running after Close: %q", r.GetError())
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
