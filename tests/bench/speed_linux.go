package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/wire"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// shapedBothWays is a link with a delay and a rate in each direction.
func shapedBothWays(delay time.Duration, rate float64) *tcplabv1.Link {
	way := func() *tcplabv1.Direction {
		return &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(delay), RateBps: rate}}
	}
	return &tcplabv1.Link{Forward: way(), Backward: way()}
}

// carried is what a link's two directions have done with one flow.
type carried struct {
	result *tcplabv1.FlowResult
	ways   [2]link.Counters
	late   [2]link.Lateness
}

// carry has the wire engine carry one bulk flow over a link. The window is of so many bytes at most.
func carry(ctx context.Context, l *tcplabv1.Link, duration time.Duration, rmem string) (c carried, err error) {
	_, err = with(newWire, func(e link.Engine) (_ []Figure, err error) {
		b, err := stand(ctx, e, l, bulkFor(duration), map[string]string{"net.ipv4.tcp_rmem": rmem, "net.ipv4.tcp_wmem": "4096 65536 67108864"})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		if c.result, err = b.run(ctx, nil); err != nil {
			return nil, err
		}
		if c.ways, err = b.link.Counters(); err != nil {
			return nil, err
		}
		c.late, err = b.link.(*wire.Link).Lateness()
		return nil, err
	})
	return c, err
}

// lost is how many frames a link did not deliver, both ways.
func (c carried) lost() float64 {
	var n uint64
	for _, way := range c.ways {
		n += way.Overflow + way.Failed
	}
	return float64(n)
}

// packetRate is how many packets a second one TCP flow has the engine carry, each
// packet one packet of the wire.
func packetRate() Measurement {
	const name = "wire, both ways shaped: "
	const rate, duration = 10e9, 6 * time.Second
	return Measurement{
		Name: "wire, packets", Limit: 30 * time.Second,
		Setup: "wire, both ways shaped: 10 ms, 10 Gbit/s and a queue of one BDP in each direction, no offloads; one bulk flow with a receive buffer of 28 MB for 6 s, slow start included.",
		Rows: []Row{
			{Name: name + "data packets", Unit: "/s", Target: atLeast(280_000)},
			{Name: name + "packets with their ACKs", Unit: "/s", Target: atLeast(350_000)},
			{Name: name + "lateness p50", Unit: "µs"},
			{Name: name + "retransmits, and frames dropped", Target: exactly(0), Every: true},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			c, err := carry(ctx, shapedBothWays(oneWay, rate), duration, "4096 28000000 28000000")
			if err != nil {
				return nil, err
			}
			second := func(n uint64) float64 { return float64(n) / duration.Seconds() }
			return []Figure{
				{Ours: second(c.ways[0].Delivered)},
				{Ours: second(c.ways[0].Delivered + c.ways[1].Delivered)},
				{Ours: microseconds(c.late[0].Quantile(0.5))},
				{Ours: float64(c.result.GetClient().GetTcpInfo().GetTotalRetrans()) + c.lost()},
			}, nil
		},
	}
}

// superPackets is one flow's throughput where the ends segment nothing.
func superPackets() Measurement {
	const name = "wire, both ways shaped, with TSO: "
	const rate, duration = 20e9, 6 * time.Second
	return Measurement{
		Name: "wire, TSO", Limit: 30 * time.Second,
		Setup: "wire, with TSO: 10 ms, 20 Gbit/s and a queue of one BDP in each direction, all offloads; one bulk flow with a receive buffer of 40 MB for 6 s, slow start included.",
		Rows: []Row{
			{Name: name + "goodput", Unit: "Gbit/s", Digits: 2, Target: atLeast(5)},
			{Name: name + "frames dropped", Target: exactly(0), Every: true},
			// A flow whose thread was held up sends its last segment again (a tail loss
			// probe, RFC 8985), though nothing was lost.
			{Name: name + "retransmits", Target: exactly(0)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			l := shapedBothWays(oneWay, rate)
			l.Offload = true
			c, err := carry(ctx, l, duration, "4096 40000000 40000000")
			if err != nil {
				return nil, err
			}
			return []Figure{
				{Ours: c.result.GetGoodputBps() / 1e9},
				{Ours: c.lost()},
				{Ours: float64(c.result.GetClient().GetTcpInfo().GetTotalRetrans())},
			}, nil
		},
	}
}

// lateness is how well the engine keeps time at a moderate rate.
func lateness() Measurement {
	const name = "wire, 100 Mbit/s: "
	const rate, duration = 100e6, 4 * time.Second
	return Measurement{
		Name: "wire, lateness", Limit: 30 * time.Second,
		Setup: "wire, 100 Mbit/s: 10 ms and 100 Mbit/s in each direction, a queue of one BDP; one bulk flow for 4 s. Lateness is from when a frame is due until the receiver has it.",
		Rows: []Row{
			{Name: name + "lateness of data p50", Unit: "µs", Target: atMost(60)},
			{Name: name + "lateness of data p99", Unit: "µs", Target: atMost(200)},
			{Name: name + "lateness of ACKs p50", Unit: "µs", Target: atMost(60)},
			{Name: name + "lateness of ACKs p99", Unit: "µs", Target: atMost(200)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			c, err := carry(ctx, shapedBothWays(oneWay, rate), duration, "4096 4000000 4000000")
			if err != nil {
				return nil, err
			}
			var figures []Figure
			for _, late := range c.late {
				figures = append(figures, Figure{Ours: microseconds(late.Quantile(0.5))}, Figure{Ours: microseconds(late.Quantile(0.99))})
			}
			return figures, nil
		},
	}
}

func microseconds(d time.Duration) float64 { return d.Seconds() * 1e6 }
