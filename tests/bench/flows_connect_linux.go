package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// flowsName begins the names of what `make bench-flows` measures.
const flowsName = "flows, "

// connects is how many connections a second one flow makes, one after another, beside ab.
func connects() Measurement {
	const count = 20_000
	const name = flowsName + "connect, one at a time: "
	bare := func(c *tcplabv1.Connect) *tcplabv1.Flow {
		c.Count, c.Close = count, tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER
		return &tcplabv1.Flow{Kind: &tcplabv1.Flow_Connect{Connect: c}}
	}
	return Measurement{
		Name: flowsName + "connect", Limit: time.Minute,
		Setup: fmt.Sprintf("connect: an unshaped veth, %d connections one after another, ended by the server. Beside ab -c 1 each has the request of %d bytes and the reply of %d that "+
			"ab's has, and ab's server is an event loop as tcplab's is, in the same process.", count, len(abRequest), len(abReply)),
		Rows: []Row{
			{Name: name + "no requests", Unit: "/s", Target: atLeast(10_000)},
			{Name: name + "one request each", Unit: "/s", Target: Target{Least: new(1.0), OfPeer: true}, Peer: "ab -c 1"},
			{Name: flowsName + "connect: connections that failed", Target: exactly(0), Every: true},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return onVeth(ctx, func(b *bed) ([]Figure, error) {
				b.flow.Kind = bare(&tcplabv1.Connect{}).GetKind()
				alone, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				b.flow.Kind = bare(&tcplabv1.Connect{Requests: 1, Request: uint32(len(abRequest)), Reply: uint32(len(abReply))}).GetKind()
				asking, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				peer, err := ab(ctx, b, count)
				if err != nil {
					return nil, err
				}
				failed := alone.GetConnections().GetFailed() + asking.GetConnections().GetFailed()
				return []Figure{
					{Ours: alone.GetConnections().GetRate()}, {Ours: asking.GetConnections().GetRate(), Peer: peer}, {Ours: float64(failed)},
				}, nil
			})
		},
	}
}

// onVeth gives a bed of two nodes over an unshaped veth to a function.
func onVeth(ctx context.Context, do func(*bed) ([]Figure, error)) ([]Figure, error) {
	return with(newVeth, func(e link.Engine) (_ []Figure, err error) {
		b, err := stand(ctx, e, delayed(0, 0, nil), &tcplabv1.Flow{Kind: &tcplabv1.Flow_Connect{Connect: &tcplabv1.Connect{}}}, nil)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		b.flow.Socket.Congestion = "" // the kernel's, as ab has it
		return do(b)
	})
}

var abRate = regexp.MustCompile(`Requests per second: +([0-9.]+)`)

// ab is how many requests a second ApacheBench makes, each on a connection of its own.
func ab(ctx context.Context, b *bed, count int) (float64, error) {
	server, err := serveAB(ctx, b.server)
	if err != nil {
		return 0, err
	}
	run := exec.CommandContext(ctx, "ab", "-q", "-c", "1", "-n", strconv.Itoa(count), "http://"+server.address.String()+"/")
	var report []byte
	// A child inherits the namespace of the thread that starts it.
	err = b.client.NS.Do(func() (err error) {
		report, err = run.CombinedOutput()
		return err
	})
	if stopped := server.stop(); err == nil {
		err = stopped
	}
	found := abRate.FindSubmatch(report)
	if err == nil && (found == nil || !strings.Contains(string(report), fmt.Sprintf("Complete requests:      %d", count))) {
		err = errors.New("not all requests were completed")
	}
	if err != nil {
		return 0, fmt.Errorf("ab: %w: %s", err, report)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// idleConnections is what ten thousand connections that stand idle take of this process's memory,
// in which both ends are.
func idleConnections() Measurement {
	count := idleCount()
	return Measurement{
		Name: flowsName + "idle connections", Limit: time.Minute,
		Setup: fmt.Sprintf("idle connections: 10,000 of one flow, or as many as both ends' descriptors fit this process's limit (here %d), held open; memory is what the process's anonymous pages grew by, both ends and the loops together. The kernel's own is not in it.", count),
		Rows: []Row{
			{Name: flowsName + "10,000 idle connections, memory each", Unit: "KiB", Digits: 2, Target: atMost(8)},
			{Name: flowsName + "10,000 idle connections, share that stood at once", Unit: "%", Digits: 2, Target: exactly(100), Every: true},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return onVeth(ctx, func(b *bed) ([]Figure, error) {
				b.flow.Kind = &tcplabv1.Flow_Connect{Connect: &tcplabv1.Connect{Count: uint32(count), Concurrency: uint32(count), Hold: durationpb.New(4 * time.Second)}}
				debug.FreeOSMemory()
				before, err := anonymous()
				if err != nil {
					return nil, err
				}
				ended := make(chan error, 1)
				go func() {
					_, err := b.run(ctx, nil)
					ended <- err
				}()
				var most, stood int64
				for {
					select {
					case err := <-ended:
						return []Figure{{Ours: float64(most-before) / 1024 / float64(count)}, {Ours: 100 * float64(stood) / float64(count)}}, err
					case <-time.After(20 * time.Millisecond):
					}
					now, err := anonymous()
					if err != nil {
						return nil, err
					}
					counters, err := observe.ReadCounters(b.server.NS)
					if err != nil {
						return nil, err
					}
					most, stood = max(most, now), max(stood, counters["TcpCurrEstab"])
				}
			})
		},
	}
}

// idleCount is how many connections can stand with both ends in this process.
func idleCount() int {
	const wanted, others = 10_000, 200
	_ = loop.Room(2 * wanted) // as far as it goes
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return wanted
	}
	return int(min(wanted, (limit.Cur-others)/2))
}

// anonymous is what this process's anonymous pages take, in bytes.
func anonymous() (int64, error) {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(text, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no RssAnon")
}
