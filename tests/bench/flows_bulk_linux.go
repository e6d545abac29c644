package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

// bulkBeside is how fast a bulk of so many streams is beside iperf3 over the same pair, and what
// processor time a byte costs both ends together.
func bulkBeside(streams uint32) Measurement {
	const duration = 3 * time.Second
	name := fmt.Sprintf("flows, bulk of %d", streams)
	return Measurement{
		Name: name, Limit: 30 * time.Second,
		Setup: "flows, bulk: 1 or 8 streams for 3 s over an unshaped veth with all offloads, then iperf3 (Debian's 3.12) for as long over the same pair. " +
			"Goodput is the receiver's. Processor time is user's and system's of both ends (getrusage). A flow's receiver has the kernel throw " +
			"away what it reads (MSG_TRUNC), iperf3's copies it.",
		Rows: []Row{
			{Name: name + ": goodput", Unit: "Gbit/s", Digits: 2, Target: Target{Least: new(1.0), OfPeer: true}, Peer: "iperf3"},
			{Name: name + ": processor time a GB", Unit: "ms", Target: Target{Most: new(1.1), OfPeer: true}, Peer: "iperf3"},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newVeth, func(e link.Engine) (_ []Figure, err error) {
				l := delayed(0, 0, nil)
				l.Offload = true
				f := bulkFor(duration)
				f.GetBulk().Streams = streams
				b, err := stand(ctx, e, l, f, nil)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				before, err := cpuTime()
				if err != nil {
					return nil, err
				}
				result, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				after, err := cpuTime()
				if err != nil {
					return nil, err
				}
				peer, err := iperf(ctx, b, "--time", fmt.Sprint(duration.Seconds()), "--parallel", fmt.Sprint(streams))
				perGB := func(cpu time.Duration, bytes float64) float64 { return milliseconds(cpu) / (bytes / 1e9) }
				return []Figure{
					{Ours: result.GetGoodputBps() / 1e9, Peer: peer.rate / 1e9},
					{Ours: perGB(after-before, float64(result.GetBytes())), Peer: perGB(peer.cpu, peer.bytes)},
				}, err
			})
		},
	}
}

// cpuTime is what this process has used of the processors.
func cpuTime() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("ask for the processor time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
