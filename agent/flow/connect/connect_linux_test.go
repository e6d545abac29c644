package connect

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when a flow that should long have ended is given up.
const limit = 30 * time.Second

func nodes(t testing.TB) flow.Config {
	t.Helper()
	client, server := flowtest.Nodes(t, false)
	return flow.Config{Client: client, Server: server, Log: slog.New(slog.DiscardHandler)}
}

func connections(c *tcplabv1.Connect) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "c", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Connect{Connect: c}}
}

func listening(t testing.TB, spec *tcplabv1.Flow, cfg flow.Config) *Flow {
	t.Helper()
	f, err := New(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// result runs a flow, however it ends.
func result(t testing.TB, spec *tcplabv1.Flow, cfg flow.Config) *tcplabv1.FlowResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := listening(t, spec, cfg).Run(ctx)
	if ctx.Err() != nil {
		t.Fatalf("the flow did not end: %s", r.GetError())
	}
	return r
}

func run(t testing.TB, spec *tcplabv1.Flow, cfg flow.Config) *tcplabv1.FlowResult {
	t.Helper()
	r := result(t, spec, cfg)
	if r.GetError() != "" || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
		t.Fatalf("%s: %s", r.GetOutcome(), r.GetError())
	}
	return r
}

// Every way to end a connection, with and without exchanges, alone and at once: both ends count the same,
// the kernel's TIME_WAIT is where it belongs, and resets are those that were asked for.
func TestConnectionsEndAsAsked(t *testing.T) {
	const count = 60
	for _, end := range []tcplabv1.ConnectClose{
		tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT, tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER,
		tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT_ABORT, tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER_ABORT,
	} {
		for _, requests := range []uint32{0, 1, 3} {
			for _, concurrency := range []uint32{1, 7} {
				t.Run(end.String()+string('0'+rune(requests))+string('0'+rune(concurrency)), func(t *testing.T) {
					flowtest.Leakless(t)
					cfg := nodes(t)
					c := &tcplabv1.Connect{Count: count, Concurrency: concurrency, Requests: requests, Close: end}
					if requests > 0 {
						c.Request, c.Reply = 100, 3000
					}
					before := flowtest.Counters(t, cfg.Client, cfg.Server)
					r := run(t, connections(c), cfg)
					after := flowtest.Counters(t, cfg.Client, cfg.Server)
					got := r.GetConnections()
					if got.GetAttempted() != count || got.GetMade() != count || got.GetCompleted() != count || got.GetAccepted() != count ||
						got.GetServed() != count || got.GetFailed()+got.GetUnfinished()+got.GetDisorderly()+got.GetServerErrors().GetTotal() != 0 || got.GetPeak() > concurrency {
						t.Errorf("%v", got)
					}
					if n := r.GetConnect().GetCount(); n != count || r.GetLatency().GetCount() != count || got.GetRequest().GetCount() != count*requests {
						t.Errorf("%d handshakes, %d connections, %d requests", n, r.GetLatency().GetCount(), got.GetRequest().GetCount())
					}
					if want := uint64(count * requests); r.GetClient().GetBytesWritten() != want*100 || r.GetServer().GetBytesRead() != want*100 ||
						r.GetServer().GetBytesWritten() != want*3000 || r.GetBytes() != want*3000 {
						t.Errorf("bytes: %v, %v", r.GetClient(), r.GetServer())
					}
					var timeWait [2]int64
					var resets int64
					for i := range after {
						timeWait[i] = after[i]["SockstatTCPTw"] - before[i]["SockstatTCPTw"]
						delta := observe.Delta(before[i], after[i])
						resets += delta["TcpOutRsts"]
						if delta["TcpExtTCPAbortOnTimeout"] != 0 {
							t.Error("a connection timed out")
						}
					}
					want, wantResets := [2]int64{}, int64(0)
					switch end {
					case tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT:
						want[0] = count
					case tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER:
						want[1] = count
					default:
						wantResets = count
					}
					if timeWait != want || resets != wantResets {
						t.Errorf("in TIME_WAIT %v, not %v; %d resets, not %d", timeWait, want, resets, wantResets)
					}
					flowtest.NoSockets(t, cfg.Client, cfg.Server)
				})
			}
		}
	}
}

func TestRateIsKept(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	const count, apart = 21, 5 * time.Millisecond
	begin := time.Now()
	r := run(t, connections(&tcplabv1.Connect{Count: count, Rate: 1 / apart.Seconds()}), cfg)
	if took := time.Since(begin); took < (count-1)*apart {
		t.Errorf("%d connections took %s", count, took)
	}
	if n := r.GetUncorrected().GetCount(); n != count || r.GetLatency().GetP50().AsDuration() < r.GetUncorrected().GetP50().AsDuration() {
		t.Errorf("latencies %v, uncorrected %v", r.GetLatency(), r.GetUncorrected())
	}
}

