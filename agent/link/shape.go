// Package link says what a link does to packets and who enforces it.
//
// A [Shape] is a pure value with real units: what happens to one stream of
// packets. A [Direction] is one way across a link: its shape, and those of the
// paths that take some of its packets. A [Spec] is a whole link, and an [Engine] turns
// a Spec into a working [Link], changes it while traffic flows, and reads back
// what it applied. Engines are netem (kernel qdiscs in a fabric namespace), wire
// (tcplab's own userspace link) and veth (no shaping at all).
//
// The package refuses shapes that contradict themselves, with the reason,
// before anything is built; an engine refuses those that it cannot enforce.
package link

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
)

// FrameOverhead is the Ethernet header that rates and byte limits count
// beside the IP packet; preamble, FCS and gap are not counted, as in the
// kernel's qdiscs (skb->len on egress), unless the shape's [Overhead] does.
const FrameOverhead = 14

// Shape is what happens to one stream of packets, in this order: lost,
// duplicated, corrupted, delayed, held in the queue of the bottleneck, sent at Rate. The
// delay comes before the queue in every engine because it takes the packet from its
// socket: a queue that still belongs to the sender's TCP never fills (TCP Small Queues).
// The zero value passes everything at once.
type Shape struct {
	Rate      uint64        // bit/s of frames with their Ethernet header; 0: unlimited
	Overhead  Overhead      // of each frame at the bottleneck; only with Rate
	Burst     int           // bytes that an idle bottleneck sends at once beyond its rate; only with Rate
	Delay     time.Duration // one way, of each packet, before the bottleneck; ≥ 0
	Jitter    Jitter        // how the delay varies
	Reorder   Reorder       // packets that get no delay; only with Delay
	Loss      Loss
	Duplicate Chance // that a packet comes twice
	Corrupt   Chance // that one bit of a packet is turned over
	Down      bool   // every packet is lost; those under way still arrive
	Queue     Queue  // in front of the bottleneck; without Rate (or a [Trace]) it must be zero
}

// IsZero reports whether the shape passes everything at once.
func (s Shape) IsZero() bool { return s.Equal(Shape{}) }

// Equal reports whether both shapes say the same in the same units.
func (s Shape) Equal(other Shape) bool { return reflect.DeepEqual(s, other) }

// Validate says what is wrong with the shape, or nil. A shape whose bottleneck is a
// [Trace] is validated by its direction.
func (s Shape) Validate() error {
	errs := s.problems()
	if s.Rate == 0 && !s.Queue.IsZero() {
		errs = append(errs, errors.New("a queue without a rate never fills: give the link a rate"))
	}
	return errors.Join(errs...)
}

// problems are all but those of a queue without a rate.
func (s Shape) problems() []error {
	var errs []error
	if s.Delay < 0 {
		errs = append(errs, fmt.Errorf("delay %v is negative", s.Delay))
	}
	if s.Burst < 0 || s.Burst > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("a burst of %d bytes is not between 0 and %d", s.Burst, math.MaxInt32))
	}
	if s.Rate == 0 && s.Burst > 0 {
		errs = append(errs, errors.New("a burst without a rate has nothing to exceed: give the link a rate"))
	}
	if s.Rate == 0 && s.Overhead != (Overhead{}) {
		errs = append(errs, errors.New("an overhead without a rate costs nothing: give the link a rate"))
	}
	errs = append(errs, s.Overhead.validate(), s.Jitter.validate(), s.Loss.validate(), s.Queue.validate())
	if err := s.Duplicate.validate(); err != nil {
		errs = append(errs, fmt.Errorf("duplicate: %w", err))
	}
	if err := s.Corrupt.validate(); err != nil {
		errs = append(errs, fmt.Errorf("corrupt: %w", err))
	}
	if err := s.Reorder.validate(); err != nil {
		errs = append(errs, fmt.Errorf("reorder: %w", err))
	}
	if !s.Reorder.IsZero() && s.Delay == 0 {
		errs = append(errs, errors.New("reorder without a delay changes nothing: a packet overtakes by not being delayed; give the link a delay"))
	}
	switch {
	case s.Reorder.Gap < 0:
		errs = append(errs, fmt.Errorf("a reorder gap of %d is negative", s.Reorder.Gap))
	case s.Reorder.IsZero() && s.Reorder.Gap != 0:
		errs = append(errs, errors.New("a reorder gap without a probability does nothing: give both"))
	}
	return errs
}

// Serialization is the time that the bottleneck takes to send one frame of
// the given length, Ethernet header included; 0 without a rate.
func (s Shape) Serialization(frame int) time.Duration {
	if s.Rate == 0 {
		return 0
	}
	return time.Duration(math.Round(float64(s.Overhead.Cost(frame)) * 8e9 / float64(s.Rate)))
}

// Overhead is what a packet costs at the bottleneck beside its Ethernet
// frame. The zero value is nothing.
type Overhead struct {
	Bytes    int  // added to each frame; may be negative
	MinBytes int  // least cost, Bytes included
	ATM      bool // in cells of 53 bytes for each 48 begun (ITU-T I.361), Bytes included
}

// Cost is how many bytes a frame of the given length takes of the rate.
// As in the kernel (psched_l2t_ns in include/net/sch_generic.h) the
// least comes before the cells. Never below 1.
func (o Overhead) Cost(frame int) int {
	cost := max(frame+o.Bytes, o.MinBytes, 1)
	if o.ATM {
		const payload, cell = 48, 53
		cost = (cost + payload - 1) / payload * cell
	}
	return cost
}

func (o Overhead) validate() error {
	if o.Bytes < -64 || o.Bytes > 256 {
		return fmt.Errorf("an overhead of %d bytes is not between -64 and 256", o.Bytes)
	}
	if o.MinBytes < 0 || o.MinBytes > 256 {
		return fmt.Errorf("a least cost of %d bytes is not between 0 and 256", o.MinBytes)
	}
	return nil
}
