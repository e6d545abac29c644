package verify

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// channel probes one direction.
type channel struct {
	from, to *socket
	plan     schedule
	lossy    bool // losses are asked for: do not wait for what is missing once the last frame is here
}

func newChannel(spec link.Spec, direction int, plan schedule) (*channel, error) {
	from, err := newSender(spec.Ends[direction])
	if err != nil {
		return nil, err
	}
	to, err := newReceiver(spec.Ends[1-direction])
	if err != nil {
		return nil, errors.Join(err, from.close())
	}
	return &channel{from: from, to: to, plan: plan, lossy: spec.Directions[direction].Shape.Loss.Mean() > 0}, nil
}

func (c *channel) close() error { return errors.Join(c.from.close(), c.to.close()) }

// measure sends all that is planned and returns what was seen of it. It ends when all
// has arrived, or when what is missing will not come any more, at the deadline at
// the latest.
func (c *channel) measure(ctx context.Context, deadline time.Time) (observation, error) {
	nonce := rand.Uint64()
	var seen observation
	var until atomic.Int64 // when listening ends, in ns since the epoch; the sender brings it forward
	until.Store(deadline.UnixNano())
	var sent atomic.Bool

	group, ctx := errgroup.WithContext(ctx)
	starts := make([]time.Duration, c.plan.trains) // of trains, since the epoch
	group.Go(func() error {
		defer func() {
			end := time.Now().Add(c.plan.drain + c.plan.grace)
			if end.Before(deadline) {
				until.Store(end.UnixNano())
			} else {
				seen.cut = true
			}
			sent.Store(true)
		}()
		return c.send(ctx, nonce, deadline, &seen, starts)
	})
	arrivals := make([][]time.Duration, c.plan.trains)
	var delays []time.Duration
	received := 0
	group.Go(func() error {
		frame, control := make([]byte, 128), make([]byte, controlLen())
		known := make(map[kind]*bits)
		missing := c.plan.frames()
		last := false // the last frame is here
		for {
			if sent.Load() && (missing == 0 || last && c.lossy) || time.Now().UnixNano() > until.Load() || ctx.Err() != nil {
				return ctx.Err()
			}
			p, arrived, ok, err := c.to.receive(frame, control)
			if err != nil {
				return err
			}
			if !ok || p.nonce != nonce || known[p.kind].has(p.seq) {
				continue
			}
			if known[p.kind] == nil {
				known[p.kind] = new(bits)
			}
			known[p.kind].add(p.seq)
			missing--
			switch train := int(p.kind) - int(kindTrain); {
			case p.kind == kindDelay:
				delays = append(delays, arrived-p.sent)
			case p.kind == kindLoss:
				received++
				if int(p.seq)%c.plan.lossBurst == 0 {
					delays = append(delays, arrived-p.sent) // the first of a burst finds the link idle too
				}
			case train >= 0 && train < len(arrivals):
				arrivals[train] = append(arrivals[train], arrived)
				last = last || train == len(arrivals)-1 && int(p.seq) == c.plan.train-1
			}
		}
	})
	if err := group.Wait(); err != nil {
		return observation{}, err
	}
	end := epoch()
	seen.delays, seen.received = delays, received
	for i := range seen.trains {
		seen.trains[i].arrivals = arrivals[i]
		seen.trains[i].waited = end - starts[i]
	}
	var err error
	seen.overrun, err = c.to.overrun()
	return seen, err
}

// send sends all that is planned, and notes in seen and starts what it did. It ends at
// the deadline, or with ctx.
func (c *channel) send(ctx context.Context, nonce uint64, deadline time.Time, seen *observation, starts []time.Duration) error {
	pace := time.NewTimer(0)
	defer pace.Stop()
	// wait waits until then and reports whether there is time left to go on.
	wait := func(then time.Time) bool {
		pace.Reset(time.Until(then))
		select {
		case <-ctx.Done():
			return false
		case now := <-pace.C:
			return now.Before(deadline)
		}
	}
	frame := make([]byte, max(smallFrame, c.plan.trainFrame))
	put := func(length int, kind kind, seq int) error {
		probe{nonce: nonce, kind: kind, seq: uint32(seq), sent: epoch()}.put(frame, c.from.address)
		return c.from.send(frame[:length])
	}

	next := time.Now()
	for i := range c.plan.delayProbes {
		if !wait(next) {
			return ctx.Err()
		}
		if err := put(smallFrame, kindDelay, i); err != nil {
			return err
		}
		next = next.Add(c.plan.delaySpacing)
	}
	for seen.sent < c.plan.lossProbes {
		if !wait(next) {
			return ctx.Err()
		}
		for range min(c.plan.lossBurst, c.plan.lossProbes-seen.sent) {
			if err := put(smallFrame, kindLoss, seen.sent); err != nil {
				return err
			}
			seen.sent++
		}
		// From now, not from when it was due: a late host must not send two
		// bursts at once into a queue that holds one.
		next = time.Now().Add(c.plan.lossSpacing)
	}
	for i := range c.plan.trains {
		if !wait(next) {
			return ctx.Err()
		}
		begin := time.Now()
		starts[i] = epoch()
		for n := range c.plan.train {
			if err := put(c.plan.trainFrame, kindTrain+kind(i), n); err != nil {
				return err
			}
		}
		end := time.Now()
		seen.trains = append(seen.trains, train{frames: c.plan.train, bytes: c.plan.trainFrame, sending: end.Sub(begin)})
		next = end.Add(c.plan.trainLasts + trainPause)
	}
	return nil
}

// epoch is the time since the epoch, on the clock of the kernel's times of arrival.
func epoch() time.Duration { return time.Duration(time.Now().UnixNano()) }

// bits is a set of small numbers; nil is empty.
type bits []uint64

func (b *bits) has(n uint32) bool {
	return b != nil && int(n/64) < len(*b) && (*b)[n/64]&(1<<(n%64)) != 0
}

func (b *bits) add(n uint32) {
	if n > maxLossProbes {
		return // none of ours
	}
	for int(n/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}
