package flow

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
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
