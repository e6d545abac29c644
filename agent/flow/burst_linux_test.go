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

func burstOf(count uint32, gaps []time.Duration, writes ...uint32) *tcplabv1.Flow {
	b := &tcplabv1.Burst{Writes: writes, Count: count}
	for _, gap := range gaps {
		b.Gaps = append(b.Gaps, durationpb.New(gap))
	}
	return &tcplabv1.Flow{Name: "w", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Burst{Burst: b}}
}

func TestBurstIsTimedWriteByWrite(t *testing.T) {
	flowtest.Leakless(t)
	const gap, last = 20 * time.Millisecond, 30 * time.Millisecond
	r := run(t, burstOf(2, []time.Duration{0, gap, last}, 1, 100, 50_000), nodes(t, false))
	const round = 1 + 100 + 50_000
	if r.GetBytes() != 2*round || r.GetClient().GetBytesWritten() != 2*round || r.GetServer().GetBytesRead() != 2*round || r.GetKind() != "burst" {
		t.Errorf("%v", r)
	}
	writes := r.GetWrites()
	if len(writes) != 6 || r.GetLatency().GetCount() != 6 {
		t.Fatalf("%d writes, latency of %d", len(writes), r.GetLatency().GetCount())
	}
	for i, w := range writes {
		if want := []uint64{1, 100, 50_000}[i%3]; w.GetBytes() != want {
			t.Errorf("write %d has %d bytes, not %d", i, w.GetBytes(), want)
		}
		if w.GetFirst().AsDuration() <= 0 || w.GetLatency().AsDuration() < w.GetFirst().AsDuration() {
			t.Errorf("write %d: %v", i, w)
		}
		if i == 0 {
			continue
		}
		before := writes[i-1]
		since := w.GetAt().AsDuration() - before.GetAt().AsDuration() - before.GetBlocked().AsDuration()
		if want := []time.Duration{last, 0, gap}[i%3]; since < want {
			t.Errorf("write %d came %s after the one before, not %s", i, since, want)
		}
	}
}

// With Nagle's algorithm the second small write waits for the ACK of the first; with the
// cork the first waits for the second; with neither each goes at once.
func TestBurstShowsWhatHoldsASmallWrite(t *testing.T) {
	cfg := nodes(t, false)
	const gap = 20 * time.Millisecond
	for name, test := range map[string]struct {
		options *tcplabv1.SocketOptions
		first   bool // whether the first write waits for the gap to pass
	}{
		"no delay": {&tcplabv1.SocketOptions{}, false},
		"cork":     {&tcplabv1.SocketOptions{Cork: true}, true},
	} {
		spec := burstOf(1, []time.Duration{gap}, 100, 100)
		spec.Socket = test.options
		if waited := run(t, spec, cfg).GetWrites()[0].GetLatency().AsDuration() >= gap; waited != test.first {
			t.Errorf("%s: the first write waited is %v", name, waited)
		}
	}
	// The ACK is delayed by 40 ms at least (TCP_DELACK_MIN), though not in each round: a
	// delayed ACK that went without data makes the next a quick one.
	const rounds = 4
	spec := burstOf(rounds, []time.Duration{0, 100 * time.Millisecond}, 100, 100)
	spec.Socket = &tcplabv1.SocketOptions{NoDelay: new(false), QuickAck: new(false)}
	var longest [2]time.Duration
	for i, w := range run(t, spec, cfg).GetWrites() {
		longest[i%2] = max(longest[i%2], w.GetLatency().AsDuration())
	}
	if longest[1] < 30*time.Millisecond || longest[0] >= 30*time.Millisecond {
		t.Errorf("Nagle: the first writes took up to %s, the second up to %s", longest[0], longest[1])
	}
}

func TestBurstThatCannotEndTellsWhatWasDone(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	f := listening(t, burstOf(1, []time.Duration{time.Hour}, 10, 10), cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := f.Run(ctx)
	if len(r.GetWrites()) != 1 || r.GetWrites()[0].GetLatency().AsDuration() <= 0 || r.GetBytes() != 10 || !strings.Contains(r.GetError(), "deadline exceeded") {
		t.Errorf("%v", r)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

func TestBurstThatMakesNoSense(t *testing.T) {
	cfg := nodes(t, false)
	for name, spec := range map[string]*tcplabv1.Flow{
		"no write":    burstOf(1, nil),
		"empty write": burstOf(1, nil, 0),
		"gaps":        burstOf(1, []time.Duration{1, 2}, 1, 1, 1),
		"too many":    burstOf(5001, nil, 1, 1),
	} {
		if _, err := New(spec, cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
