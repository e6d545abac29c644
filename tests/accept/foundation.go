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
	area.Checks = append(area.Checks,
		Check{Name: "nagle --set rtt=1ms shows the 40 ms and a jiffy in its JSON", Run: nagleAtOneMillisecond},
		Check{Name: "slow-start shows that one byte past a round costs one R", Run: oneByteMore},
		Check{Name: "a dumbbell of two routers and four endpoints runs a bulk flow across", Run: dumbbell},
		Check{Name: "a lab with a wrong prediction exits 1 and names both numbers", Run: wrongPrediction},
		Check{Name: "each bad input exits 2 with its place and what was meant", Run: badInput},
		Check{Name: "no privilege: a user namespace, or exit 3 and what to do", Run: noPrivilege},
		Check{Name: "SIGINT and SIGTERM: stored as cancelled, exit 130, all gone within 1 s", Run: interrupted},
		Check{Name: "a second run waits its turn, and --wait=0 fails at once", Run: oneAtATime},
		Check{Name: "the state directory unwritable or the disk full is a clear error", Run: cannotStore},
		Check{Name: "50 runs killed with -9 leave no namespace, interface, qdisc, process or file", Limit: 20 * time.Minute, Run: killedRuns},
		Check{Name: "both README commands succeed on a fresh clone", Limit: time.Hour, Run: freshClone},
	)
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
// least one expectation and every link on the engine, where one is named.
func passing(result Result, engine string) (*tcplabv1.RunReport, error) {
	if result.Status != 0 {
		return nil, fmt.Errorf("exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	report, err := reportOf(result)
	if err != nil {
		return nil, err
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
			if engine == "" {
				continue
			}
			if got := strings.ToLower(link.GetEngine().String()); !strings.HasSuffix(got, "_"+engine) {
				return nil, fmt.Errorf("%s: link %s is on %v, %s was asked for", report.GetId(), link.GetName(), link.GetEngine(), engine)
			}
		}
	}
	return report, nil
}

// reportOf reads the report that a run printed, however the run ended.
func reportOf(result Result) (*tcplabv1.RunReport, error) {
	report := &tcplabv1.RunReport{}
	if err := protojson.Unmarshal([]byte(result.Stdout), report); err != nil {
		return nil, fmt.Errorf("read the report (exit status %d: %s): %w", result.Status, lastLines(result.Stderr), err)
	}
	return report, nil
}

// lastLines is the end of a program's diagnostics, on one line.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " / ")
}
