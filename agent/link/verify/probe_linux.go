package verify

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// channel probes one direction, all its streams at once.
type channel struct {
	from, to *socket
	clock    clock
	probes   []*prober
	nonces   []uint32 // of all attempts
}

// prober is what a channel sends into one stream.
type prober struct {
	subject
	plan  plan
	index uint8
	// Of the sender and of the receiver, by kind of packet: small frames, and by train.
	small, expected []mold
	trains          [][]mold
}

func newChannel(spec link.Spec, direction int, subjects []subject, plans []plan) (*channel, error) {
	from, err := newSender(spec.Ends[direction])
	if err != nil {
		return nil, err
	}
	to, err := newReceiver(spec.Ends[1-direction])
	if err != nil {
		return nil, errors.Join(err, from.close())
	}
	c := &channel{from: from, to: to, clock: newClock()}
	for i, s := range subjects {
		p := &prober{subject: s, plan: plans[i], index: uint8(i)}
		for _, k := range s.kinds {
			p.small = append(p.small, newMold(k, from.address, p.plan.small))
			p.expected = append(p.expected, newMold(k, from.address, p.plan.small))
		}
		for _, t := range p.plan.trains {
			var molds []mold
			for _, k := range s.kinds {
				molds = append(molds, newMold(k, from.address, t.size))
			}
			p.trains = append(p.trains, molds)
		}
		c.probes = append(c.probes, p)
	}
	return c, nil
}

func (c *channel) close() error { return errors.Join(c.from.close(), c.to.close()) }

