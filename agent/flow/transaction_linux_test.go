package flow

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
)

func TestTransactions(t *testing.T) {
	leakless(t)
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
	leakless(t)
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

func TestStartIsKept(t *testing.T) {
	spec := transactions(1, 1, 1)
	spec.Start = durationpb.New(50 * time.Millisecond)
	begin := time.Now()
	run(t, spec, nodes(t, false))
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("all took %s", took)
	}
}
