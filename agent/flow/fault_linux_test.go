package flow

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	refuse = tcplabv1.FlowFault_FLOW_FAULT_REFUSE
	reset  = tcplabv1.FlowFault_FLOW_FAULT_RESET
	deaf   = tcplabv1.FlowFault_FLOW_FAULT_DEAF
)

// patience is what a deaf server gets in a test: the flow is to end after it, however long.
const patience = 200 * time.Millisecond

func TestServerWithAFault(t *testing.T) {
	kinds := map[string]func() *tcplabv1.Flow{
		"bulk":        func() *tcplabv1.Flow { return bulkBytes(50_000_000) },
		"bulk for":    func() *tcplabv1.Flow { return bulkFor(time.Hour) },
		"transaction": func() *tcplabv1.Flow { return transactions(10, 10, 10) },
		"burst":       func() *tcplabv1.Flow { return burstOf(1, nil, 1000, 1000) },
	}
	for name, kind := range kinds {
		for fault, want := range map[tcplabv1.FlowFault]tcplabv1.FlowOutcome{
			refuse: tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED,
			reset:  tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET,
			deaf:   tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
		} {
			t.Run(name+" "+fault.String(), func(t *testing.T) {
				flowtest.Leakless(t)
				cfg := nodes(t, false)
				spec := kind()
				spec.Fault = fault
				f := listening(t, spec, cfg)
				within := limit
				if fault == deaf {
					within = patience
				}
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				r := f.Run(ctx)
				if r.GetOutcome() != want || r.GetError() == "" {
					t.Errorf("outcome %s: %s", r.GetOutcome(), r.GetError())
				}
				if early := ctx.Err() == nil; early != (fault != deaf) {
					t.Errorf("the context's end is %v", ctx.Err())
				}
				switch read := r.GetServer().GetBytesRead(); {
				case fault == reset && (read == 0 || read > r.GetClient().GetBytesWritten()):
					t.Errorf("the server read %d bytes of %d", read, r.GetClient().GetBytesWritten())
				case fault != reset && read != 0:
					t.Errorf("the server read %d bytes", read)
				}
				if stood := r.GetConnect().GetCount() == 1; stood != (fault != refuse) {
					t.Errorf("connections: %v", r.GetConnect())
				}
				flowtest.NoSockets(t, cfg.Client, cfg.Server)
			})
		}
	}
}

// A TCP that gives up has an outcome of its own.
func TestDeafServerAndUserTimeout(t *testing.T) {
	flowtest.Leakless(t)
	spec := bulkBytes(50_000_000) // more than both buffers hold
	spec.Fault = deaf
	spec.Socket = &tcplabv1.SocketOptions{UserTimeout: durationpb.New(300 * time.Millisecond)}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if r := listening(t, spec, nodes(t, false)).Run(ctx); r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT {
		t.Errorf("outcome %s: %s", r.GetOutcome(), r.GetError())
	}
}

// A flow whose time is up ends in order, with what it has done by then.
func TestFlowThatEndsAfterADuration(t *testing.T) {
	const asked = 100 * time.Millisecond
	thinking := transactions(1_000_000, 10, 10)
	thinking.GetTransaction().ThinkTime = durationpb.New(10 * time.Millisecond)
	idle := transactions(1000, 10, 10)
	idle.GetTransaction().ThinkTime = durationpb.New(time.Hour)
	open := transactions(1_000_000, 10, 10)
	open.GetTransaction().Rate = 100
	typing := burstOf(1000, []time.Duration{10 * time.Millisecond}, 100, 1000)
	for name, spec := range map[string]*tcplabv1.Flow{
		"bulk": bulkBytes(1 << 50), "transactions": transactions(10_000_000, 10, 10), "thinking": thinking, "idle": idle,
		"open loop": open, "burst": typing, "waiting burst": burstOf(2, []time.Duration{time.Hour}, 100),
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t, false)
			spec.Duration = durationpb.New(asked)
			begin := time.Now()
			r := run(t, spec, cfg)
			if took := time.Since(begin); took < asked {
				t.Errorf("it took %s", took)
			}
			if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
				t.Errorf("outcome %s", r.GetOutcome())
			}
			if w, n := r.GetClient().GetBytesWritten(), r.GetServer().GetBytesRead(); w != n || n == 0 {
				t.Errorf("the client wrote %d bytes, the server read %d", w, n)
			}
			if r.GetKind() == "transaction" {
				if done := uint64(r.GetLatency().GetCount()); done == 0 || r.GetBytes() != 10*done || r.GetServer().GetBytesWritten() != 10*done {
					t.Errorf("%d transactions and %d bytes of replies", done, r.GetBytes())
				}
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
	short := bulkBytes(1000)
	short.Duration = durationpb.New(time.Hour)
	if r := run(t, short, nodes(t, false)); r.GetBytes() != 1000 {
		t.Errorf("what is done before its time has %d bytes", r.GetBytes())
	}
}
