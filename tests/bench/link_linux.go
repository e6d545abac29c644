package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/netem"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/link/wire"
	"github.com/tcplab/tcplab/agent/observe"
)

// oneWay is the delay of each direction in all that follows: 20 ms of round trip.
const oneWay = 10 * time.Millisecond

func newWire() (link.Engine, error)  { return wire.New(wire.Options{}) }
func newNetem() (link.Engine, error) { return netem.New(), nil }
func newVeth() (link.Engine, error)  { return veth.Engine{}, nil }

// with gives an engine to a function and closes it.
func with(engine func() (link.Engine, error), do func(link.Engine) ([]Figure, error)) (_ []Figure, err error) {
	e, err := engine()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return do(e)
}

// ready is how long two nodes and their shaped link take to stand. Before that
// another engine makes the same, since the kernel loads its modules with the first.
func ready(name string, engine func() (link.Engine, error), target Target) Measurement {
	build := func(ctx context.Context) (took time.Duration, err error) {
		p, err := plan(delayed(oneWay, 10e6, nil), transactions(1), nil)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		e, err := engine()
		if err != nil {
			return 0, err
		}
		b, err := p.build(ctx, e)
		took = time.Since(begin)
		if err == nil {
			err = b.close()
		}
		return took, errors.Join(err, e.Close())
	}
	return Measurement{
		Name: name + ": a link is made", Limit: 30 * time.Second,
		Rows: []Row{{Name: name + ": two nodes and their link, ready and shaped", Unit: "ms", Digits: 1, Target: target}},
		Once: func(ctx context.Context) ([]Figure, error) {
			if _, err := build(ctx); err != nil {
				return nil, err
			}
			took, err := build(ctx)
			return []Figure{{Ours: milliseconds(took)}}, err
		},
	}
}

// idle is the round trip of a link that has nothing else to carry: as the
// network sees it, and as a program does, whose every trip wakes two threads.
func idle() Measurement {
	const name = "wire, idle: "
	const probes = 1000
	trip := func(what string, off float64) Row {
		return Row{Name: name + what, Unit: "ms", Digits: 3, Target: between(20-off, 20+off)}
	}
	none := func(what string) Row { return Row{Name: name + what, Target: exactly(0), Every: true} }
	return Measurement{
		Name: "wire, round trips", Limit: 30 * time.Second,
		Setup: "wire, idle: 10 ms each way and no rate; 1000 ICMP echoes, one every 4 ms, and then a transaction flow's 100 bytes for 100 bytes, 100 times.",
		Rows: []Row{
			trip("RTT p50", 0.3), trip("RTT p99", 1),
			none("echoes lost"), none("echoes out of order"),
			{Name: name + "transaction p50", Unit: "ms", Digits: 3},
			{Name: name + "transaction p99", Unit: "ms", Digits: 3},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newWire, func(e link.Engine) (_ []Figure, err error) {
				b, err := stand(ctx, e, delayed(oneWay, 0, nil), transactions(100), nil)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				seen, err := echo(ctx, b, probes)
				if err != nil {
					return nil, err
				}
				result, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				latency := result.GetLatency()
				return []Figure{
					{Ours: milliseconds(seen.quantile(0.5))},
					{Ours: milliseconds(seen.quantile(0.99))},
					{Ours: float64(seen.lost)},
					{Ours: float64(seen.reordered)},
					{Ours: milliseconds(latency.GetP50().AsDuration())},
					{Ours: milliseconds(latency.GetP99().AsDuration())},
				}, nil
			})
		},
	}
}

