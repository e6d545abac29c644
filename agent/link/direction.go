package link

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Direction is one way across a link. The zero value passes everything at once.
type Direction struct {
	Shape    Shape    // of what no path selects
	Paths    []Path   // in order: a packet goes by the first that selects it
	Trace    *Trace   // a bottleneck in the place of Shape.Rate; nil: none
	Schedule Schedule // of a trial; engines check its shapes and leave it to be played
	Seed     uint64   // of the random generators
}

// Path is a shape for the packets that its match selects.
type Path struct {
	Name  string // unique in the direction
	Match Match
	Shape Shape
}

// Protocol is what an IP packet carries.
type Protocol string

// The protocols that a match can name.
const (
	AnyProtocol Protocol = "" // the zero value
	TCP         Protocol = "tcp"
	UDP         Protocol = "udp"
	ICMP        Protocol = "icmp" // ICMPv6 over IPv6
)

// Match selects packets for which all that is set holds.
type Match struct {
	Destination netip.Prefix // that the destination is in; the zero value: any address
	Protocol    Protocol
	Port        uint16 // that the packet is to or from, with TCP or UDP; 0: any
}

// Trace is a bottleneck that can send at certain moments only, as recorded of
// a real link.
type Trace struct {
	Opportunities []time.Duration // since the link was re-armed, not falling, the last above 0
	Bytes         int             // that each of them sends, with Ethernet headers; 0: 1514
	Once          bool            // nothing is sent after the last; else the last is the period
}

// Schedule is how a direction's shapes change while a trial runs.
type Schedule struct {
	Steps  []Step        // in order of time
	Period time.Duration // after which it begins again; 0: it is followed once
}

// Step gives a direction another shape.
type Step struct {
	At    time.Duration // since the trial began
	Path  string        // whose shape it is; empty: the direction's own
	Shape Shape         // from then on
	Ramp  time.Duration // that rate, delay and loss take to get there, evenly
}

// IsZero reports whether everything passes at once, always.
func (d Direction) IsZero() bool {
	return d.Shape.IsZero() && len(d.Paths) == 0 && d.Trace == nil && len(d.Schedule.Steps) == 0
}

// Validate says what is wrong with the direction, or nil.
func (d Direction) Validate() error {
	var errs []error
	if d.Trace == nil {
		errs = append(errs, d.Shape.Validate())
	} else {
		errs = append(errs, d.Shape.problems()...)
		errs = append(errs, d.Trace.validate())
		if d.Shape.Rate != 0 {
			errs = append(errs, errors.New("the direction has a rate and a trace: give one of them"))
		}
		if d.Shape.Queue.Time != 0 {
			errs = append(errs, errors.New("a queue limited by time needs a rate, and a trace has none: give packets or bytes"))
		}
		if len(d.Schedule.Steps) > 0 {
			errs = append(errs, errors.New("the direction has a trace and a schedule: give one of them"))
		}
	}
	names := map[string]bool{"": true}
	for _, p := range d.Paths {
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("the path %q is there twice, or has no name", p.Name))
		}
		names[p.Name] = true
		if err := errors.Join(p.Match.validate(), p.Shape.Validate()); err != nil {
			errs = append(errs, fmt.Errorf("path %s: %w", p.Name, err))
		}
	}
	last, ended := time.Duration(0), time.Duration(0)
	for i, s := range d.Schedule.Steps {
		if err := s.Shape.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("schedule at %v: %w", s.At, err))
		}
		switch {
		case !names[s.Path]:
			errs = append(errs, fmt.Errorf("schedule at %v: there is no path %q", s.At, s.Path))
		case s.At < last || s.Ramp < 0:
			errs = append(errs, fmt.Errorf("schedule at %v: steps are in order of time, and a ramp is not negative", s.At))
		}
		last, ended = s.At, max(ended, s.At+s.Ramp)
		next := slices.IndexFunc(d.Schedule.Steps[i+1:], func(o Step) bool { return o.Path == s.Path })
		if next >= 0 && s.At+s.Ramp > d.Schedule.Steps[i+1+next].At {
			errs = append(errs, fmt.Errorf("schedule at %v: the ramp of %v does not end before the next step", s.At, s.Ramp))
		}
	}
	switch p := d.Schedule.Period; {
	case p < 0 || p > 0 && p < last:
		errs = append(errs, fmt.Errorf("the schedule's period of %v is over before its last step at %v", p, last))
	case p > 0 && p < ended:
		errs = append(errs, fmt.Errorf("the schedule's period of %v is over before its last ramp has ended at %v", p, ended))
	}
	return errors.Join(errs...)
}

