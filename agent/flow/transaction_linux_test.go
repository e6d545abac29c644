package flow

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestTransactions(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	const count, reply = 50, 3000
	r := run(t, transactions(count, reply, 100, 200), cfg)
	client, server := r.GetClient(), r.GetServer()
	if client.GetBytesWritten() != count*300 || server.GetBytesRead() != count*300 ||
		server.GetBytesWritten() != count*reply || client.GetBytesRead() != count*reply || r.GetBytes() != count*reply {
		t.Errorf("%v", r)
	}
	l := r.GetLatency()
	if l.GetCount() != count || l.GetMin().AsDuration() <= 0 || l.GetMin().AsDuration() > l.GetP50().AsDuration() || l.GetP99().AsDuration() > l.GetMax().AsDuration() {
		t.Errorf("latency %v", l)
	}
	// Each write is a segment of its own, for nothing is read between them and
	// TCP_NODELAY is on; a reply of 3000 bytes is three.
	info := client.GetTcpInfo()
	if out := info.GetDataSegsOut() - info.GetTotalRetrans(); out != 2*count {
		t.Errorf("%d segments of requests", out)
	}
	if in := info.GetDataSegsIn(); in < 3*count {
		t.Errorf("%d segments of replies", in)
	}
}

func TestThinkTimesAreKept(t *testing.T) {
	flowtest.Leakless(t)
	spec := transactions(4, 1, 1)
	const think, serve = 30 * time.Millisecond, 20 * time.Millisecond
	spec.GetTransaction().ThinkTime, spec.GetTransaction().ServerTime = durationpb.New(think), durationpb.New(serve)
	begin := time.Now()
	r := run(t, spec, nodes(t, false))
	if took := time.Since(begin); took < 3*think+4*serve {
		t.Errorf("all took %s", took)
	}
	if least := r.GetLatency().GetMin().AsDuration(); least < serve {
		t.Errorf("a latency of %s with a server that takes %s", least, serve)
	}
}

func TestOpenLoopCountsFromWhenRequestsWereDue(t *testing.T) {
	flowtest.Leakless(t)
	const count, serve = 10, 20 * time.Millisecond
	spec := transactions(count, 1, 1)
	spec.GetTransaction().ServerTime = durationpb.New(serve)
	spec.GetTransaction().Rate = 2 / serve.Seconds()
	r := run(t, spec, nodes(t, false))
	if n := r.GetUncorrected().GetCount(); n != count || r.GetLatency().GetCount() != count {
		t.Fatalf("%d and %d latencies", r.GetLatency().GetCount(), n)
	}
	// The tenth is due after 9 halves of the server's time and ends after 10 wholes.
	if most := r.GetLatency().GetMax().AsDuration(); most < count*serve-(count-1)*serve/2 {
		t.Errorf("the greatest latency is %s", most)
	}
	if p50 := r.GetUncorrected().GetP50().AsDuration(); p50 < serve || p50 >= r.GetLatency().GetP50().AsDuration() {
		t.Errorf("the uncorrected median is %s, the corrected one %s", p50, r.GetLatency().GetP50().AsDuration())
	}
}

// Requests that are answered in time begin when they are due, and not before.
func TestOpenLoopKeepsItsRate(t *testing.T) {
	flowtest.Leakless(t)
	const count, apart = 11, 10 * time.Millisecond
	spec := transactions(count, 1, 1)
	spec.GetTransaction().Rate = 1 / apart.Seconds()
	begin := time.Now()
	r := run(t, spec, nodes(t, false))
	if took := time.Since(begin); took < (count-1)*apart {
		t.Errorf("%d requests took %s", count, took)
	}
	if l := r.GetLatency().GetP50().AsDuration(); l >= apart {
		t.Errorf("the median latency is %s", l)
	}
	if r := run(t, transactions(2, 1, 1), nodes(t, false)); r.GetUncorrected() != nil {
		t.Errorf("a closed loop has uncorrected latencies: %v", r.GetUncorrected())
	}
}