// throughput is one TCP flow's over a link whose rate this machine does not
// reach, each packet one packet of the wire; then iperf3's over the same link.
func throughput() Measurement {
	const name = "wire, bulk: "
	const rate, duration = 4e9, 8 * time.Second // the ramp of slow start is 3% of it
	// The window is about 15 MB: more than the link's rate has in flight (10 MB), so that it bounds
	// nothing, less than the link and its queue of one BDP hold (20 MB). So whatever is lost, a
	// part of tcplab lost it. Of a window without bound some part of the machine
	// drops the rest, which says nothing.
	sysctls := map[string]string{"net.ipv4.tcp_rmem": "4096 24000000 24000000"}
	none := func(what string) Row { return Row{Name: name + what, Target: exactly(0), Every: true} }
	again := none("retransmits")
	again.Peer = "iperf3"
	return Measurement{
		Name: "wire, bulk", Limit: 30 * time.Second,
		Setup: "wire, bulk: 10 ms each way, 4 Gbit/s, a queue of one BDP, no offloads; one flow with a receive buffer of 24 MB for 8 s, and iperf3 over the same link.",
		Rows: []Row{
			{Name: name + "goodput", Unit: "Gbit/s", Digits: 2, Target: atLeast(2.5), Peer: "iperf3"},
			again,
			none("frames dropped by the queue"),
			none("frames dropped by the engine"),
			none("segments out of order"),
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newWire, func(e link.Engine) (_ []Figure, err error) {
				b, err := stand(ctx, e, delayed(oneWay, rate, nil), bulkFor(duration), sysctls)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				result, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				ways, err := b.link.Counters()
				if err != nil {
					return nil, err
				}
				receiver, err := observe.ReadCounters(b.server.NS)
				if err != nil {
					return nil, err
				}
				peer, err := iperf(ctx, b, "--time", fmt.Sprint(duration.Seconds()))
				if err != nil {
					return nil, err
				}
				return []Figure{
					{Ours: result.GetGoodputBps() / 1e9, Peer: peer.rate / 1e9},
					{Ours: float64(result.GetClient().GetTcpInfo().GetTotalRetrans()), Peer: peer.retransmits},
					{Ours: float64(ways[0].Overflow + ways[1].Overflow)},
					{Ours: float64(ways[0].Failed + ways[1].Failed)},
					{Ours: float64(receiver["TcpExtTCPOFOQueue"])},
				}, nil
			})
		},
	}
}

// unshaped is bulk over a veth with all its offloads, beside iperf3.
func unshaped() Measurement {
	const size = 2 << 30
	return Measurement{
		Name: "veth, bulk", Limit: 30 * time.Second,
		Setup: "veth, unshaped: one flow of 2 GiB with all offloads, and iperf3 with as much over the same pair. A flow's receiver has the kernel throw " +
			"away what it reads (MSG_TRUNC), iperf3's copies it.",
		Rows: []Row{{Name: "veth, unshaped: bulk", Unit: "Gbit/s", Digits: 2, Target: Target{Least: new(0.9), OfPeer: true}, Peer: "iperf3"}},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newVeth, func(e link.Engine) (_ []Figure, err error) {
				l := delayed(0, 0, nil)
				l.Offload = true
				b, err := stand(ctx, e, l, bulkBytes(size), nil)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				result, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				peer, err := iperf(ctx, b, "--bytes", fmt.Sprint(size))
				return []Figure{{Ours: result.GetGoodputBps() / 1e9, Peer: peer.rate / 1e9}}, err
			})
		},
	}
}

// queue is how far one flow fills the queue of a bottleneck.
func queue(name string, engine func() (link.Engine, error)) Measurement {
	const (
		rate  = 10e6
		limit = 1000
		frame = 1514 // bytes
		size  = 4 << 20
	)
	// A packet waits for all that are before it, and is sent.
	full := link.Shape{Rate: rate}.Serialization(frame * (limit + 1)).Seconds()
	return Measurement{
		Name: name + ": one flow fills a queue", Limit: 30 * time.Second,
		Setup: "queue: 10 ms each way, 10 Mbit/s, 1000 packets; one flow of 4 MiB. Full, a packet of 1514 bytes waits for 1000 others and is sent: 1.212 s.",
		Rows: []Row{
			{Name: name + ", queue: most packets that waited", Target: exactly(limit), Every: true},
			{Name: name + ", queue: most that TCP's RTT rose by", Unit: "s", Digits: 3, Target: between(round(0.97*full), round(1.03*full))},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(engine, func(e link.Engine) (_ []Figure, err error) {
				b, err := stand(ctx, e, delayed(oneWay, rate, packets(limit)), bulkBytes(size), nil)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				over, end := context.WithCancel(ctx)
				most := make(chan int, 1)
				go func() { most <- fullest(over, b.link) }()
				trip := &longest{}
				_, err = b.run(ctx, trip)
				end()
				waited := <-most
				if err != nil {
					return nil, err
				}
				return []Figure{{Ours: float64(waited)}, {Ours: (trip.rtt - 2*oneWay).Seconds()}}, nil
			})
		},
	}
}

// fullest watches the bottleneck's queue of direction 0 until ctx ends. Between
// two looks the queue of an engine that keeps no peak loses a few packets at most.
func fullest(ctx context.Context, l link.Link) int {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	most := 0
	for {
		if ways, err := l.Counters(); err == nil {
			most = max(most, ways[0].Queued, ways[0].PeakQueue)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return most
		}
	}
}

// longest keeps the greatest smoothed RTT that the client's TCP had.
type longest struct {
	mu  sync.Mutex
	rtt time.Duration
}

func (l *longest) Add(s *observe.Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.End == "client" {
		l.rtt = max(l.rtt, s.Info.RTT)
	}
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// round is to three decimals, as the figures are printed.
func round(x float64) float64 { return float64(int(x*1e3+0.5)) / 1e3 }
