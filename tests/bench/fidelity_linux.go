package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
	"github.com/tcplab/tcplab/tests/traffic"
)

// fidelity is how far rates, delays and losses come out from what was asked, by
// datagrams from program to program. top is the highest rate that a sender
// here fills, in bit/s; late is how far a median delay may be off, in ms.
func fidelity(name string, engine func() (link.Engine, error), top, late float64) Measurement {
	rates := []float64{1e6, 1e7, 1e8, 1e9}
	for rates[len(rates)-1] > top {
		rates = rates[:len(rates)-1]
	}
	delays := []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond}
	losses := []float64{0.001, 0.01, 0.05, 0.2}
	return Measurement{
		Name: name + ", fidelity", Limit: 2 * time.Minute,
		Setup: fmt.Sprintf("fidelity: UDP datagrams; rates of 1 Mbit/s to %s in a train behind the bottleneck, delays of 1 to 500 ms (median of 100), losses of 0.1 to 20%% (8000 each, "+
			"within the interval that 99.9%% of right links are in, all four of them).", gigabits(top)),
		Rows: []Row{
			{Name: name + ": rate off by, at most", Unit: "%", Digits: 2, Target: atMost(1)},
			{Name: name + ": delay off by, at most", Unit: "ms", Digits: 3, Target: atMost(late)},
			{Name: name + ": losses outside their interval", Target: exactly(0)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(engine, func(e link.Engine) ([]Figure, error) {
				var rateOff, delayOff, outside float64
				for _, rate := range rates {
					off, err := rateError(ctx, e, rate)
					if err != nil {
						return nil, fmt.Errorf("rate %g: %w", rate, err)
					}
					rateOff = max(rateOff, off)
				}
				for _, delay := range delays {
					off, err := delayError(ctx, e, delay)
					if err != nil {
						return nil, fmt.Errorf("delay %v: %w", delay, err)
					}
					delayOff = max(delayOff, milliseconds(off))
				}
				for _, loss := range losses {
					ok, err := lossHolds(ctx, e, loss)
					if err != nil {
						return nil, fmt.Errorf("loss %g: %w", loss, err)
					}
					if !ok {
						outside++
					}
				}
				return []Figure{{Ours: 100 * rateOff}, {Ours: delayOff}, {Ours: outside}}, nil
			})
		},
	}
}

func gigabits(bps float64) string {
	if bps >= 1e9 {
		return fmt.Sprintf("%g Gbit/s", bps/1e9)
	}
	return fmt.Sprintf("%g Mbit/s", bps/1e6)
}

// send builds a link of the shape and sends one stream over it.
func send(ctx context.Context, e link.Engine, shape *tcplabv1.Shape, s traffic.Stream, linger time.Duration) (_ traffic.Seen, err error) {
	b, err := stand(ctx, e, &tcplabv1.Link{Forward: &tcplabv1.Direction{Shape: shape, Seed: 1}}, transactions(1), nil)
	if err != nil {
		return traffic.Seen{}, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	node := func(fd int) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd) }
	seen, err := traffic.Measure(ctx,
		traffic.Node{Path: node(b.client.NS.FD()), Address: b.client.Addr},
		traffic.Node{Path: node(b.server.NS.FD()), Address: b.server.Addr},
		[]traffic.Stream{s}, linger)
	if err != nil {
		return traffic.Seen{}, err
	}
	return seen[0], nil
}

// rateError is how far the rate comes out from what was asked, as a share.
func rateError(ctx context.Context, e link.Engine, rate float64) (float64, error) {
	const frame = 1514
	// At least 40 frames, and 200 ms of them.
	count := max(40, int(rate/8*0.2/frame))
	lasts := time.Duration(float64(count*frame*8) / rate * 1e9)
	seen, err := send(ctx, e, &tcplabv1.Shape{RateBps: rate, Queue: packets(uint32(count))}, traffic.Stream{Port: 4000, Frame: frame, Count: count}, lasts)
	if err != nil {
		return 0, err
	}
	if len(seen.Arrivals) < count {
		return 0, fmt.Errorf("%d of %d datagrams came", len(seen.Arrivals), count)
	}
	// An idle bottleneck may let a few through at once.
	return math.Abs(slope(seen.Arrivals[count/10:])*frame*8/rate - 1), nil
}

// slope is the rate of arrivals a second: that of the straight line which fits them best, so that
// no single late one counts for much.
func slope(arrivals []traffic.Arrival) float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for i, a := range arrivals {
		x, y := float64(i), (a.At - arrivals[0].At).Seconds()
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	return (n*sumXX - sumX*sumX) / (n*sumXY - sumX*sumY)
}

func delayError(ctx context.Context, e link.Engine, delay time.Duration) (time.Duration, error) {
	seen, err := send(ctx, e, &tcplabv1.Shape{Delay: durationpb.New(delay)}, traffic.Stream{Port: 4000, Frame: 100, Count: 100, Every: 3 * time.Millisecond}, delay)
	if err != nil {
		return 0, err
	}
	if len(seen.Arrivals) < 100 {
		return 0, fmt.Errorf("%d of 100 datagrams came", len(seen.Arrivals))
	}
	return (traffic.Quantile(seen.Delays(), 0.5) - delay).Abs(), nil
}

// lossHolds reports whether a loss lies within the interval that 99.9% of right links are in:
// 3.29 standard deviations of a binomial, and half a datagram.
func lossHolds(ctx context.Context, e link.Engine, loss float64) (bool, error) {
	const n = 8000
	seen, err := send(ctx, e, &tcplabv1.Shape{Loss: loss, Delay: durationpb.New(time.Millisecond)}, traffic.Stream{Port: 4000, Frame: 100, Count: n, Every: 50 * time.Microsecond}, 0)
	if err != nil {
		return false, err
	}
	off := math.Abs(float64(len(seen.Lost())) - n*loss)
	return off <= 3.29*math.Sqrt(n*loss*(1-loss))+0.5, nil
}
