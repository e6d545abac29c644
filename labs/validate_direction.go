package labs

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxPaths is how many paths a direction may have.
const maxPaths = 16

func (v *validation) direction(field string, l *tcplabv1.Link, d *tcplabv1.Direction) {
	if l.GetEngine() == tcplabv1.Engine_ENGINE_VETH && isShaped(d) {
		v.add(field, "take another engine, or leave the shape out", "the engine veth shapes nothing, and the link has a shape")
	}
	mtu := l.GetMtu()
	if mtu == 0 {
		mtu = DefaultMTU
	}
	frame := float64(mtu + frameOverhead)
	v.shape(field+".shape", shapeProblems(d.GetShape(), d.GetTrace() != nil, frame))
	v.trace(field, d)
	v.paths(field, d, frame)
	v.schedule(field, d, frame)
}

// isShaped reports whether anything happens to a packet.
func isShaped(d *tcplabv1.Direction) bool {
	return !isPlain(d.GetShape()) || len(d.GetPaths()) > 0 || len(d.GetSchedule()) > 0 || d.GetTrace() != nil
}

func (v *validation) shape(field string, problems []Violation) {
	for _, p := range problems {
		v.add(field+"."+p.Field, p.Hint, "%s", p.Message)
	}
}

func (v *validation) trace(field string, d *tcplabv1.Direction) {
	t := d.GetTrace()
	if t == nil {
		return
	}
	if d.GetShape().GetRateBps() != 0 {
		v.add(field+".trace", "give one of them", "the direction has a rate and a trace, which says when packets are sent")
	}
	if len(d.GetSchedule()) > 0 {
		v.add(field+".schedule", "give one of them", "the direction has a trace and a schedule")
	}
	moments := t.GetOpportunitiesMs()
	switch {
	case len(moments) == 0 || moments[len(moments)-1] == 0:
		v.add(field+".trace", "", "the trace has no moment after 0, and so no length")
	case !slices.IsSorted(moments):
		v.add(field+".trace", "", "the trace's moments fall")
	}
}

func (v *validation) paths(field string, d *tcplabv1.Direction, frame float64) {
	seen := make(map[string]bool)
	for i, p := range d.GetPaths() {
		field := fmt.Sprintf("%s.paths[%d]", field, i)
		switch {
		case !labName.MatchString(p.GetName()):
			v.add(field+".name", nameHint, "%q cannot be a path's name", p.GetName())
		case seen[p.GetName()]:
			v.add(field+".name", "", "the path %q is there twice", p.GetName())
		}
		seen[p.GetName()] = true
		v.match(field+".match", p.GetMatch())
		v.shape(field+".shape", shapeProblems(p.GetShape(), false, frame))
	}
	if n := countPaths(v.lab, d); n > maxPaths {
		v.add(field+".paths", "a node's name stands for one path an address", "the direction has %d paths, more than %d", n, maxPaths)
	}
}

func (v *validation) match(field string, m *tcplabv1.Match) {
	if m.GetDestination() == "" && m.GetProtocol() == tcplabv1.IpProtocol_IP_PROTOCOL_UNSPECIFIED && m.GetPort() == 0 {
		v.add(field, "give a destination, protocol or port", "the match selects nothing in particular")
	}
	if m.GetProtocol() == tcplabv1.IpProtocol_IP_PROTOCOL_ICMP && m.GetPort() != 0 {
		v.add(field+".port", "", "icmp has no ports")
	}
	if m.GetPort() > math.MaxUint16 {
		v.add(field+".port", "", "%d is no port: the greatest is %d", m.GetPort(), math.MaxUint16)
	}
	destination := m.GetDestination()
	if destination == "" {
		return
	}
	if isNode(m) {
		linked := false
		eachEnd(v.lab, func(_, _ int, e *tcplabv1.LinkEnd) { linked = linked || e.GetNode() == destination })
		switch {
		case !v.known(field+".destination", destination):
		case v.nodes[destination].GetKind() == tcplabv1.NodeKind_NODE_KIND_SWITCH:
			v.add(field+".destination", "", "%q is a switch: it has no address, so no packet goes there", destination)
		case !linked:
			v.add(field+".destination", "", "%q has no link, and so no address", destination)
		}
		return
	}
	p, err := netip.ParsePrefix(destination)
	switch {
	case err != nil:
		hint := "such as 10.1.0.0/16, fd00::/64, or a node's name"
		if a, err := netip.ParseAddr(destination); err == nil {
			hint = fmt.Sprintf("for this one address write %s/%d", a, a.BitLen())
		}
		v.add(field+".destination", hint, "%q is not a prefix", destination)
	case p.Addr().Is4In6():
		v.add(field+".destination", "write it as IPv4", "%q is IPv4 written as IPv6", destination)
	case p != p.Masked():
		v.add(field+".destination", "write "+p.Masked().String(), "the destination %s has bits behind its prefix", p)
	}
}

// maxStepProblems is how many problems of steps are told: a table has many
// rows that are wrong in the same way.
const maxStepProblems = maxProblems

func (v *validation) schedule(field string, d *tcplabv1.Direction, frame float64) {
	before := make(map[string]*tcplabv1.Shape) // of each path, before a step
	before[""] = d.GetShape()
	for _, p := range d.GetPaths() {
		before[p.GetName()] = p.GetShape()
	}
	ends := make(map[string]time.Duration) // of each path's last step, with its ramp
	first := len(v.found)
	last := time.Duration(0)
	for i, s := range d.GetSchedule() {
		if len(v.found) > first+maxStepProblems {
			return
		}
		field := func() string { return fmt.Sprintf("%s.schedule[%d]", field, i) }
		at, ramp := s.GetAt().AsDuration(), s.GetRamp().AsDuration()
		was, known := before[s.GetPath()]
		switch {
		case !known:
			var names []string
			for _, p := range d.GetPaths() {
				names = append(names, p.GetName())
			}
			v.add(field()+".path", didYouMean(s.GetPath(), names), "there is no path %q", s.GetPath())
		case at < last:
			v.add(field()+".at", "put the steps into the order of their times", "the step at %v comes after one at %v", at, last)
		case at < ends[s.GetPath()]:
			v.add(field()+".at", "shorten that ramp", "the ramp of the step before goes on until %v", ends[s.GetPath()])
		case ramp < 0:
			v.add(field()+".ramp", "", "a ramp of %v is negative", ramp)
		case ramp > 0 && (was.GetRateBps() == 0) != (s.GetShape().GetRateBps() == 0):
			v.add(field()+".ramp", "leave the ramp out, or give the rate before it", "nothing lies evenly between a rate and none")
		}
		if problems := shapeProblems(s.GetShape(), false, frame); len(problems) > 0 {
			v.shape(field()+".shape", problems)
		}
		before[s.GetPath()], ends[s.GetPath()], last = s.GetShape(), at+ramp, max(last, at)
	}
	period := d.GetSchedulePeriod().AsDuration()
	switch {
	case period < 0:
		v.add(field+".schedule_period", "", "a period of %v is negative", period)
	case period > 0 && len(d.GetSchedule()) == 0:
		v.add(field+".schedule_period", "", "there is nothing to repeat")
	case period > 0 && period < last:
		v.add(field+".schedule_period", "", "the period of %v is over before the last step at %v", period, last)
	}
}
