package web

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What goes wrong as the lab has it: what the client notices, and what not.
func TestCutShortAndLost(t *testing.T) {
	const (
		completed = tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
		early     = tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY
		reset     = tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET
	)
	for _, c := range []struct {
		name, text                                      string
		outcome                                         tcplabv1.FlowOutcome
		answers, failed, cut, unseen, retries, executed uint32
		read                                            uint64
	}{
		{"by length", "objects: [{size: 10kB, cut: 4kB}, 1kB]", early, 1, 1, 1, 0, 0, 2, 5000},
		{"in chunks", "objects: [{size: 10kB, cut: 4kB}, 1kB], server: {framing: chunked, chunk: 1kB}", early, 1, 1, 1, 0, 0, 2, 5000},
		{"unseen", "objects: [{size: 10kB, cut: 4kB}, 1kB], server: {framing: close_delimited}", completed, 2, 0, 0, 1, 0, 2, 5000},
		{"a GET lost once", "objects: [1kB, {size: 1kB, cut: 0B, cut_times: 1}, 1kB]", completed, 3, 0, 0, 0, 1, 4, 3000},
		{"a GET lost always", "objects: [1kB, {size: 1kB, cut: 0B}, 1kB]", early, 2, 1, 0, 0, 1, 4, 2000},
		{"a GET lost, no retry", "objects: [1kB, {size: 1kB, cut: 0B}, 1kB], client: {retries: 0}", early, 2, 1, 0, 0, 0, 3, 2000},
		{"a POST lost once", "objects: [1kB, {size: 1kB, method: POST, body: 1kB, cut: 0B, cut_times: 1}, 1kB]", early, 2, 1, 0, 0, 0, 3, 2000},
		{"a PUT lost once", "objects: [1kB, {size: 1kB, method: PUT, body: 1kB, cut: 0B, cut_times: 1}, 1kB]", completed, 3, 0, 0, 0, 1, 4, 3000},
		{"lost by reset", "objects: [1kB, {size: 1kB, cut: 0B, cut_times: 1}], server: {close: reset}", completed, 2, 0, 0, 0, 1, 3, 2000},
		{"a POST lost by reset", "objects: [1kB, {size: 1kB, method: POST, body: 1kB, cut: 0B}], server: {close: reset}", reset, 1, 1, 0, 0, 0, 2, 1000},
		{"a pipeline lost", "client: {pipeline: 5}, objects: [1kB, {size: 1kB, cut: 0B, cut_times: 1}, {size: 1kB, count: 3}]", completed, 5, 0, 0, 0, 4, 6, 5000},
		{"an early answer, drained", "objects: [{size: 1kB, method: POST, body: 5MB, early: true}]", completed, 1, 0, 0, 0, 0, 1, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := chain(t)
			flowtest.Leakless(t)
			r := fetch(t, cfg, c.text)
			h := r.GetHttp()
			if r.GetOutcome() != c.outcome || (r.GetError() == "") != (c.outcome == completed) {
				t.Errorf("outcome %s: %q", r.GetOutcome(), r.GetError())
			}
			if h.GetAnswers() != c.answers || h.GetFailed() != c.failed || h.GetCutShort() != c.cut || h.GetUnseenCuts() != c.unseen ||
				h.GetRetries() != c.retries || h.GetExecuted().GetTotal() != c.executed || h.GetBytesRead() != c.read {
				t.Errorf("%d answers, %d failed, %d cut, %d unseen, %d retries, %d executed, %d bytes read; want %d, %d, %d, %d, %d, %d, %d",
					h.GetAnswers(), h.GetFailed(), h.GetCutShort(), h.GetUnseenCuts(), h.GetRetries(), h.GetExecuted().GetTotal(), h.GetBytesRead(),
					c.answers, c.failed, c.cut, c.unseen, c.retries, c.executed, c.read)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

// A server that closes with input unread resets: the kernel counts it, and the client may
// be left without an answer that was written. One that drains loses nothing.
func TestFullCloseWithUnreadInput(t *testing.T) {
	for _, c := range []struct {
		how  string
		full bool
	}{{"drain", false}, {"full", true}} {
		t.Run(c.how, func(t *testing.T) {
			// What the server may send before the first ACK is some kilobytes.
			cfg := shaped(t, link.Shape{Delay: 10 * time.Millisecond})
			flowtest.Leakless(t)
			// All of the answer fits the send buffer, long before it fits the network.
			flowtest.SetSysctl(t, cfg.Server.NS, "net/ipv4/tcp_wmem", "4096 8388608 8388608")
			before := flowtest.Counters(t, cfg.Server)[0]
			r := fetch(t, cfg, "objects: [{size: 3MB, method: POST, body: 20MB, early: true}], server: {close: "+c.how+"}")
			after := flowtest.Counters(t, cfg.Server)[0]
			h := r.GetHttp()
			// Input was unread at the close, or came after it.
			const onClose, onData = "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData"
			aborts, resets := after[onClose]-before[onClose]+after[onData]-before[onData], after["TcpOutRsts"]-before["TcpOutRsts"]
			if h.GetExecuted().GetPost() != 1 {
				t.Errorf("%v executed", h.GetExecuted())
			}
			if c.full != (aborts > 0) || c.full != (resets > 0) || c.full != (h.GetResets() > 0) || c.full != (h.GetBytesRead() < 3_000_000) || c.full != (r.GetError() != "") {
				t.Errorf("%d aborts, %d resets sent, %d met; %d of %d bytes read: %s", aborts, resets, h.GetResets(), h.GetBytesRead(), h.GetBytesSent(), r.GetError())
			}
			if h.GetBytesSent() != 3_000_000 {
				t.Errorf("%d bytes sent", h.GetBytesSent())
			}
		})
	}
}

// The server ends an idle connection; the client asks on another.
func TestIdleTimeout(t *testing.T) {
	cfg := chain(t)
	flowtest.Leakless(t)
	r := whole(t, cfg, "objects: [{size: 1kB, count: 3}], client: {think_time: 80ms}, server: {idle_timeout: 20ms}")
	if h := r.GetHttp(); h.GetConnections() != 3 || h.GetRetries() != 0 || h.GetPageTime().AsDuration() < 160*time.Millisecond {
		t.Errorf("%d connections, %d retries in %s", h.GetConnections(), h.GetRetries(), h.GetPageTime().AsDuration())
	}
}

// A flow with a duration ends in order, with what is under way.
func TestDuration(t *testing.T) {
	cfg := chain(t)
	flowtest.Leakless(t)
	s := spec(t, cfg, "objects: [{size: 1kB, server_time: 50ms, count: 1000}]")
	s.Duration = durationpb.New(120 * time.Millisecond)
	r := carryOut(t.Context(), t, cfg, s)
	h := r.GetHttp()
	if r.GetError() != "" || h.GetAnswers() == 0 || h.GetAnswers() > 3 || h.GetAnswers() != h.GetRequests() || h.GetFailed() != 0 || h.GetPageTime().AsDuration() < 120*time.Millisecond {
		t.Errorf("%s: %d answers to %d requests, %d failed in %s", r.GetError(), h.GetAnswers(), h.GetRequests(), h.GetFailed(), h.GetPageTime().AsDuration())
	}
}

// A load asks for the objects over and over on all its connections.
func TestLoad(t *testing.T) {
	cfg := chain(t)
	flowtest.Leakless(t)
	r := whole(t, cfg, "objects: [100B, 200B], client: {connections: 16}, requests: 20001")
	h := r.GetHttp()
	if h.GetAnswers() != 20_001 || h.GetConnections() != 16 || h.GetReused() != 20_001-16 || h.GetExecuted().GetGet() != 20_001 || r.GetLatency().GetCount() != 20_001 || h.GetBytesRead() != 10_001*100+10_000*200 || h.GetRate() <= 0 {
		t.Errorf("%v", h)
	}
	r = whole(t, cfg, "objects: 100B, client: {connections: 4, persistent: false}, duration: 200ms")
	if h := r.GetHttp(); h.GetPageTime().AsDuration() < 200*time.Millisecond || h.GetAnswers() != h.GetConnections() || h.GetReused() != 0 || h.GetAnswers() < 4 || len(h.GetExchanges()) != 0 {
		t.Errorf("%v", h)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

// Each fault ends by itself, with its name and what was counted until then.
func TestFaults(t *testing.T) {
	const page = "objects: [{size: 1kB, count: 3}]"
	for fault, want := range map[tcplabv1.FlowFault]tcplabv1.FlowOutcome{
		tcplabv1.FlowFault_FLOW_FAULT_REFUSE: tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED,
		tcplabv1.FlowFault_FLOW_FAULT_RESET:  tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET,
		tcplabv1.FlowFault_FLOW_FAULT_DEAF:   tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
	} {
		t.Run(fault.String(), func(t *testing.T) {
			cfg := chain(t)
			flowtest.Leakless(t)
			s := spec(t, cfg, page+", client: {timeout: 200ms}")
			s.Fault = fault
			r := carryOut(t.Context(), t, cfg, s)
			if h := r.GetHttp(); r.GetOutcome() != want || h.GetFailed() != 3 || h.GetAnswers() != 0 || h.GetExecuted().GetTotal() != 0 {
				t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), h)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
	t.Run("never answered", func(t *testing.T) {
		cfg := chain(t)
		flowtest.Leakless(t)
		r := fetch(t, cfg, "objects: [1kB, {size: 1kB, server_time: 1h}, 1kB], client: {timeout: 100ms}")
		h := r.GetHttp()
		if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE || h.GetTimeouts() != 1 || h.GetAnswers() != 2 || h.GetFailed() != 1 || h.GetExecuted().GetTotal() != 3 {
			t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), h)
		}
	})
	t.Run("out of the experiment's time", func(t *testing.T) {
		cfg := chain(t)
		flowtest.Leakless(t)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		r := fetchWithin(ctx, t, cfg, "objects: [1kB, {size: 1kB, server_time: 1h}, 1kB]")
		h := r.GetHttp()
		if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE || h.GetAnswers() != 1 || h.GetFailed() != 2 || h.GetBytesRead() != 1000 {
			t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), h)
		}
		flowtest.NoSockets(t, cfg.Client, cfg.Server)
	})
	t.Run("closed", func(t *testing.T) {
		cfg := chain(t)
		flowtest.Leakless(t)
		f, err := New(spec(t, cfg, "objects: [{size: 1kB, server_time: 1h}]"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(100*time.Millisecond, func() { f.Close() })
		r := f.Run(t.Context())
		if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED {
			t.Errorf("%s: %s", r.GetOutcome(), r.GetError())
		}
		if err := f.Listen(t.Context()); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("it listens again: %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		cfg := chain(t)
		flowtest.Leakless(t)
		flowtest.BlackHole(t, cfg.Client, cfg.Server, "10.99.0.0/16")
		f, err := New(spec(t, cfg, page+", client: {timeout: 100ms}"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.client.to = blackHole
		r := f.Run(t.Context())
		f.Close()
		if h := r.GetHttp(); r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE || h.GetTimeouts() != 1 || h.GetFailed() != 3 {
			t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), h)
		}
	})
}
