// Package link says what a link does to packets and who enforces it.
//
// A [Shape] is a pure value with real units: what happens to one stream of
// packets. A [Direction] is one way across a link, a [Spec] a whole link, and an
// [Engine] turns
// a Spec into a working [Link], changes it while traffic flows, and reads back
// what it applied. Engines are netem (kernel qdiscs in a fabric namespace), wire
// (tcplab's own userspace link) and veth (no shaping at all).
//
// The package refuses shapes that contradict themselves or that an engine
// cannot enforce, with the reason, before anything is built.
package link

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// FrameOverhead is the Ethernet header that rates and byte limits count
// beside the IP packet; preamble, FCS and gap are not counted, as in the
// kernel's qdiscs (skb->len on egress).
const FrameOverhead = 14

// MinQueuePackets is the least queue that the default gives a shaped direction, in packets.
const MinQueuePackets = 100

// Shape is what happens to one stream of packets, in this order: lost,
// delayed, held in the queue of the bottleneck, sent at Rate. The delay comes
// first in every engine because it takes the packet from its socket: a
// queue that still belongs to the sender's TCP never fills (TCP Small Queues).
// The zero value passes everything at once.
type Shape struct {
	Rate  uint64        // bit/s of frames with their Ethernet header; 0: unlimited
	Delay time.Duration // one way, of each packet, before the bottleneck; ≥ 0
	Loss  float64       // probability in [0,1] that a packet is lost, independently of others
	Queue Queue         // in front of the bottleneck; without Rate it must be zero
}

// Queue bounds what waits for a bottleneck: at most one field is set. What is
// being sent and what is in flight (Delay) do not count. The zero value means the default,
// which [Direction.Resolve] fills in.
type Queue struct {
	Packets int           // frames
	Bytes   int           // sum of frame lengths
	Time    time.Duration // what Rate sends in this time
}

// IsZero reports whether no limit is set.
func (q Queue) IsZero() bool { return q == Queue{} }

// IsZero reports whether the shape passes everything at once.
func (s Shape) IsZero() bool { return s == Shape{} }

// Validate says what is wrong with the shape, or nil.
func (s Shape) Validate() error {
	var errs []error
	if s.Delay < 0 {
		errs = append(errs, fmt.Errorf("delay %v is negative", s.Delay))
	}
	if math.IsNaN(s.Loss) || s.Loss < 0 || s.Loss > 1 {
		errs = append(errs, fmt.Errorf("loss %v is not a probability between 0 and 1", s.Loss))
	}
	if s.Queue.Packets < 0 || s.Queue.Bytes < 0 || s.Queue.Time < 0 {
		errs = append(errs, errors.New("the queue's limit is negative"))
	}
	set := 0
	for _, isSet := range []bool{s.Queue.Packets != 0, s.Queue.Bytes != 0, s.Queue.Time != 0} {
		if isSet {
			set++
		}
	}
	if set > 1 {
		errs = append(errs, errors.New("the queue has more than one limit: give packets, bytes or time"))
	}
	if set > 0 && s.Rate == 0 {
		errs = append(errs, errors.New("a queue without a rate never fills: give the link a rate"))
	}
	return errors.Join(errs...)
}

// QueueBytes is the queue's limit in bytes where it is one of bytes or time,
// and 0 where it is one of packets.
func (s Shape) QueueBytes() int {
	if s.Queue.Time > 0 {
		return int(math.Ceil(float64(s.Rate) / 8 * s.Queue.Time.Seconds()))
	}
	return s.Queue.Bytes
}

// Serialization is the time that the bottleneck takes to send one frame of
// the given length, Ethernet header included; 0 without a rate.
func (s Shape) Serialization(frame int) time.Duration {
	if s.Rate == 0 {
		return 0
	}
	return time.Duration(math.Round(float64(frame) * 8e9 / float64(s.Rate)))
}

// Direction is one way across a link.
type Direction struct {
	Shape Shape
	Seed  uint64 // of the random generator behind Shape.Loss
}

// Resolve gives the direction its default queue, where it has a rate and no
// limit: one bandwidth-delay product of rate and the link's round-trip delay
// in packets of a full MTU, and at least [MinQueuePackets].
func (d Direction) Resolve(roundTrip time.Duration, mtu int) Direction {
	if d.Shape.Rate == 0 || !d.Shape.Queue.IsZero() {
		return d
	}
	frame := float64(mtu + FrameOverhead)
	bdp := math.Ceil(float64(d.Shape.Rate) / 8 * roundTrip.Seconds() / frame)
	d.Shape.Queue.Packets = max(MinQueuePackets, int(bdp))
	return d
}
