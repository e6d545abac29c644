package labs

import (
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// nameDestinations puts addresses in the place of nodes' names in matches, once
// all nodes have theirs. A match has one prefix, so that a path to a node becomes
// one path for each of the node's addresses, in their order: web, web-2, …, each with
// a shape of its own, and the steps of a schedule likewise.
func nameDestinations(lab *tcplabv1.Lab) error {
	addresses := addressesOf(lab)
	for _, l := range lab.GetLinks() {
		for _, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
			copies := make(map[string][]string) // names of the paths that each became
			if !slices.ContainsFunc(d.GetPaths(), func(p *tcplabv1.Path) bool { return isNode(p.GetMatch()) }) {
				continue
			}
			taken := make(map[string]bool)
			for _, p := range d.GetPaths() {
				taken[p.GetName()] = true
			}
			var paths []*tcplabv1.Path
			for _, p := range d.GetPaths() {
				if !isNode(p.GetMatch()) {
					paths = append(paths, p)
					continue
				}
				of := addresses[p.GetMatch().GetDestination()]
				if len(of) == 0 {
					return fmt.Errorf("link %s: the path %s leads to %s, which has no address: give it a link", l.GetName(), p.GetName(), p.GetMatch().GetDestination())
				}
				for i, a := range of {
					one := proto.CloneOf(p)
					one.Match.Destination = netip.PrefixFrom(a, a.BitLen()).String()
					if i > 0 {
						one.Name = freeName(p.GetName(), taken)
					}
					copies[p.GetName()] = append(copies[p.GetName()], one.GetName())
					paths = append(paths, one)
				}
			}
			d.Paths = paths
			d.Schedule = stepsOfCopies(d.GetSchedule(), copies)
		}
	}
	return nil
}

// stepsOfCopies repeats each step of a path that became several.
func stepsOfCopies(steps []*tcplabv1.ScheduleStep, copies map[string][]string) []*tcplabv1.ScheduleStep {
	var out []*tcplabv1.ScheduleStep
	for _, s := range steps {
		names := copies[s.GetPath()]
		if len(names) == 0 {
			out = append(out, s)
		}
		for _, name := range names {
			one := proto.CloneOf(s)
			one.Path = name
			out = append(out, one)
		}
	}
	return out
}

// isNode reports whether the destination is a node's name, and no prefix.
func isNode(m *tcplabv1.Match) bool { return labName.MatchString(m.GetDestination()) }

// addressesOf are all addresses of each node, in the order of its links.
func addressesOf(lab *tcplabv1.Lab) map[string][]netip.Addr {
	all := make(map[string][]netip.Addr)
	eachEnd(lab, func(_, _ int, e *tcplabv1.LinkEnd) {
		for _, text := range e.GetAddresses() {
			if p, problem := hostAddress(text); problem == "" {
				all[e.GetNode()] = append(all[e.GetNode()], p.Addr())
			}
		}
	})
	return all
}

// countPaths is how many paths a direction's become: one for each address, given or
// still to be assigned, that a node's name stands for.
func countPaths(lab *tcplabv1.Lab, d *tcplabv1.Direction) int {
	n := 0
	for _, p := range d.GetPaths() {
		if !isNode(p.GetMatch()) {
			n++
			continue
		}
		eachEnd(lab, func(_, _ int, e *tcplabv1.LinkEnd) {
			switch {
			case e.GetNode() != p.GetMatch().GetDestination():
			case len(e.GetAddresses()) > 0:
				n += len(e.GetAddresses())
			default:
				n += 2 // an IPv4 and an IPv6 address
			}
		})
	}
	return n
}
