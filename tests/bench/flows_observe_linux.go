package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/internal/netns"
)

// sampling is what it costs to sample many connections, and whether samples that are close together are all
// taken.
func sampling() Measurement {
	const name = flowsName + "sampling: "
	const many, few = 100, 10
	return Measurement{
		Name: flowsName + "sampling", Limit: 30 * time.Second,
		Setup: fmt.Sprintf("sampling: TCP_INFO of both ends of %d idle connections each 10 ms for 2 s, kept as in a trial; then of %d each ms. Processor time is that of the "+
			"whole process (getrusage), beside none while nothing is sampled.", many, few),
		Rows: []Row{
			{Name: fmt.Sprintf("%sboth ends of %d connections each 10 ms, of a core", name, many), Unit: "%", Digits: 2, Target: atMost(2)},
			{Name: fmt.Sprintf("%sboth ends of %d connections each 10 ms: samples missed", name, many), Target: exactly(0)},
			{Name: fmt.Sprintf("%sboth ends of %d connections each ms: samples missed", name, few), Target: exactly(0)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			share, missed, err := sampled(ctx, many, 10*time.Millisecond)
			if err != nil {
				return nil, err
			}
			_, dense, err := sampled(ctx, few, time.Millisecond)
			return []Figure{{Ours: 100 * share}, {Ours: float64(missed)}, {Ours: float64(dense)}}, err
		},
	}
}

// sampled is which share of a processor it takes to sample so many connections for 2 s, and how many samples were missed.
func sampled(ctx context.Context, connections int, interval time.Duration) (share float64, missed uint64, err error) {
	fds, ends, err := idlePairs(ctx, connections)
	defer func() {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
	}()
	if err != nil {
		return 0, 0, err
	}
	scratch, err := os.CreateTemp("", "bench")
	if err != nil {
		return 0, 0, err
	}
	if err := os.Remove(scratch.Name()); err != nil {
		return 0, 0, errors.Join(err, scratch.Close())
	}
	samples := observe.NewSamples(scratch)
	ends = append(ends, samples.Discard)
	sampler, err := observe.NewSampler()
	if err != nil {
		return 0, 0, err
	}
	ends = append(ends, sampler.Close)
	var watches []*observe.Watch
	for i, fd := range fds {
		watches = append(watches, sampler.Watch(observe.Watched{
			Flow: fmt.Sprintf("flow%d", i/2), End: [...]string{"client", "server"}[i%2], Interval: interval, Sink: samples,
			Read: func() (observe.Info, error) { return observe.ReadInfo(fd) },
		}))
	}
	before, err := cpuTime()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	after, err := cpuTime()
	took := time.Since(start)
	for _, w := range watches {
		missed += w.Stop().Missed
	}
	return (after - before).Seconds() / took.Seconds(), missed, err
}

// idlePairs are connections of a namespace with itself: the descriptors of both ends, and what ends them.
func idlePairs(ctx context.Context, count int) (fds []int, ends []func() error, err error) {
	ns, err := netns.New("bench")
	if err != nil {
		return nil, nil, err
	}
	ends = append(ends, ns.Close)
	err = ns.Do(func() error {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		for range count {
			client, err := (&net.Dialer{}).DialContext(ctx, "tcp4", listener.Addr().String())
			if err != nil {
				return err
			}
			server, err := listener.Accept()
			if err != nil {
				return errors.Join(err, client.Close())
			}
			for _, conn := range []net.Conn{client, server} {
				// A descriptor that Go's poller has nothing to do with.
				file, err := conn.(*net.TCPConn).File()
				if err := errors.Join(err, conn.Close()); err != nil {
					return err
				}
				ends = append(ends, file.Close)
				fds = append(fds, int(file.Fd()))
			}
		}
		return nil
	})
	return fds, ends, err
}