func TestTransactionsOnSeveralConnections(t *testing.T) {
	flowtest.Leakless(t)
	const connections, count, reply, serve = 8, 203, 3000, 5 * time.Millisecond
	cfg := nodes(t, false)
	spec := transactions(count, reply, 100, 200)
	spec.GetTransaction().Connections, spec.GetTransaction().ServerTime = connections, durationpb.New(serve)
	r := run(t, spec, cfg)
	// What they took one by one is more than what they took together, by as much as there are connections.
	took := time.Duration(float64(r.GetBytes()) * 8 / r.GetGoodputBps() * float64(time.Second))
	if each := r.GetLatency().GetMean().AsDuration(); count*each < 2*took {
		t.Errorf("%d transactions of %s took %s: one after another", count, each, took)
	}
	client, server := r.GetClient(), r.GetServer()
	if client.GetBytesWritten() != count*300 || server.GetBytesRead() != count*300 ||
		server.GetBytesWritten() != count*reply || client.GetBytesRead() != count*reply || r.GetBytes() != count*reply {
		t.Errorf("%v", r)
	}
	if r.GetLatency().GetCount() != count || r.GetConnect().GetCount() != connections || len(r.GetStreams()) != connections || r.GetUncorrected() != nil {
		t.Fatalf("%d latencies, %d connections, %d of them told", r.GetLatency().GetCount(), r.GetConnect().GetCount(), len(r.GetStreams()))
	}
	var sum, samples uint64
	for i, s := range r.GetStreams() {
		n := uint64(s.GetLatency().GetCount())
		sum += n
		samples += s.GetSamplesCount()
		if n == 0 || s.GetBytes() != n*reply || s.GetServer().GetBytesRead() != n*300 || s.GetConnect().GetCount() != 1 ||
			s.GetClient().GetTcpInfo().GetBytesAcked() < n*300 || s.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
			t.Errorf("connection %d: %v", i, s)
		}
	}
	if sum != count || samples != r.GetSamplesCount() {
		t.Errorf("%d transactions and %d samples of the connections, %d of the flow", sum, samples, r.GetSamplesCount())
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

// With as many connections as the server's time asks for, an open loop keeps the rate that one connection cannot;
// with one fewer, requests wait for a free one and the waiting counts.
func TestOpenLoopSharesItsConnections(t *testing.T) {
	const count, serve = 40, 40 * time.Millisecond
	load := func(t *testing.T, connections uint32) *tcplabv1.FlowResult {
		flowtest.Leakless(t)
		spec := transactions(count, 1, 1)
		spec.GetTransaction().Connections, spec.GetTransaction().ServerTime = connections, durationpb.New(serve)
		spec.GetTransaction().Rate = 2 / serve.Seconds()
		return run(t, spec, nodes(t, false))
	}
	t.Run("enough", func(t *testing.T) {
		r := load(t, 4)
		if l := r.GetLatency(); l.GetCount() != count || r.GetUncorrected().GetCount() != count || l.GetP50().AsDuration() >= 2*serve {
			t.Errorf("latency %v, uncorrected %v", l, r.GetUncorrected())
		}
	})
	t.Run("too few", func(t *testing.T) {
		r := load(t, 1)
		// The last is due after count-1 halves of the server's time and ends after count wholes.
		if most := r.GetLatency().GetMax().AsDuration(); most < count*serve-(count-1)*serve/2 || r.GetUncorrected().GetP50().AsDuration() >= 2*serve {
			t.Errorf("the greatest latency is %s, the uncorrected median %v", most, r.GetUncorrected())
		}
	})
}

// Connections that are told to stop after a time end in order, each having answered what it asked.
func TestTransactionsOnSeveralConnectionsForATime(t *testing.T) {
	flowtest.Leakless(t)
	spec := transactions(10_000_000, 50, 10)
	spec.GetTransaction().Connections = 3
	spec.Duration = durationpb.New(100 * time.Millisecond)
	r := run(t, spec, nodes(t, false))
	n := uint64(r.GetLatency().GetCount())
	if n < 3 || r.GetClient().GetBytesRead() != n*50 || r.GetServer().GetBytesRead() != n*10 || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
		t.Errorf("%d transactions: %v", n, r)
	}
}

// Whatever goes wrong on one connection ends those that wait, too, and has its name.
func TestFaultOfTransactionsOnSeveralConnections(t *testing.T) {
	for fault, want := range map[tcplabv1.FlowFault]tcplabv1.FlowOutcome{
		tcplabv1.FlowFault_FLOW_FAULT_REFUSE: tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED,
		tcplabv1.FlowFault_FLOW_FAULT_RESET:  tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET,
		tcplabv1.FlowFault_FLOW_FAULT_DEAF:   tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
	} {
		t.Run(want.String(), func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t, true)
			spec := transactions(100, 10, 10)
			spec.Fault, spec.GetTransaction().Connections = fault, 5
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r := listening(t, spec, cfg).Run(ctx)
			if r.GetOutcome() != want || len(r.GetStreams()) != 5 || r.GetLatency().GetCount() != 0 {
				t.Errorf("%v", r)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

func TestTooManyConnectionsForTheTransactions(t *testing.T) {
	spec := transactions(3, 1, 1)
	spec.GetTransaction().Connections = 4
	if _, err := New(spec, nodes(t, false)); err == nil || !strings.Contains(err.Error(), "3 transactions are less than one for each of 4 connections") {
		t.Error(err)
	}
}
