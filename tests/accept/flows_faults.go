package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// faultChecks are those of bulk, transaction and burst that do not end well.
func faultChecks() []Check {
	return []Check{
		{Name: "a bulk, transaction or burst whose server refuses, resets, is deaf or out of reach ends in time, with its name and its counters", Run: namedFaults},
		{Name: "a flow that cannot finish in its time ends with it, named, or in order after its duration", Run: outOfTime},
		{Name: "where a flow may fail the run goes on and its outcome can be expected; where not, it stops", Run: mayFail},
		{Name: "every wait of a flow ends: before it stands, while it stands, at its end", Run: func(ctx context.Context, b *Bench) (string, error) {
			passed, err := b.tested(ctx, "-run", "Fault|Deaf|Deadline|Cancelled|CannotBeMade|NeverAccepts|NeverComes|Breaks|Duration|AgreedStart", "./agent/flow", "./agent")
			return fmt.Sprintf("%d cases", passed), err
		}},
	}
}

// simpleKinds are flows of the three kinds with one connection, by name.
func simpleKinds() map[string]string {
	return map[string]string{
		"bulk":        "bulk: {from: client, to: server, bytes: 100MB}",
		"transaction": "transaction: {from: client, to: server, writes: 10B, reply: 10B, count: 100, think_time: 1ms}",
		"burst":       "burst: {from: client, to: server, writes: [1kB, 1kB], count: 100, gaps: 1ms}",
	}
}

// faultLab is a lab whose experiment ends after 2 s, with these lines under the link, under flows and
// under expect.
func faultLab(link, flows, expect string) string {
	text := "name: faults\nnodes: [client, server]\nlinks:\n  - between: [client, server]\n" + link +
		"experiments:\n  - timeout: 2s\n    flows:\n" + flows
	if expect != "" {
		text += "expect:\n" + expect
	}
	return text
}

// runFaulty runs a lab and wants it to exit with the status, 2 s after its deadline at the latest
// beside what building and verifying take.
func runFaulty(ctx context.Context, b *Bench, text string, status int) (*tcplabv1.RunReport, time.Duration, error) {
	const most = 10 * time.Second
	path := filepath.Join(b.Dir, "faults.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, 0, err
	}
	result, err := b.Run(ctx, "run", path, "-o", "json")
	if err != nil {
		return nil, 0, err
	}
	if result.Status != status {
		return nil, 0, fmt.Errorf("exit status %d, not %d: %s\n%s", result.Status, status, lastLines(result.Stderr), text)
	}
	if result.Took > most {
		return nil, 0, fmt.Errorf("it took %v\n%s", result.Took, text)
	}
	report, err := reportOf(result)
	return report, result.Took, err
}

// namedFaults runs each kind with each fault, alone, and wants its outcome.
func namedFaults(ctx context.Context, b *Bench) (string, error) {
	const cut = "    schedule: [{at: 0s, down: true}]\n"
	faults := []struct {
		link, keys string
		outcome    tcplabv1.FlowOutcome
		connected  bool
	}{
		{"", "fault: refuse", tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED, false},
		{"", "fault: reset", tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, true},
		{"", "fault: deaf", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE, true},
		{"    rtt: 2ms\n" + cut, "start: 100ms", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE, false},
		{"    rtt: 2ms\n" + cut, "start: 100ms, socket: {user_timeout: 500ms}", tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT, false},
	}
	done, longest := 0, time.Duration(0)
	for name, kind := range simpleKinds() {
		for _, f := range faults {
			report, took, err := runFaulty(ctx, b, faultLab(f.link, "      - {name: f, "+f.keys+", "+kind+"}\n", ""), 4)
			if err != nil {
				return "", fmt.Errorf("%s, %s: %w", name, f.keys, err)
			}
			got := report.GetTrials()[0].GetFlows()[0]
			if got.GetOutcome() != f.outcome || !strings.Contains(report.GetFailure(), got.GetError()) {
				return "", fmt.Errorf("%s, %s: the outcome is %s: %s", name, f.keys, got.GetOutcome(), report.GetFailure())
			}
			if counted := got.GetConnect().GetCount() == 1 && got.GetClient().GetBytesWritten() > 0; counted != f.connected {
				return "", fmt.Errorf("%s, %s: the counters are %v", name, f.keys, got)
			}
			done, longest = done+1, max(longest, took)
		}
	}
	return fmt.Sprintf("%d faults, none longer than %.1f s", done, longest.Seconds()), nil
}

