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

	// idleQueue is the leaf's limit, in frames or bytes, where there is no rate: none.
	// netem hands all frames that are due to its child before it takes the first
	// one back, so that after a stall any number of them passes through the leaf.
	idleQueue = 1 << 30

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

// tree is the qdiscs that shape one direction, at the egress of the fabric's port.
//
//	netem      loss, then delay; takes the frame from its socket
//	└─ tbf     the bottleneck's rate
//	   └─ fifo the queue in front of the bottleneck
type tree struct {
	delay delayQdisc
	rate  rateQdisc
	queue queueQdisc
}

// plan is the tree for a shape. frame is the longest frame of the link in bytes.
func plan(shape link.Shape, seed uint64, frame int) (tree, error) {
	if err := shape.Validate(); err != nil {
		return tree{}, err
	}
	plain := link.Shape{Rate: shape.Rate, Delay: shape.Delay, Queue: link.Queue{Packets: shape.Queue.Packets, Bytes: shape.Queue.Bytes, Time: shape.Queue.Time}}
	plain.Loss.Probability = shape.Loss.Probability
	if !shape.Equal(plain) {
		return tree{}, errors.New("the netem engine carries a rate with a fifo, a delay and independent loss")
	}
	bits := float64(unlimited)
	queue := queueQdisc{limit: idleQueue}
	if shape.Rate > 0 {
		bits = float64(shape.Rate)
		bytes := shape.QueueBytes()
		switch {
		case shape.Rate < 8:
			return tree{}, fmt.Errorf("a rate of %d bit/s is less than the kernel's least, 8 bit/s", shape.Rate)
		case shape.Rate >= unlimited:
			return tree{}, fmt.Errorf("a rate of %d bit/s is not below 1 Tbit/s: leave it out for a link without a limit", shape.Rate)
		case shape.Queue.IsZero():
			return tree{}, errors.New("the queue has no limit: resolve its default first")
		case shape.Queue.Packets >= math.MaxInt32 || bytes >= math.MaxInt32-frame:
			return tree{}, errors.New("the queue's limit is beyond the kernel's, 2147483647")
		}
		// The head of the fifo is the frame in service (tbf looks at it and takes it
		// when its tokens have come), and that one does not count.
		if bytes > 0 {
			queue = queueQdisc{bytes: true, limit: uint32(bytes + frame)}
		} else {
			queue = queueQdisc{limit: uint32(shape.Queue.Packets + 1)}
		}
	}
	inFlight := arrivals * (shape.Delay + stall).Seconds()
	if shape.Rate > 0 {
		inFlight += float64(queue.limit)
	}
	return tree{
		delay: delayQdisc{
			delay: shape.Delay,
			loss:  threshold(shape.Loss.Probability),
			limit: uint32(min(inFlight, math.MaxInt32)),
			seed:  seed,
		},
		rate: rateQdisc{
			bytesPerSecond: uint64(math.Round(bits / 8)),
			burst:          uint32(frame) + uint32(bits/8*timerSlack.Seconds()),
			limit:          queue.limit,
		},
		queue: queue,
	}, nil
}

// limited reports whether the tree has a rate.
func (t tree) limited() bool { return t.rate.bytesPerSecond != unlimited/8 }

// shape is the inverse of plan.
func (t tree) shape(frame int) link.Shape {
	s := link.Shape{Delay: t.delay.delay, Loss: link.RandomLoss(probability(t.delay.loss))}
	if !t.limited() {
		return s
	}
	s.Rate = t.rate.bytesPerSecond * 8
	if t.queue.bytes {
		s.Queue.Bytes = int(t.queue.limit) - frame
	} else {
		s.Queue.Packets = int(t.queue.limit) - 1
	}
	return s
}