func (m Match) validate() error {
	var errs []error
	if m == (Match{}) {
		errs = append(errs, errors.New("the match selects nothing in particular: give a destination, protocol or port"))
	}
	if m.Destination.IsValid() && m.Destination != m.Destination.Masked() {
		errs = append(errs, fmt.Errorf("the destination %s has bits behind its prefix: write %s", m.Destination, m.Destination.Masked()))
	}
	switch m.Protocol {
	case AnyProtocol, TCP, UDP:
	case ICMP:
		if m.Port != 0 {
			errs = append(errs, errors.New("icmp has no ports"))
		}
	default:
		errs = append(errs, fmt.Errorf("no protocol is called %q", m.Protocol))
	}
	return errors.Join(errs...)
}

func (t *Trace) validate() error {
	var errs []error
	if t.Bytes < 0 {
		errs = append(errs, fmt.Errorf("an opportunity of %d bytes is negative", t.Bytes))
	}
	if n := len(t.Opportunities); n == 0 || t.Opportunities[n-1] <= 0 {
		errs = append(errs, errors.New("a trace has at least one moment after 0"))
	} else if t.Opportunities[0] < 0 || !slices.IsSorted(t.Opportunities) {
		errs = append(errs, errors.New("a trace's moments do not fall"))
	}
	return errors.Join(errs...)
}

// BytesOrDefault is Bytes, or 1514: one full Ethernet frame.
func (t *Trace) BytesOrDefault() int {
	if t.Bytes > 0 {
		return t.Bytes
	}
	return 1514
}

// Rate is the trace's mean rate in bit/s, over its whole length.
func (t *Trace) Rate() float64 {
	n := len(t.Opportunities)
	if n == 0 || t.Opportunities[n-1] <= 0 {
		return 0
	}
	return float64(n*t.BytesOrDefault()*8) / t.Opportunities[n-1].Seconds()
}

// Resolve gives every shape of the direction its default queue, where it has a bottleneck
// and no limit: one bandwidth-delay product of the rate (of a trace its mean) and the link's
// round-trip delay in packets of a full MTU, and at least [MinQueuePackets]. Cake has none: it
// counts the memory that packets take, and keeps its queue short by itself.
func (d Direction) Resolve(roundTrip time.Duration, mtu int) Direction {
	resolve := func(s *Shape, rate float64) {
		if rate == 0 || s.Queue.Limited() || s.Queue.Discipline == CAKE {
			return
		}
		bdp := math.Ceil(rate / 8 * roundTrip.Seconds() / float64(mtu+FrameOverhead))
		s.Queue.Packets = max(MinQueuePackets, int(bdp))
	}
	rate := float64(d.Shape.Rate)
	if d.Trace != nil {
		rate = d.Trace.Rate()
	}
	resolve(&d.Shape, rate)
	d.Paths = slices.Clone(d.Paths)
	for i := range d.Paths {
		resolve(&d.Paths[i].Shape, float64(d.Paths[i].Shape.Rate))
	}
	d.Schedule.Steps = slices.Clone(d.Schedule.Steps)
	for i := range d.Schedule.Steps {
		resolve(&d.Schedule.Steps[i].Shape, float64(d.Schedule.Steps[i].Shape.Rate))
	}
	return d
}

// ShapeOf is the shape of the path with the name, or the direction's own for the empty one.
// nil: there is no such path.
func (d *Direction) ShapeOf(path string) *Shape {
	if path == "" {
		return &d.Shape
	}
	for i := range d.Paths {
		if d.Paths[i].Name == path {
			return &d.Paths[i].Shape
		}
	}
	return nil
}
