package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// nagleAtOneMillisecond wants the delayed acknowledgement's 40 ms and a jiffy
// in the report of nagle at a round trip of 1 ms, where nothing hides them.
func nagleAtOneMillisecond(ctx context.Context, b *Bench) (string, error) {
	result, err := b.Run(ctx, "run", "nagle", "--set", "rtt=1ms", "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := passing(result, "")
	if err != nil {
		return "", err
	}
	hz, err := jiffies(report.GetKernel())
	if err != nil {
		return "", err
	}
	// 2R + TCP_DELACK_MIN (40 ms) + a jiffy; include/net/tcp.h.
	jiffy := 1 / hz
	want := 0.002 + 0.040 + jiffy
	for _, trial := range report.GetTrials() {
		if trial.GetPoint()["no_delay"].GetBoolValue() {
			continue
		}
		got := trial.GetFlows()[0].GetLatency().GetP50().AsDuration().Seconds()
		figure := fmt.Sprintf("%.1f ms, theory says %.1f ms at HZ %.0f", got*1e3, want*1e3, hz)
		if math.Abs(got-want) > jiffy+0.03*want {
			return figure, fmt.Errorf("more than a jiffy and 3%% from theory")
		}
		return figure, nil
	}
	return "", fmt.Errorf("no trial with no_delay=false in the report")
}

// jiffies reads the timer frequency from a report's kernel.
func jiffies(kernel string) (float64, error) {
	_, text, _ := strings.Cut(kernel, "HZ ")
	var hz float64
	if _, err := fmt.Sscan(text, &hz); err != nil || hz <= 0 {
		return 0, fmt.Errorf("no HZ in the report's kernel %q", kernel)
	}
	return hz, nil
}

// oneByteMore wants slow-start's transfers of N and N+1 bytes to differ by one
// round trip, at each end of a round that the lab goes to.
func oneByteMore(ctx context.Context, b *Bench) (string, error) {
	result, err := b.Run(ctx, "run", "slow-start", "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := passing(result, "")
	if err != nil {
		return "", err
	}
	type point struct{ bytes, took, rtt float64 }
	shortest := map[uint64]point{}
	for _, trial := range report.GetTrials() {
		rtt, err := time.ParseDuration(trial.GetPoint()["rtt"].GetStringValue())
		if err != nil {
			return "", fmt.Errorf("read the point's rtt: %w", err)
		}
		flow := trial.GetFlows()[0]
		took := flow.GetConnect().GetP50().AsDuration() + flow.GetLatency().GetP50().AsDuration()
		bytes := flow.GetBytes()
		if old, ok := shortest[bytes]; !ok || took.Seconds() < old.took {
			shortest[bytes] = point{float64(bytes), took.Seconds(), rtt.Seconds()}
		}
	}
	var figures []string
	for bytes, at := range shortest {
		past, ok := shortest[bytes+1]
		if !ok {
			continue
		}
		more := past.took - at.took
		figures = append(figures, fmt.Sprintf("%.0f B %.1f ms, one more %.1f ms", at.bytes, at.took*1e3, past.took*1e3))
		if math.Abs(more-at.rtt) > 0.1*at.rtt {
			return strings.Join(figures, "; "), fmt.Errorf("a byte past the round costs %.1f ms, and a round trip is %.1f ms", more*1e3, at.rtt*1e3)
		}
	}
	if len(figures) == 0 {
		return "", fmt.Errorf("the report has no two transfers that are one byte apart")
	}
	return strings.Join(figures, "; "), nil
}

// dumbbell runs a bulk flow over two routers, with IPv4 and IPv6.
func dumbbell(ctx context.Context, b *Bench) (string, error) {
	result, err := b.Run(ctx, "run", "./tests/labs/dumbbell.yaml", "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := passing(result, "")
	if err != nil {
		return "", err
	}
	var figures []string
	for _, flow := range report.GetTrials()[0].GetFlows() {
		figures = append(figures, fmt.Sprintf("%s %.2f Mbit/s", flow.GetName(), flow.GetGoodputBps()/1e6))
	}
	return strings.Join(figures, ", "), nil
}

// wrongPrediction runs a copy of a lab that predicts twice the truth, and wants
// exit status 1 with both numbers.
func wrongPrediction(ctx context.Context, b *Bench) (string, error) {
	shown, err := b.Run(ctx, "lab", "show", "handshake")
	if err != nil {
		return "", err
	}
	before, after, found := strings.Cut(shown.Stdout, "predict: ")
	if !found {
		return "", fmt.Errorf("the lab handshake predicts nothing")
	}
	path := filepath.Join(b.Dir, "wrong.yaml")
	expression, rest, _ := strings.Cut(after, "\n")
	wrong := before + "predict: 2 * (" + strings.Trim(expression, `"'`) + ")\n" + rest
	if err := os.WriteFile(path, []byte(wrong), 0o600); err != nil {
		return "", err
	}
	result, err := b.Run(ctx, "run", path, "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := reportOf(result)
	if err != nil {
		return "", err
	}
	if result.Status != 1 {
		return "", fmt.Errorf("exit status %d, want 1: %s", result.Status, lastLines(result.Stderr))
	}
	for _, e := range report.GetExpectations() {
		if e.GetVerdict() != tcplabv1.Verdict_VERDICT_FAILED {
			continue
		}
		if ratio := e.GetPredicted() / e.GetMeasured(); ratio < 1.5 || ratio > 2.5 {
			return e.GetDetail(), fmt.Errorf("predicted %v is not twice measured %v", e.GetPredicted(), e.GetMeasured())
		}
		return e.GetDetail(), nil
	}
	return "", fmt.Errorf("exit status 1, and no expectation failed")
}
