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

// execChecks are those of programs in nodes.
func execChecks() []Check {
	return []Check{
		{Name: "an exec flow measures Debian's iperf3, which agrees with tcplab within 2%", Run: agreeing("iperf3")},
		{Name: "an exec flow measures Debian's nginx with curl, which agrees with tcplab within 2%", Run: agreeing("nginx")},
		{Name: "a lab file that runs programs is refused without --allow-exec, with the flow's place", Run: execNotPermitted},
		{Name: "a program that is not found, fails, is never ready or never ends: named, in time, and nothing is left", Run: execFaults},
		{Name: "kill -9 of the agent takes the programs of a flow with it", Run: func(ctx context.Context, b *Bench) (string, error) {
			passed, err := b.tested(ctx, "-run", "^TestKilledAgent$", "./agent/flow/command", "./agent/program")
			return fmt.Sprintf("%d cases", passed), err
		}},
		{Name: "a confined program is nobody, writes nowhere, and sees nothing of tcplab's state", Run: func(ctx context.Context, b *Bench) (string, error) {
			passed, err := b.tested(ctx, "-run", "^TestConfined", "./agent/program")
			return fmt.Sprintf("%d cases", passed), err
		}},
	}
}

// agreeing runs a lab of tests/labs that runs programs, and wants all its expectations to hold. The
// figure is what its conditions came to.
func agreeing(lab string) func(context.Context, *Bench) (string, error) {
	return func(ctx context.Context, b *Bench) (string, error) {
		result, err := b.Run(ctx, "run", filepath.Join("tests", "labs", lab+".yaml"), "--allow-exec", "-o", "json")
		if err != nil {
			return "", err
		}
		report, err := reportOf(result)
		if err == nil {
			_, err = passing(result, "")
		}
		var figures []string
		for _, e := range report.GetExpectations() {
			if e.GetPredicted() == 0.02 {
				figures = append(figures, fmt.Sprintf("%.2f%%", e.GetMeasured()*100))
			}
		}
		return strings.Join(figures, ", ") + " apart", err
	}
}

// execNotPermitted wants the refusal, exit status 2, before anything is started.
func execNotPermitted(ctx context.Context, b *Bench) (string, error) {
	const lab = "tests/labs/iperf3.yaml"
	result, err := b.Run(ctx, "run", lab)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(result.Stderr)
	if result.Status != 2 || !strings.HasPrefix(line, lab+":") || !strings.Contains(line, "--allow-exec") || strings.Contains(line, "\n") {
		return "", fmt.Errorf("exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	return line, nil
}

// execFaults runs labs whose programs misbehave.
func execFaults(ctx context.Context, b *Bench) (string, error) {
	const mark = "TCPLAB_ACCEPT_MARK"
	faults := []struct {
		name, programs string
		outcome        tcplabv1.FlowOutcome
	}{
		{"not found", "client: {run: no-such-program}", tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED},
		{"fails", "client: {run: [sh, -c, exit 7]}", tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED},
		{"dies early", "server: {run: [sh, -c, sleep 0.3; exit 1]}, client: {run: [sleep, 100]}", tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED},
		{"never ready", "server: {run: [sleep, 100], ready: {port: 80, within: 500ms}}, client: {run: \"true\"}", tcplabv1.FlowOutcome_FLOW_OUTCOME_NEVER_READY},
		{"never ends", "client: {run: [sh, -c, \"trap '' TERM; setsid sleep 100 & while :; do sleep 0.1; done\"], env: {" + mark + ": x}}", tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE},
	}
	longest := time.Duration(0)
	for _, f := range faults {
		text := "name: fault\nnodes: [client, server]\nlinks:\n  - between: [client, server]\nexperiments:\n" +
			"  - timeout: 2s\n    flows:\n      - name: run\n        exec: {from: client, to: server, " + f.programs + "}\n"
		path := filepath.Join(b.Dir, "fault.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		result, err := b.Run(ctx, "run", path, "--allow-exec", "-o", "json")
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
		if got := report.GetTrials()[0].GetFlows()[0].GetOutcome(); got != f.outcome {
			return "", fmt.Errorf("%s: the outcome is %s", f.name, got)
		}
		longest = max(longest, result.Took)
	}
	left, err := withVariable(mark)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("processes are left: %v", left)
	}
	return fmt.Sprintf("%d faults, none longer than %.1f s", len(faults), longest.Seconds()), err
}

// withVariable are the processes that have an environment variable.
func withVariable(name string) ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.Contains("\x00"+string(content), "\x00"+name+"=") {
			found = append(found, filepath.Dir(file))
		}
	}
	return found, nil
}