// One that is due while as many as may be are under way begins late, and its latency counts from when it was due.
func TestLatencyCountsFromWhenDue(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	const count, hold = 8, 20 * time.Millisecond
	r := run(t, connections(&tcplabv1.Connect{Count: count, Rate: 1000, Concurrency: 1, Hold: durationpb.New(hold)}), cfg)
	// The last is due after 7 ms and begins when 7 others have been held.
	if most := r.GetLatency().GetMax().AsDuration(); most < (count-1)*(hold-time.Millisecond) {
		t.Errorf("the greatest latency is %s", most)
	}
	if most := r.GetUncorrected().GetP50().AsDuration(); most >= hold {
		t.Errorf("the uncorrected one is %s", most)
	}
	if r.GetConnections().GetPeak() != 1 {
		t.Errorf("%d at once", r.GetConnections().GetPeak())
	}
}

func TestDurationEndsTheBeginning(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	const duration, hold = 50 * time.Millisecond, 30 * time.Millisecond
	begin := time.Now()
	spec := connections(&tcplabv1.Connect{Hold: durationpb.New(hold), Concurrency: 3})
	spec.Duration = durationpb.New(duration)
	r := run(t, spec, cfg)
	took := time.Since(begin)
	// Rounds of three: at 0 and after the first hold.
	if got := r.GetConnections(); got.GetCompleted() != got.GetAttempted() || got.GetAttempted() < 3 || got.GetAttempted() > 6 || got.GetPeak() != 3 {
		t.Errorf("%v", got)
	}
	if took < hold {
		t.Errorf("it took %s", took)
	}
}

func TestHeldConnectionsAreOpenAtOnce(t *testing.T) {
	for _, end := range []tcplabv1.ConnectClose{tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT, tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER} {
		flowtest.Leakless(t)
		cfg := nodes(t)
		const count = 300
		r := run(t, connections(&tcplabv1.Connect{Count: count, Concurrency: count, Hold: durationpb.New(time.Second), Requests: 1, Request: 1, Reply: 1, Close: end}), cfg)
		if got := r.GetConnections(); got.GetPeak() != count || got.GetCompleted() != count || got.GetServed() != count {
			t.Errorf("%v", got)
		}
	}
}

// Requests and replies larger than the buffers, at both ends.
func TestLargeMessages(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	spec := connections(&tcplabv1.Connect{Count: 4, Concurrency: 2, Requests: 2, Request: 3 << 20, Reply: 5 << 20})
	spec.Socket = &tcplabv1.SocketOptions{SendBuffer: 100_000, ReceiveBuffer: 100_000, Rcvlowat: 50_000}
	r := run(t, spec, cfg)
	if r.GetBytes() != 8*5<<20 || r.GetServer().GetBytesRead() != 8*3<<20 || r.GetGoodputBps() <= 0 {
		t.Errorf("%v", r)
	}
	if r.GetClient().GetSocket().GetSendBuffer() != 100_000 || r.GetServer().GetSocket().GetReceiveBuffer() != 100_000 {
		t.Errorf("socket options: %v, %v", r.GetClient().GetSocket(), r.GetServer().GetSocket())
	}
}

func TestSix(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	cfg.Client.Addr, cfg.Server.Addr = flowtest.Six()
	spec := connections(&tcplabv1.Connect{Count: 10, Requests: 1, Request: 10, Reply: 10})
	spec.Family = tcplabv1.IpFamily_IP_FAMILY_IPV6
	if r := run(t, spec, cfg); r.GetConnections().GetServed() != 10 {
		t.Errorf("%v", r)
	}
}

// The first connection fetches a cookie; the others send their requests with the SYN.
func TestFastOpen(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	for _, end := range []flow.End{cfg.Client, cfg.Server} {
		flowtest.SetSysctl(t, end.NS, "net/ipv4/tcp_fastopen", "3")
	}
	spec := connections(&tcplabv1.Connect{Count: 5, Requests: 1, Request: 100, Reply: 100})
	spec.Socket = &tcplabv1.SocketOptions{FastOpen: true, FastOpenQueue: 10}
	before := flowtest.Counters(t, cfg.Client, cfg.Server)
	r := run(t, spec, cfg)
	after := flowtest.Counters(t, cfg.Client, cfg.Server)
	if n := observe.Delta(before[0], after[0])["TcpExtTCPFastOpenActive"]; n != 4 || r.GetConnections().GetServed() != 5 {
		t.Errorf("%d with data in the SYN; %v", n, r.GetConnections())
	}
}
