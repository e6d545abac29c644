package main

import (
	"context"
	"fmt"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// httpChecks are those of http flows.
func httpChecks() []Check {
	return []Check{
		{Name: "pages whose server refuses, resets, never answers or cuts short end in time, with the outcome's name and the counters so far, natively", Run: func(ctx context.Context, b *Bench) (string, error) {
			return httpFaults(ctx, b, b.Run)
		}},
		{Name: "and in user-mode-linux, pages too", Run: func(ctx context.Context, b *Bench) (string, error) {
			return httpFaults(ctx, b, b.RunInGuest)
		}},
		{Name: "by every way of using connections, closing them and passing proxies http counts what it should, natively", Run: func(ctx context.Context, b *Bench) (string, error) {
			n, err := b.tested(ctx, "-run", "^Test(Pages|CutShortAndLost|FullCloseWithUnreadInput|SmartProxies|DumbProxyHangs|Two|Load)$", "./agent/flow/web")
			return fmt.Sprintf("%d cases", n), err
		}},
	}
}

// httpFault is a lab whose page cannot be had whole.
type httpFault struct {
	name    string
	flow    string // keys of the flow, beside its name
	outcome tcplabv1.FlowOutcome
	counts  func(*tcplabv1.HttpResult) bool // what it counted until then
}

// The flow has 2 s at most in each.
func httpFaultLabs() []httpFault {
	const page = "http: {from: client, to: server, objects: [{size: 1kB, count: 3}"
	return []httpFault{
		{
			"a server that does not listen", page + "]}, fault: refuse", tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED,
			func(h *tcplabv1.HttpResult) bool { return h.GetConnections() == 0 && h.GetFailed() == 3 },
		},
		{
			"a server that resets", page + "]}, fault: reset", tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET,
			func(h *tcplabv1.HttpResult) bool {
				return h.GetResets() == h.GetConnections() && h.GetRetries() == 3 && h.GetFailed() == 3
			},
		},
		{
			"a server that never reads, for a client with patience", page + "]}, fault: deaf", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
			func(h *tcplabv1.HttpResult) bool { return h.GetConnections() == 1 && h.GetFailed() == 3 },
		},
		{
			"one answer that never comes, for a client without", page + ", {size: 1kB, server_time: 1h}], client: {timeout: 300ms}}", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
			func(h *tcplabv1.HttpResult) bool {
				return h.GetAnswers() == 3 && h.GetTimeouts() == 1 && h.GetBytesRead() == 3000
			},
		},
		{
			"an answer cut short", page + ", {size: 9kB, cut: 4kB}]}", tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY,
			func(h *tcplabv1.HttpResult) bool {
				return h.GetAnswers() == 3 && h.GetCutShort() == 1 && h.GetBytesRead() == 7000
			},
		},
	}
}

func httpFaults(ctx context.Context, b *Bench, tcplab func(context.Context, ...string) (Result, error)) (string, error) {
	faults := httpFaultLabs()
	var longest time.Duration
	for _, f := range faults {
		flow, result, err := failing(ctx, b, tcplab, connectFault{name: f.name, flow: f.flow})
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
		if flow.GetOutcome() != f.outcome || !f.counts(flow.GetHttp()) {
			return "", fmt.Errorf("%s: the outcome is %s, the counters %v", f.name, flow.GetOutcome(), flow.GetHttp())
		}
		longest = max(longest, result.Took)
	}
	return fmt.Sprintf("%d faults, none longer than %.1f s in all", len(faults), longest.Seconds()), nil
}
