package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// connectChecks are those of connect flows.
func connectChecks() []Check {
	return []Check{
		{Name: "connections that are refused, reset, unanswered or silent end in time, with the outcome's name and the counters so far, natively", Run: func(ctx context.Context, b *Bench) (string, error) {
			return connectFaults(ctx, b, b.Run)
		}},
		{Name: "and in user-mode-linux", Run: func(ctx context.Context, b *Bench) (string, error) {
			return connectFaults(ctx, b, b.RunInGuest)
		}},
		{Name: "20 ports give 20 connections, then EADDRNOTAVAIL, held open and in TIME_WAIT, natively", Run: func(ctx context.Context, b *Bench) (string, error) {
			return portsRunOut(ctx, b, b.Run)
		}},
		{Name: "and in user-mode-linux, whose kernel cannot choose of a range", Run: func(ctx context.Context, b *Bench) (string, error) {
			return portsRunOut(ctx, b, b.RunInGuest)
		}},
	}
}

// connectFault is a lab whose one flow cannot do all it should.
type connectFault struct {
	name    string
	flow    string // keys of the flow, beside its name
	link    string // keys of the link
	outcome tcplabv1.FlowOutcome
	counts  func(*tcplabv1.Connections) bool // what it counted until then
}

// The flow has 2 s at most in each.
func connectFaultLabs() []connectFault {
	const call = "connect: {from: client, to: server, count: 6, concurrency: 2, request: 10B, reply: 10B"
	return []connectFault{
		{
			"a server that does not listen", call + "}, fault: refuse", "", tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED,
			func(c *tcplabv1.Connections) bool {
				return c.GetAttempted() == 6 && c.GetMade() == 0 && c.GetErrors().GetRefused() == 6
			},
		},
		{
			"a server that resets", call + "}, fault: reset", "", tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET,
			func(c *tcplabv1.Connections) bool {
				return c.GetMade() == 6 && c.GetAccepted() == 6 && c.GetErrors().GetReset_() == 6
			},
		},
		{
			"a server that never answers", call + "}, fault: deaf", "", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
			func(c *tcplabv1.Connections) bool { return c.GetMade() == 2 && c.GetUnfinished() == 2 },
		},
		{
			"a link that goes down", "connect: {from: client, to: server, count: 30, rate: 20}", "schedule: [{at: 500ms, down: true}]", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
			func(c *tcplabv1.Connections) bool {
				return c.GetMade() >= 5 && c.GetMade() <= 12 && c.GetUnfinished() > 0 && c.GetFailed() == 0
			},
		},
		{
			"handshakes that get no answer in time", "connect: {from: client, to: server, count: 3, timeout: 200ms}", "loss: 100%", tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT,
			func(c *tcplabv1.Connections) bool {
				return c.GetMade() == 0 && c.GetErrors().GetTimedOut() == 3
			},
		},
	}
}

func connectFaults(ctx context.Context, b *Bench, tcplab func(context.Context, ...string) (Result, error)) (string, error) {
	faults := connectFaultLabs()
	var longest time.Duration
	for _, f := range faults {
		flow, result, err := failing(ctx, b, tcplab, f)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
		if flow.GetOutcome() != f.outcome || !f.counts(flow.GetConnections()) {
			return "", fmt.Errorf("%s: the outcome is %s, the counters %v", f.name, flow.GetOutcome(), flow.GetConnections())
		}
		longest = max(longest, result.Took)
	}
	return fmt.Sprintf("%d faults, none longer than %.1f s in all", len(faults), longest.Seconds()), nil
}

// failing runs a fault's lab, which must end with status 4, and returns its flow.
func failing(ctx context.Context, b *Bench, tcplab func(context.Context, ...string) (Result, error), f connectFault) (*tcplabv1.FlowResult, Result, error) {
	link := "between: [client, server]"
	if f.link != "" {
		link += ", " + f.link
	}
	text := "name: fault\nnodes: [client, server]\nlinks:\n  - {" + link + "}\nexperiments:\n  - timeout: 2s\n    flows:\n      - {name: calls, " + f.flow + "}\n"
	path := filepath.Join(b.Dir, "fault.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, Result{}, err
	}
	result, err := tcplab(ctx, "run", path, "-o", "json")
	if err != nil {
		return nil, result, err
	}
	if result.Status != 4 {
		return nil, result, fmt.Errorf("exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	report, err := reportOf(result)
	if err != nil {
		return nil, result, err
	}
	if len(report.GetTrials()) != 1 || len(report.GetTrials()[0].GetFlows()) != 1 {
		return nil, result, errors.New("the report has no flow")
	}
	return report.GetTrials()[0].GetFlows()[0], result, nil
}

// portsLab asks 25 connections of 20 ports, twice.
const portsLab = `
name: ports
nodes: {client: {sysctls: {net.ipv4.tcp_tw_reuse: 0}}, server: {}}
links:
  - between: [client, server]
experiments:
  - flows:
      - name: held
        connect: {from: client, to: server, count: 25, concurrency: 25, hold: 500ms, close: server}
        socket: {local_ports: 40000-40019}
        may_fail: true
      - name: waiting
        after: held
        connect: {from: client, to: server, count: 25}
        socket: {local_ports: 41000-41019}
        may_fail: true
expect:
  - name: held open, each port has one
    that: flow.held.connections.made == 20 && flow.held.connections.served == 20 && flow.held.errors.address_not_available == 5
  - name: in TIME_WAIT, each port had one
    that: flow.waiting.connections.made == 20 && flow.waiting.connections.served == 20 && flow.waiting.errors.address_not_available == 5
  - name: who ends first waits
    that: counter.client.SockstatTCPTw == 20 && counter.server.SockstatTCPTw == 20
`

func portsRunOut(ctx context.Context, b *Bench, tcplab func(context.Context, ...string) (Result, error)) (string, error) {
	path := filepath.Join(b.Dir, "ports.yaml")
	if err := os.WriteFile(path, []byte(strings.TrimSpace(portsLab)+"\n"), 0o600); err != nil {
		return "", err
	}
	result, err := tcplab(ctx, "run", path, "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := passing(result, "")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d expectations hold", len(report.GetExpectations())), nil
}
