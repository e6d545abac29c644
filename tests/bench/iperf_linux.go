package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// iperf is what iperf3 measures over a bed: the receiver's bit/s, and how many
// segments the sender sent again.
func iperf(ctx context.Context, b *bed, amount ...string) (rate float64, retransmits float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// It ends after one test, and by itself should nobody be left to end it.
	server := exec.CommandContext(ctx, "iperf3", "--server", "--one-off", "--forceflush", "--idle-timeout", "60")
	out, err := server.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	// A child inherits the namespace of the thread that starts it.
	if err := b.server.NS.Do(server.Start); err != nil {
		return 0, 0, fmt.Errorf("start iperf3: %w", err)
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
		return 0, 0, fmt.Errorf("iperf3: %w: %s", err, report)
	}
	var result struct {
		End struct {
			Sent struct {
				Retransmits float64 `json:"retransmits"`
			} `json:"sum_sent"`
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(report, &result); err != nil {
		return 0, 0, fmt.Errorf("read iperf3's report: %w", err)
	}
	return result.End.Received.Rate, result.End.Sent.Retransmits, nil
}
