package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/agent/prompt"
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
			"whole process (getrusage), in which nothing else happens meanwhile: the thread that reads, what keeps it, Go's own threads. Beside it, the time of "+
			"one thread that only asks for TCP_INFO of the same sockets as often: less it cannot be.", many, few),
		Rows: []Row{
			{Name: fmt.Sprintf("%sboth ends of %d connections each 10 ms, of a core", name, many), Unit: "%", Digits: 2, Target: atMost(2), Peer: "getsockopt alone"},
			{Name: fmt.Sprintf("%sboth ends of %d connections each 10 ms: samples missed", name, many), Target: exactly(0)},
			{Name: fmt.Sprintf("%sboth ends of %d connections each ms: samples missed", name, few), Target: exactly(0)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			share, least, missed, err := sampled(ctx, many, 10*time.Millisecond)
			if err != nil {
				return nil, err
			}
			_, _, dense, err := sampled(ctx, few, time.Millisecond)
			return []Figure{{Ours: 100 * share, Peer: 100 * least}, {Ours: float64(missed)}, {Ours: float64(dense)}}, err
		},
	}
}

// sampled is which share of a processor it takes to sample so many connections for 2 s, which share the system calls alone take, and how many
// samples were missed.
func sampled(ctx context.Context, connections int, interval time.Duration) (share, least float64, missed uint64, err error) {
	fds, ends, err := idlePairs(ctx, connections)
	defer func() {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
	}()
	if err != nil {
		return 0, 0, 0, err
	}
	if least, err = asked(fds, interval); err != nil {
		return 0, 0, 0, err
	}
	scratch, err := os.CreateTemp("", "bench")
	if err != nil {
		return 0, 0, 0, err
	}
	if err := os.Remove(scratch.Name()); err != nil {
		return 0, 0, 0, errors.Join(err, scratch.Close())
	}
	samples := observe.NewSamples(scratch)
	ends = append(ends, samples.Discard)
	sampler, err := observe.NewSampler()
	if err != nil {
		return 0, 0, 0, err
	}
	ends = append(ends, sampler.Close)
	var watches []*observe.Watch
	for i, fd := range fds {
		watches = append(watches, sampler.Watch(observe.Watched{
			Flow: fmt.Sprintf("flow%d", i/2), End: [...]string{"client", "server"}[i%2], Interval: interval, FD: fd, Sink: samples,
		}))
	}
	before, err := cpuTime()
	if err != nil {
		return 0, 0, 0, err
	}
	start := time.Now()
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return 0, 0, 0, ctx.Err()
	}
	after, err := cpuTime()
	took := time.Since(start)
	for _, w := range watches {
		missed += w.Stop().Missed
	}
	return (after - before).Seconds() / took.Seconds(), least, missed, err
}

// asked is which share of a processor a thread takes that does nothing but ask for TCP_INFO of all the sockets each interval, for 1 s.
func asked(fds []int, interval time.Duration) (share float64, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with its priority
		prompt.Thread()
		var before, after unix.Rusage
		if err = unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
			return
		}
		var raw [232]byte
		start := time.Now()
		for due := start.Add(interval); due.Sub(start) <= time.Second; due = due.Add(interval) {
			pause := unix.NsecToTimespec(max(0, int64(time.Until(due))))
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
			for _, fd := range fds {
				size := uint32(len(raw))
				if _, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
					uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
					err = fmt.Errorf("ask for TCP_INFO: %w", errno)
					return
				}
			}
		}
		took := time.Since(start)
		err = unix.Getrusage(unix.RUSAGE_THREAD, &after)
		used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		share = float64(used) / float64(took)
	}()
	<-ended
	return share, err
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
