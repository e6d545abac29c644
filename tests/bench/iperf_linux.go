package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// iperfReport is what iperf3 measured.
type iperfReport struct {
	rate        float64       // the receiver's, in bit/s
	bytes       float64       // that the receiver read
	retransmits float64       // segments that the sender sent again
	cpu         time.Duration // processor time of both programs
}

// iperf is what iperf3 measures over a bed.
func iperf(ctx context.Context, b *bed, amount ...string) (r iperfReport, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// It ends after one test, and by itself should nobody be left to end it.
	server := exec.CommandContext(ctx, "iperf3", "--server", "--one-off", "--forceflush", "--idle-timeout", "60")
	out, err := server.StdoutPipe()
	if err != nil {
		return r, err
	}
	// A child inherits the namespace of the thread that starts it.
	if err := b.server.NS.Do(server.Start); err != nil {
		return r, fmt.Errorf("start iperf3: %w", err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // killed, where it has not ended
	}()
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "listening"); {
	}
	args := append([]string{"--client", b.server.Addr.String(), "--congestion", congestion, "--json"}, amount...)
	client := exec.CommandContext(ctx, "iperf3", args...)
	var report []byte
	err = b.client.NS.Do(func() (err error) {
		report, err = client.Output()
		return err
	})
	if err != nil {
		return r, fmt.Errorf("iperf3: %w: %s", err, report)
	}
	var result struct {
		End struct {
			Sent struct {
				Retransmits float64 `json:"retransmits"`
			} `json:"sum_sent"`
			Received struct {
				Rate  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(report, &result); err != nil {
		return r, fmt.Errorf("read iperf3's report: %w", err)
	}
	if err := server.Wait(); err != nil { // after its one test
		return r, fmt.Errorf("iperf3's server: %w", err)
	}
	for _, program := range []*exec.Cmd{server, client} {
		r.cpu += program.ProcessState.UserTime() + program.ProcessState.SystemTime()
	}
	r.rate, r.bytes, r.retransmits = result.End.Received.Rate, result.End.Received.Bytes, result.End.Sent.Retransmits
	return r, nil
}
