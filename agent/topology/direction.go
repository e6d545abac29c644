package topology

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxRate is the highest rate of the contract, in bit/s.
const maxRate = 1e12

// way names a direction.
func way(i int) string { return [2]string{"forward", "backward"}[i] }

// directions are the two ways across a link, their queues filled in.
func directions(l *tcplabv1.Link, mtu int) ([2]link.Direction, error) {
	var both [2]link.Direction
	for i, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
		if rate := d.GetShape().GetRateBps(); !(rate >= 0 && rate <= maxRate) {
			return both, fmt.Errorf("%s: a rate of %v bit/s is not between 0 and %v", way(i), rate, maxRate)
		}
		shape := shapeOf(d.GetShape())
		if err := shape.Validate(); err != nil {
			return both, fmt.Errorf("%s: %w", way(i), err)
		}
		both[i] = link.Direction{Shape: shape, Seed: d.GetSeed()}
	}
	roundTrip := both[0].Shape.Delay + both[1].Shape.Delay
	for i := range both {
		both[i] = both[i].Resolve(roundTrip, mtu)
	}
	return both, nil
}

// shapeOf reads a shape as it travels.
func shapeOf(s *tcplabv1.Shape) link.Shape {
	shape := link.Shape{
		Rate:  uint64(math.Round(s.GetRateBps())),
		Delay: s.GetDelay().AsDuration(),
		Loss:  s.GetLoss(),
	}
	switch limit := s.GetQueue().GetLimit().(type) {
	case *tcplabv1.Queue_Packets:
		shape.Queue.Packets = int(limit.Packets)
	case *tcplabv1.Queue_Bytes:
		shape.Queue.Bytes = int(min(limit.Bytes, math.MaxInt))
	case *tcplabv1.Queue_Time:
		shape.Queue.Time = limit.Time.AsDuration()
	}
	return shape
}

// ShapeMessage is the shape as it travels.
func ShapeMessage(s link.Shape) *tcplabv1.Shape {
	m := &tcplabv1.Shape{RateBps: float64(s.Rate), Delay: durationpb.New(s.Delay), Loss: s.Loss}
	switch {
	case s.Queue.Packets > 0:
		m.Queue = &tcplabv1.Queue{Limit: &tcplabv1.Queue_Packets{Packets: uint32(min(s.Queue.Packets, math.MaxUint32))}}
	case s.Queue.Bytes > 0:
		m.Queue = &tcplabv1.Queue{Limit: &tcplabv1.Queue_Bytes{Bytes: uint64(s.Queue.Bytes)}}
	case s.Queue.Time > 0:
		m.Queue = &tcplabv1.Queue{Limit: &tcplabv1.Queue_Time{Time: durationpb.New(s.Queue.Time)}}
	}
	return m
}
