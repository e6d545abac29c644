package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// dnsChecks are those of name servers and lookups.
func dnsChecks() []Check {
	return []Check{
		{Name: "a small request pays for its name, its connection and itself, within 3% or 2 ms", Run: requestWithName},
		{Name: "a name that is not found and a silent name server: named, in time", Run: dnsFaults},
	}
}

// requestWithName runs a lab whose request looks its server up at a name server of the lab.
func requestWithName(ctx context.Context, b *Bench) (string, error) {
	result, err := b.Run(ctx, "run", filepath.Join("tests", "labs", "dns.yaml"), "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := reportOf(result)
	if err != nil {
		return "", err
	}
	_, err = passing(result, "")
	figure := ""
	for _, e := range report.GetExpectations() {
		if e.GetRepetitions() != nil && e.GetName() == "in all it is the name, and two round trips to the server" {
			figure = fmt.Sprintf("%.2f ms, theory says %.2f ms", e.GetMeasured()*1e3, e.GetPredicted()*1e3)
		}
	}
	return figure, err
}

// dnsFaults runs labs whose names lead nowhere.
func dnsFaults(ctx context.Context, b *Bench) (string, error) {
	faults := []struct {
		name, server, resolve string
		outcome               tcplabv1.FlowOutcome
	}{
		{"no such name", "", "name: nobody", tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND},
		{"silent", ", silent: true", "timeout: 100ms", tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT},
		{"silent over TCP", ", silent: true", "timeout: 100ms, tcp: true", tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT},
		{"silent for too long", ", silent: true", "timeout: 1min", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE},
	}
	longest := time.Duration(0)
	for _, f := range faults {
		text := "name: fault\nnodes: [client, server]\nlinks:\n  - between: [client, server]\nexperiments:\n" +
			"  - timeout: 2s\n    flows:\n      - {name: names, dns: {from: client, to: server" + f.server + "}}\n" +
			"      - {name: get, resolve: {at: server, " + f.resolve + "}, transaction: {from: client, to: server, writes: 1B, reply: 1B}}\n"
		path := filepath.Join(b.Dir, "dnsfault.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		result, err := b.Run(ctx, "run", path, "-o", "json")
		if err != nil {
			return "", err
		}
		if result.Status != 4 {
			return "", fmt.Errorf("%s: exit status %d: %s", f.name, result.Status, lastLines(result.Stderr))
		}
		report, err := reportOf(result)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
		if got := report.GetTrials()[0].GetFlows()[1].GetOutcome(); got != f.outcome {
			return "", fmt.Errorf("%s: the outcome is %s", f.name, got)
		}
		longest = max(longest, result.Took)
	}
	return fmt.Sprintf("%d faults, none longer than %.1f s", len(faults), longest.Seconds()), nil
}
