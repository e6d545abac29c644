package fleet

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// How a clock is followed. The filter is NTP's: of the last probes the one with the shortest round trip is the best
// (RFC 5905, section 10), and what has passed since adds to its error what two clocks may drift apart.
const (
	probeEvery    = 4 * time.Second
	answerWithin  = 5 * time.Second
	burst         = 4                      // probes at the begin of a session, one after another
	kept          = 8                      // RFC 5905, section 10: the clock filter has 8 stages
	driftMost     = 100e-6                 // seconds a second: adjtimex(2) slews by at most 500 ppm; crystals are within 100
	driftOver     = 10 * time.Second       // less says nothing: the probes' own errors would be all of it
	readingExcess = 100 * time.Microsecond // a gRPC handler is scheduled late at times; it is in the round trip as well
)

// probe is one exchange of four timestamps.
type probe struct {
	at        time.Time // by the controller's monotonic clock, in the middle
	offset    time.Duration
	roundTrip time.Duration
}

// clock is what is known of a host's clock. Methods are safe for concurrent use.
type clock struct {
	mu     sync.Mutex
	probes []probe // the last ones, oldest first
	best   probe   // zero: none yet
	first  probe   // the best there was when the clock was last set
	drift  float64
}

func newClock() *clock { return &clock{} }

// follow probes the agent's clock until ctx ends. An agent that does not answer in time is silent.
func (c *clock) follow(ctx context.Context, agent tcplabv1.AgentServiceClient, silent func()) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		call, cancel := context.WithTimeout(ctx, answerWithin)
		err := c.once(call, agent)
		late := call.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && late {
			silent()
			return
		}
		if n < burst && err == nil {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *clock) once(ctx context.Context, agent tcplabv1.AgentServiceClient) error {
	asked := time.Now()
	answer, err := agent.ReadClock(ctx, &tcplabv1.ReadClockRequest{})
	elapsed := time.Since(asked) // monotonic: a jump of the wall clock is none of the round trip
	if err != nil {
		return err
	}
	c.add(measure(asked, elapsed, answer.GetReceived().AsTime(), answer.GetSent().AsTime()))
	return nil
}

// measure is RFC 5905's offset θ = ((t2-t1)+(t3-t4))/2 and delay δ = (t4-t1)-(t3-t2). asked is t1, and t4 is elapsed later.
func measure(asked time.Time, elapsed time.Duration, received, sent time.Time) probe {
	wall := asked.Round(0)
	answered := wall.Add(elapsed)
	return probe{
		at:        asked.Add(elapsed / 2),
		offset:    (received.Sub(wall) + sent.Sub(answered)) / 2,
		roundTrip: max(0, elapsed-sent.Sub(received)),
	}
}

func (c *clock) add(p probe) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.probes) == kept {
		c.probes = c.probes[1:]
	}
	c.probes = append(c.probes, p)
	best := c.probes[0]
	for _, candidate := range c.probes {
		// A probe whose offset is beyond what both errors allow says that a clock was set: what is older is void.
		if jumped(p, candidate) {
			c.probes = []probe{p}
			best = p
			c.best, c.first, c.drift = probe{}, probe{}, 0
			break
		}
		if bound(candidate, p.at) < bound(best, p.at) {
			best = candidate
		}
	}
	if c.best.at.IsZero() || best.at.After(c.best.at) {
		c.best = best
	}
	if c.first.at.IsZero() {
		c.first = best
	}
	if apart := c.best.at.Sub(c.first.at); apart >= driftOver {
		c.drift = float64(c.best.offset-c.first.offset) / float64(apart)
	}
}

func jumped(a, b probe) bool {
	return (a.offset - b.offset).Abs() > bound(a, a.at)+bound(b, a.at)+readingExcess
}

// bound is the most that a probe's offset can be wrong at a time.
func bound(p probe, at time.Time) time.Duration {
	return p.roundTrip/2 + time.Duration(driftMost*float64(at.Sub(p.at).Abs()))
}

// message is the clock now; nil: nothing is known.
func (c *clock) message() *tcplabv1.HostClock {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.best.at.IsZero() {
		return nil
	}
	return &tcplabv1.HostClock{
		Offset: durationpb.New(c.best.offset), Error: durationpb.New(bound(c.best, time.Now())), Drift: c.drift,
		RoundTrip: durationpb.New(c.best.roundTrip), Time: timestamppb.New(c.best.at),
	}
}
