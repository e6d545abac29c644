package netem

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	// unlimited is the rate of a bottleneck that is none: 1 Tbit/s. The tree keeps
	// its form without a rate, so that one can be set while traffic flows.
	unlimited = 1e12

	// timerSlack is how late the bottleneck's timer may fire without loss of
	// rate. The bucket holds what the rate yields in that time and one frame:
	// less, and each late timer costs rate; more, and an idle link lets a burst
	// through. A high-resolution timer fires within tens of microseconds, on a
	// busy machine within a millisecond.
	timerSlack = time.Millisecond

	// arrivals bounds what may be in flight, in frames per second of delay: more than
	// a kernel can pass through a veth. In front of the bottleneck no rate bounds it.
	arrivals = 4e6
	// stall is how much longer than its delay a frame may be in flight on a busy host.
	stall = 50 * time.Millisecond
)

// tree is the qdiscs that enforce one shape, at the egress of the fabric's port.
//
//	prio          only where frames are lost by number: an eBPF filter counts them
//	└─ netem      loss, duplicate, corrupt, then delay; takes the frame from its socket
//	   └─ tbf     the bottleneck's rate
//	      └─ leaf the queue in front of the bottleneck
type tree struct {
	counted link.Loss // by number; else zero
	delay   delayQdisc
	rate    rateQdisc
	queue   leaf

	jitter link.Jitter // whose distribution is netem's table
}

// plan is the tree for a shape. frame is the longest frame of the link in bytes. Without
// a rate the tree is ready to become one with a leaf like the given one; nil: a pfifo.
func plan(shape link.Shape, like leaf, seed uint64, frame int) (tree, error) {
	if err := shape.Validate(); err != nil {
		return tree{}, err
	}
	if err := errors.Join(checkJitter(shape.Jitter), checkDuplicate(shape)); err != nil {
		return tree{}, err
	}
	if shape.Delay > maxDelay {
		return tree{}, fmt.Errorf("a delay of %v is more than netem's %v", shape.Delay, maxDelay)
	}
	if !shape.Reorder.IsZero() && shape.Rate > 0 {
		return tree{}, errors.New("netem lets a frame that overtakes pass the bottleneck, too (netem_dequeue in net/sched/sch_netem.c takes it past the qdiscs below): " +
			"leave reorder or the rate out, let jitter reorder, or take the wire engine")
	}
	t := tree{jitter: shape.Jitter}
	bits, burst := float64(unlimited), uint32(0)
	if shape.Rate > 0 {
		if err := checkRate(shape, frame); err != nil {
			return tree{}, err
		}
		queue, err := newLeaf(shape.Queue, shape.Rate, frame)
		if err != nil {
			return tree{}, err
		}
		t.queue, bits, burst = queue, float64(shape.Rate), uint32(shape.Burst)
	} else {
		if like == nil {
			like = fifoQdisc{}
		}
		t.queue = idle(like)
	}
	t.rate = rateQdisc{
		bytesPerSecond: uint64(math.Round(bits / 8)),
		overhead:       shape.Overhead,
		burst:          base(uint64(bits), frame) + burst,
		limit:          t.queue.limits(),
	}
	if t.rate.limit == 0 {
		t.rate.limit = 1 // or tbf would have no queue until the leaf comes
	}
	t.delay = delayQdisc{
		delay:     shape.Delay,
		jitter:    shape.Jitter.Amount,
		reorders:  shape.Jitter.Reorder,
		duplicate: drawOf(shape.Duplicate),
		corrupt:   drawOf(shape.Corrupt),
		chain:     chainOf(shape.Loss),
		seed:      seed,
	}
	if counts(shape.Loss) {
		t.counted = shape.Loss
	} else {
		t.delay.loss = drawOf(shape.Loss.Chance)
	}
	if !shape.Reorder.IsZero() {
		t.delay.overtake = drawOf(shape.Reorder.Chance)
		if shape.Reorder.Gap > math.MaxInt32 {
			return tree{}, fmt.Errorf("a reorder gap of %d is beyond netem's", shape.Reorder.Gap)
		}
		t.delay.gap = uint32(max(1, shape.Reorder.Gap))
	}
	if !shape.Down {
		inFlight := arrivals*(shape.Delay+link.Spread*shape.Jitter.Amount+stall).Seconds() + waits(t.queue, shape.Rate)
		t.delay.limit = uint32(min(inFlight, math.MaxInt32))
	}
	return t, nil
}

// waits is how many frames a leaf with a rate holds at most.
func waits(queue leaf, rate uint64) float64 {
	switch {
	case rate == 0:
		return 0
	case queue.limits() == 0:
		return idleQueue
	}
	return float64(queue.limits())
}

// limited reports whether the tree has a rate.
func (t tree) limited() bool { return t.rate.bytesPerSecond != unlimited/8 }

// become says why a tree that stands cannot turn into another in place.
func (t tree) become(to tree) error {
	if !equalCounts(t.counted, to.counted) {
		return errors.New("packets that are lost by their number, listed or every nth, cannot be changed while traffic flows: make the link anew")
	}
	return t.queue.become(to.queue)
}

func equalCounts(a, b link.Loss) bool {
	return link.Shape{Loss: a}.Equal(link.Shape{Loss: b})
}

// shape is the inverse of plan.
func (t tree) shape(frame int) link.Shape {
	s := link.Shape{
		Delay:     t.delay.delay,
		Duplicate: t.delay.duplicate.chance(),
		Corrupt:   t.delay.corrupt.chance(),
		Down:      t.delay.limit == 0,
		Loss:      t.counted,
	}
	if t.delay.jitter > 0 {
		s.Jitter = link.Jitter{Amount: t.delay.jitter, Distribution: t.jitter.Distribution, Quantiles: t.jitter.Quantiles, Reorder: t.delay.reorders}
	}
	if t.delay.gap > 0 {
		s.Reorder.Chance = t.delay.overtake.chance()
		if t.delay.gap > 1 {
			s.Reorder.Gap = int(t.delay.gap)
		}
	}
	if t.delay.chain.kind != 0 {
		t.delay.chain.set(&s.Loss)
	} else if !counts(t.counted) {
		s.Loss.Chance = t.delay.loss.chance()
	}
	if !t.limited() {
		return s
	}
	s.Rate = t.rate.bytesPerSecond * 8
	s.Overhead = t.rate.overhead
	s.Burst = t.rate.beyond(base(s.Rate, frame))
	s.Queue = t.queue.queue(frame)
	return s
}
