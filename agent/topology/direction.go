package topology

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxRate is the highest rate of the contract, in bit/s.
const maxRate = 1e12

// way names a direction.
func way(i int) string { return [2]string{"forward", "backward"}[i] }

// Directions are the two ways across a link, from its end a and from b, their queues
// filled in. The error says which contradicts itself.
func Directions(l *tcplabv1.Link) ([2]link.Direction, error) {
	mtu := int(l.GetMtu())
	if mtu == 0 {
		mtu = DefaultMTU
	}
	return directions(l, mtu)
}

// directions are the two ways across a link, their queues filled in.
func directions(l *tcplabv1.Link, mtu int) ([2]link.Direction, error) {
	var both [2]link.Direction
	for i, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
		read, err := directionOf(d)
		if err == nil {
			err = read.Validate()
		}
		if err != nil {
			return both, fmt.Errorf("%s: %w", way(i), err)
		}
		both[i] = read
	}
	roundTrip := both[0].Shape.Delay + both[1].Shape.Delay
	for i := range both {
		both[i] = both[i].Resolve(roundTrip, mtu)
	}
	return both, nil
}

// directionOf reads a direction as it travels.
func directionOf(d *tcplabv1.Direction) (link.Direction, error) {
	shape, err := shapeOf(d.GetShape())
	if err != nil {
		return link.Direction{}, err
	}
	read := link.Direction{Shape: shape, Seed: d.GetSeed(), Trace: traceOf(d.GetTrace())}
	for _, p := range d.GetPaths() {
		shape, err := shapeOf(p.GetShape())
		if err != nil {
			return read, fmt.Errorf("path %s: %w", p.GetName(), err)
		}
		match, err := matchOf(p.GetMatch())
		if err != nil {
			return read, fmt.Errorf("path %s: %w", p.GetName(), err)
		}
		read.Paths = append(read.Paths, link.Path{Name: p.GetName(), Match: match, Shape: shape})
	}
	read.Schedule.Period = d.GetSchedulePeriod().AsDuration()
	for _, s := range d.GetSchedule() {
		shape, err := shapeOf(s.GetShape())
		if err != nil {
			return read, fmt.Errorf("schedule at %v: %w", s.GetAt().AsDuration(), err)
		}
		read.Schedule.Steps = append(read.Schedule.Steps, link.Step{
			At: s.GetAt().AsDuration(), Path: s.GetPath(), Shape: shape, Ramp: s.GetRamp().AsDuration(),
		})
	}
	return read, nil
}

// matchOf reads a match as it travels.
func matchOf(m *tcplabv1.Match) (link.Match, error) {
	protocol, ok := protocols()[m.GetProtocol()]
	if !ok {
		return link.Match{}, fmt.Errorf("no protocol %v", m.GetProtocol())
	}
	match := link.Match{Protocol: protocol, Port: uint16(m.GetPort())}
	if m.GetPort() > math.MaxUint16 {
		return match, fmt.Errorf("%d is no port", m.GetPort())
	}
	if text := m.GetDestination(); text != "" {
		destination, err := netip.ParsePrefix(text)
		if err != nil {
			return match, fmt.Errorf("destination: %w", err)
		}
		match.Destination = destination
	}
	return match, nil
}

func traceOf(t *tcplabv1.Trace) *link.Trace {
	if t == nil {
		return nil
	}
	trace := &link.Trace{Bytes: int(t.GetOpportunityBytes()), Once: t.GetOnce()}
	for _, ms := range t.GetOpportunitiesMs() {
		trace.Opportunities = append(trace.Opportunities, time.Duration(ms)*time.Millisecond)
	}
	return trace
}

// DirectionMessage is the direction as it travels, without its seed.
func DirectionMessage(d link.Direction) *tcplabv1.Direction {
	m := &tcplabv1.Direction{Shape: ShapeMessage(d.Shape)}
	for _, p := range d.Paths {
		match := &tcplabv1.Match{Port: uint32(p.Match.Port)}
		if p.Match.Protocol != link.AnyProtocol {
			match.Protocol = keyOf(protocols(), p.Match.Protocol)
		}
		if p.Match.Destination.IsValid() {
			match.Destination = p.Match.Destination.String()
		}
		m.Paths = append(m.Paths, &tcplabv1.Path{Name: p.Name, Match: match, Shape: ShapeMessage(p.Shape)})
	}
	for _, s := range d.Schedule.Steps {
		m.Schedule = append(m.Schedule, &tcplabv1.ScheduleStep{
			At: durationpb.New(s.At), Path: s.Path, Shape: ShapeMessage(s.Shape), Ramp: durationpb.New(s.Ramp),
		})
	}
	if d.Schedule.Period > 0 {
		m.SchedulePeriod = durationpb.New(d.Schedule.Period)
	}
	if t := d.Trace; t != nil {
		m.Trace = &tcplabv1.Trace{OpportunityBytes: uint32(t.Bytes), Once: t.Once}
		for _, at := range t.Opportunities {
			m.Trace.OpportunitiesMs = append(m.Trace.OpportunitiesMs, uint32(at.Milliseconds()))
		}
	}
	return m
}