// outOfTime runs flows with far more to do than they have time for.
func outOfTime(ctx context.Context, b *Bench) (string, error) {
	endless := map[string]string{
		"bulk":        "bulk: {from: client, to: server, bytes: 1TB}",
		"streams":     "bulk: {from: client, to: server, bytes: 1TB, streams: 4, both: true}",
		"transaction": "transaction: {from: client, to: server, writes: 10B, reply: 10B, count: 10000000, think_time: 1ms}",
		"burst":       "burst: {from: client, to: server, writes: [1MB], count: 10000}",
	}
	for name, kind := range endless {
		link := "    rate: 10Mbit\n"
		report, _, err := runFaulty(ctx, b, faultLab(link, "      - {name: f, "+kind+"}\n", ""), 4)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if got := report.GetTrials()[0].GetFlows()[0]; got.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE || got.GetBytes() == 0 {
			return "", fmt.Errorf("%s: the outcome is %s after %d bytes", name, got.GetOutcome(), got.GetBytes())
		}
		// What the kernel has taken by then still goes out, at 10 Mbit/s.
		report, _, err = runFaulty(ctx, b, faultLab(link, "      - {name: f, duration: 300ms, socket: {send_buffer: 64KiB}, "+kind+"}\n", ""), 0)
		if err != nil {
			return "", fmt.Errorf("%s with a duration: %w", name, err)
		}
		got := report.GetTrials()[0].GetFlows()[0]
		if w, n := got.GetClient().GetBytesWritten(), got.GetServer().GetBytesRead(); got.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED || w != n || n == 0 {
			return "", fmt.Errorf("%s with a duration: %s, %d bytes written and %d read", name, got.GetOutcome(), w, n)
		}
	}
	return fmt.Sprintf("%d kinds, stopped and ended", len(endless)), nil
}

// mayFail runs a flow that is refused with one that comes after it, twice.
func mayFail(ctx context.Context, b *Bench) (string, error) {
	const rest = "      - {name: next, after: f, bulk: {from: client, to: server, bytes: 1kB}}\n" +
		"      - {name: other, bulk: {from: client, to: server, duration: 1s, rate: 1Mbit}}\n"
	const expect = "  - name: it was refused, and wrote nothing\n    that: flow.f.outcome == \"refused\" && flow.f.client.bytes_written == 0\n" +
		"  - name: what comes after it ran\n    that: flow.next.outcome == \"completed\" && flow.next.bytes == 1000\n"
	for name, kind := range simpleKinds() {
		refused := "      - {name: f, start: 50ms, fault: refuse, may_fail: %s, " + kind + "}\n"
		report, _, err := runFaulty(ctx, b, faultLab("", fmt.Sprintf(refused, "true")+rest, expect), 0)
		if err != nil {
			return "", fmt.Errorf("%s that may fail: %w", name, err)
		}
		if report.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
			return "", fmt.Errorf("%s that may fail: the verdict is %s", name, report.GetVerdict())
		}
		report, _, err = runFaulty(ctx, b, faultLab("", fmt.Sprintf(refused, "false")+rest, expect), 4)
		if err != nil {
			return "", fmt.Errorf("%s that may not: %w", name, err)
		}
		var outcomes []string
		for _, f := range report.GetTrials()[0].GetFlows() {
			outcomes = append(outcomes, strings.ToLower(strings.TrimPrefix(f.GetOutcome().String(), "FLOW_OUTCOME_")))
		}
		if got := strings.Join(outcomes, " "); got != "refused skipped cancelled" {
			return "", fmt.Errorf("%s that may not: the outcomes are %s", name, got)
		}
	}
	return fmt.Sprintf("%d kinds", len(simpleKinds())), nil
}
