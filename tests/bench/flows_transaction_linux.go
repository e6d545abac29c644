package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
)

// smallMessage is what sockperf sends by default, in bytes, and gets back.
const smallMessage = 14

// roundTrip is how long a small request and its reply take beside sockperf.
func roundTrip() Measurement {
	const name = "flows, transaction"
	const duration = 2 * time.Second
	return Measurement{
		Name: name, Limit: 30 * time.Second,
		Setup: "flows, transaction: requests of 14 bytes and replies of 14 bytes, one after another for 2 s, over an unshaped veth; then sockperf (Debian's 3.7) ping-pong --tcp " +
			"with as many bytes over the same pair. sockperf prints half a round trip: the figure is twice what it prints.",
		Rows: []Row{
			{Name: name + ": round trip p50", Unit: "µs", Digits: 2, Target: Target{Most: new(1.0), OfPeer: true}, Peer: "sockperf"},
			{Name: name + ": round trip p99", Unit: "µs", Digits: 2, Peer: "sockperf"},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newVeth, func(e link.Engine) (_ []Figure, err error) {
				f := transactions(10_000_000)
				f.GetTransaction().Writes, f.GetTransaction().Reply = []uint32{smallMessage}, smallMessage
				f.Duration = durationpb.New(duration)
				b, err := stand(ctx, e, delayed(0, 0, nil), f, map[string]string{"net.ipv4.tcp_congestion_control": congestion})
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				result, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				half, err := pingPong(ctx, b, duration)
				l := result.GetLatency()
				return []Figure{
					{Ours: microseconds(l.GetP50().AsDuration()), Peer: 2 * half["50"]},
					{Ours: microseconds(l.GetP99().AsDuration()), Peer: 2 * half["99"]},
				}, err
			})
		},
	}
}

// pingPong is what sockperf measures over a bed: half a round trip in µs, by percentile.
func pingPong(ctx context.Context, b *bed, duration time.Duration) (map[string]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := []string{"--tcp", "--ip", b.server.Addr.String(), "--port", "11111"}
	// It says that it listens into a pipe only where its lines are not held back.
	server := exec.CommandContext(ctx, "stdbuf", append([]string{"--output=L", "sockperf", "server"}, args...)...)
	out, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// A child inherits the namespace of the thread that starts it.
	if err := b.server.NS.Do(server.Start); err != nil {
		return nil, fmt.Errorf("start sockperf: %w", err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // killed: it ends by nothing else
	}()
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "to block on"); {
	}
	client := exec.CommandContext(ctx, "sockperf", append([]string{
		"ping-pong", "--msg-size", fmt.Sprint(smallMessage), "--time", fmt.Sprint(duration.Seconds()),
	}, args...)...)
	var report []byte
	err = b.client.NS.Do(func() (err error) {
		report, err = client.CombinedOutput()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sockperf: %w: %s", err, report)
	}
	percentiles := map[string]float64{}
	for _, m := range regexp.MustCompile(`percentile (\d+)\.000 = +([0-9.]+)`).FindAllStringSubmatch(string(report), -1) {
		if percentiles[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
			return nil, fmt.Errorf("read sockperf's report: %w", err)
		}
	}
	if percentiles["50"] == 0 || percentiles["99"] == 0 {
		return nil, fmt.Errorf("sockperf reports no percentiles: %s", report)
	}
	return percentiles, nil
}
