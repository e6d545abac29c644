package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// foundation is the main job, end to end: one command runs a lab on real traffic.
func foundation() Area {
	area := Area{Name: "foundation"}
	for _, lab := range []string{"handshake", "slow-start", "nagle"} {
		area.Checks = append(area.Checks,
			Check{
				Name: lab + " passes five times out of five natively with wire",
				Run: func(ctx context.Context, b *Bench) (string, error) {
					return fiveOfFive(ctx, b.Run, lab, "wire")
				},
			},
			Check{
				Name:  lab + " passes five times out of five in user-mode-linux with netem",
				Limit: 20 * time.Minute,
				Run: func(ctx context.Context, b *Bench) (string, error) {
					return fiveOfFive(ctx, b.RunInGuest, lab, "netem")
				},
			})
	}
	return area
}

// fiveOfFive runs a lab five times and wants each to pass, on the engine asked for.
func fiveOfFive(ctx context.Context, tcplab func(context.Context, ...string) (Result, error), lab, engine string) (string, error) {
	const times = 5
	passed, expectations, trials := 0, 0, 0
	var first error
	for range times {
		result, err := tcplab(ctx, "run", lab, "--engine", engine, "-o", "json")
		if err == nil {
			var report *tcplabv1.RunReport
			if report, err = passing(result, engine); err == nil {
				passed++
				expectations += len(report.GetExpectations())
				trials += len(report.GetTrials())
			}
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return fmt.Sprintf("%d of %d passed: %d expectations, %d trials", passed, times, expectations, trials), first
}

// passing reads the report of a run that must have succeeded and passed, with at
// least one expectation and every link on the engine.
func passing(result Result, engine string) (*tcplabv1.RunReport, error) {
	if result.Status != 0 {
		return nil, fmt.Errorf("exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	report := &tcplabv1.RunReport{}
	if err := protojson.Unmarshal([]byte(result.Stdout), report); err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	switch {
	case report.GetState() != tcplabv1.RunState_RUN_STATE_SUCCEEDED:
		return nil, fmt.Errorf("%s: exit status 0, but the state is %v", report.GetId(), report.GetState())
	case report.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED:
		return nil, fmt.Errorf("%s: exit status 0, but the verdict is %v", report.GetId(), report.GetVerdict())
	case len(report.GetExpectations()) == 0 || len(report.GetTrials()) == 0:
		return nil, fmt.Errorf("%s: passed without an expectation or a trial", report.GetId())
	}
	for _, trial := range report.GetTrials() {
		for _, link := range trial.GetLinks() {
			if got := strings.ToLower(link.GetEngine().String()); !strings.HasSuffix(got, "_"+engine) {
				return nil, fmt.Errorf("%s: link %s is on %v, %s was asked for", report.GetId(), link.GetName(), link.GetEngine(), engine)
			}
		}
	}
	return report, nil
}

// lastLines is the end of a program's diagnostics, on one line.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " / ")
}