// measure sends all that is planned and returns what was seen of it, by stream. It ends when all
// has arrived, or when what is missing will not come any more, at the deadline at
// the latest.
func (c *channel) measure(ctx context.Context, deadline time.Time) ([]observation, error) {
	nonce := rand.Uint32()
	c.nonces = append(c.nonces, nonce)
	seen := make([]observation, len(c.probes))
	var until atomic.Int64 // when listening ends, in ns since the epoch; grows with each sender's end
	var senders atomic.Int32
	senders.Store(int32(len(c.probes)))

	group, ctx := errgroup.WithContext(ctx)
	for i, p := range c.probes {
		group.Go(func() error {
			defer func() {
				end := time.Now().Add(p.plan.drain + p.plan.grace)
				if end.After(deadline) {
					end, seen[i].cut = deadline, true
				}
				for old := until.Load(); old < end.UnixNano() && !until.CompareAndSwap(old, end.UnixNano()); old = until.Load() {
				}
				senders.Add(-1)
			}()
			return p.send(ctx, c, nonce, deadline, &seen[i])
		})
	}
	arrivals := make([]*arrivals, len(c.probes))
	for i, p := range c.probes {
		arrivals[i] = newArrivals(p)
	}
	foreign := false
	group.Go(func() error {
		frame, control := make([]byte, sight), make([]byte, controlLen())
		now, last := c.clock.now(), time.Duration(deadline.UnixNano())
		for {
			over := senders.Load() == 0
			if now > last || over && now > time.Duration(until.Load()) || over && complete(arrivals) || ctx.Err() != nil {
				return ctx.Err()
			}
			n, arrived, err := c.to.receive(frame, control)
			if err != nil {
				return err
			}
			now = arrived // which saves a reading of the clock: in a guest kernel that is a system call
			if n == 0 {
				now = c.clock.now()
				for _, a := range arrivals {
					a.quiet++
				}
				continue
			}
			p, ok := parse(frame[:n], nonce)
			switch {
			case ok && int(p.stream) < len(arrivals):
				arrivals[p.stream].take(p, arrived, frame[:n])
			case !c.known(frame[:n]):
				foreign = true
			}
		}
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	end := epoch()
	overrun, err := c.to.overrun()
	for i, a := range arrivals {
		a.enter(&seen[i], end)
		seen[i].overrun, seen[i].foreign = overrun, foreign
	}
	return seen, err
}

// known reports whether a frame is a late probe of an earlier attempt.
func (c *channel) known(frame []byte) bool {
	return slices.ContainsFunc(c.nonces, func(nonce uint32) bool {
		_, ok := parse(frame, nonce)
		return ok
	})
}

func complete(all []*arrivals) bool {
	return !slices.ContainsFunc(all, func(a *arrivals) bool { return !a.complete() })
}

// arrivals are the frames of one stream as they come in.
type arrivals struct {
	*prober
	frames  []sighting
	trains  [][]time.Duration
	missing int
	arrived int
	latest  uint32 // the highest number so far, and one
	last    bool   // the last frame is here
	quiet   int    // times in a row that nothing came for wakeup
}

func newArrivals(p *prober) *arrivals {
	n := p.plan.frames()
	return &arrivals{prober: p, frames: make([]sighting, n), trains: make([][]time.Duration, len(p.plan.trains)), missing: n}
}

// complete reports whether nothing more will come.
func (a *arrivals) complete() bool {
	s := a.shape
	if s.Duplicate.Probability > 0 && a.quiet < 3 {
		return false
	}
	inOrder := !s.Jitter.Reorder && s.Reorder.IsZero()
	lossy := !s.Loss.IsZero()
	return a.missing == 0 || a.last && inOrder && lossy
}

func (a *arrivals) take(p probe, arrived time.Duration, frame []byte) {
	a.quiet = 0
	if int(p.seq) >= len(a.frames) {
		return // none of ours
	}
	f := &a.frames[p.seq]
	f.copies++
	if f.copies == 1 {
		a.missing--
		a.arrived++
		f.rank = a.arrived
		f.arrived = arrived
		f.overtaken = p.seq+1 < a.latest
		a.latest = max(a.latest, p.seq+1)
		a.last = a.last || int(p.seq) == len(a.frames)-1
	}
	train := int(p.seq) - a.plan.delayProbes - a.plan.counted
	if train < 0 {
		if !bytes.Equal(a.expected[int(p.seq)%len(a.expected)].pour(p), frame) {
			f.damaged++
		}
		return
	}
	for i, t := range a.plan.trains {
		if train < t.frames {
			a.trains[i] = append(a.trains[i], arrived)
			return
		}
		train -= t.frames
	}
}

// enter puts what has come in beside what was sent.
func (a *arrivals) enter(seen *observation, end time.Duration) {
	for i := range seen.frames {
		sent := seen.frames[i].sent
		seen.frames[i] = a.frames[i]
		seen.frames[i].sent = sent
	}
	for i := range seen.trains {
		seen.trains[i].arrivals = a.trains[i]
		seen.trains[i].waited = end - seen.trains[i].begin
	}
}

// send sends all that is planned, and notes in seen what it did. It ends at
// the deadline, or with ctx.
func (p *prober) send(ctx context.Context, c *channel, nonce uint32, deadline time.Time, seen *observation) error {
	if len(p.kinds) == 0 {
		return nil
	}
	pace := time.NewTimer(0)
	defer pace.Stop()
	// wait waits until then and reports whether there is time left to go on.
	wait := func(then time.Time) bool {
		left := time.Until(then)
		if left <= 0 {
			return ctx.Err() == nil && then.Add(-left).Before(deadline)
		}
		pace.Reset(left)
		select {
		case <-ctx.Done():
			return false
		case now := <-pace.C:
			return now.Before(deadline)
		}
	}
	put := func(molds []mold) error {
		seq := len(seen.frames)
		sent := c.clock.now()
		seen.frames = append(seen.frames, sighting{sent: sent})
		return c.from.send(molds[seq%len(molds)].pour(probe{nonce: nonce, stream: p.index, seq: uint32(seq), sent: sent}))
	}
	seen.frames = make([]sighting, 0, p.plan.frames())

	next := time.Now()
	for range p.plan.delayProbes {
		if !wait(next) {
			return ctx.Err()
		}
		if err := put(p.small); err != nil {
			return err
		}
		next = next.Add(p.plan.delaySpacing)
	}
	for seen.counted < p.plan.counted {
		if !wait(next) {
			return ctx.Err()
		}
		for range min(p.plan.countBurst, p.plan.counted-seen.counted) {
			if err := put(p.small); err != nil {
				return err
			}
			seen.counted++
		}
		// From now, not from when it was due: a late host must not send two
		// bursts at once into a queue that holds one.
		next = time.Now().Add(p.plan.countSpacing)
	}
	for i, t := range p.plan.trains {
		if !wait(next) {
			return ctx.Err()
		}
		begin := time.Now()
		begun := c.clock.now()
		for range t.frames {
			if err := put(p.trains[i]); err != nil {
				return err
			}
		}
		end := time.Now()
		seen.trains = append(seen.trains, train{tells: t.tells, frames: t.frames, bytes: t.size, lasts: t.lasts, begin: begun, sending: end.Sub(begin)})
		next = end.Add(t.lasts + p.plan.pause)
	}
	return nil
}

// clock tells the time since the epoch by one reading of the monotonic clock, where time.Now takes two.
type clock struct {
	start time.Time
	epoch time.Duration
}

func newClock() clock {
	now := time.Now()
	return clock{start: now, epoch: time.Duration(now.UnixNano())}
}

func (c clock) now() time.Duration { return c.epoch + time.Since(c.start) }

// epoch is the time since the epoch, on the clock of the kernel's times of arrival.
func epoch() time.Duration { return time.Duration(time.Now().UnixNano()) }
