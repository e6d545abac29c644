package topology

import (
	"fmt"
	"net/netip"
)

// A segment is the set of interfaces that reach one another at layer 2: the
// two ends of a link, and all that switches join. Ends at switches are not in it:
// they have no address.
type segment []End

// segments splits the plan's interfaces, in the order of their links. Switches
// in a loop are refused, for no spanning tree runs and a broadcast would go round
// for ever.
func (p *Plan) segments() ([]segment, error) {
	// One set for each link, joined where links meet at a switch.
	links := newSets(len(p.Links))
	first := make(map[int]int) // switch → its first link
	switches := newSets(len(p.Nodes))
	for i, l := range p.Links {
		bridges := 0
		for _, end := range l.Ends {
			if !p.Nodes[end.Node].isSwitch() {
				continue
			}
			bridges++
			if other, seen := first[end.Node]; seen {
				links.join(other, i)
			} else {
				first[end.Node] = i
			}
		}
		if bridges == 2 && !switches.join(l.Ends[0].Node, l.Ends[1].Node) {
			return nil, fmt.Errorf("link %s closes a loop of switches, in which a broadcast would never end: leave one link out, or make a node a router",
				l.Name)
		}
	}
	var all []segment
	position := make(map[int]int) // set → index into all
	for i, l := range p.Links {
		set := links.find(i)
		at, ok := position[set]
		if !ok {
			at = len(all)
			position[set] = at
			all = append(all, nil)
		}
		for _, end := range l.Ends {
			if !p.Nodes[end.Node].isSwitch() {
				all[at] = append(all[at], end)
			}
		}
	}
	return all, nil
}

// checkAddresses holds that each address is in one place and each subnet on
// one segment; routes could not tell them apart otherwise.
func (p *Plan) checkAddresses(segments []segment) error {
	owner := make(map[netip.Addr]string)
	subnet := make(map[netip.Prefix]int)
	for i, s := range segments {
		for _, end := range s {
			node := p.Nodes[end.Node].Name
			for _, a := range p.at(end).Addresses {
				if other, twice := owner[a.Addr()]; twice {
					return fmt.Errorf("address %s is at both node %s and node %s", a.Addr(), other, node)
				}
				owner[a.Addr()] = node
				if other, seen := subnet[a.Masked()]; seen && other != i {
					return fmt.Errorf("subnet %s is on two segments that no switch joins, the second at node %s", a.Masked(), node)
				}
				subnet[a.Masked()] = i
			}
		}
	}
	return nil
}

// addNeighbours tells every interface the MAC addresses of all others on its
// segment.
func (p *Plan) addNeighbours(segments []segment) {
	for _, s := range segments {
		for _, end := range s {
			node, own := &p.Nodes[end.Node], p.at(end)
			for _, other := range s {
				if other == end {
					continue
				}
				there := p.at(other)
				for _, a := range there.Addresses {
					node.Neighbours = append(node.Neighbours, Neighbour{Interface: own.Name, Address: a.Addr(), MAC: there.MAC})
				}
			}
		}
	}
}

// addStations tells every switch behind which of its ports each MAC address
// lies, so that no frame is flooded to links that it does not concern.
func (p *Plan) addStations() {
	ports := make(map[int][]portOf)
	for _, l := range p.Links {
		for side, end := range l.Ends {
			if p.Nodes[end.Node].isSwitch() {
				ports[end.Node] = append(ports[end.Node], portOf{near: end, far: l.Ends[1-side]})
			}
		}
	}
	for i := range p.Nodes {
		for _, port := range ports[i] {
			name := p.at(port.near).Name
			p.beyond(ports, port.far, func(end End) {
				p.Nodes[i].Stations = append(p.Nodes[i].Stations, Station{Interface: name, MAC: p.at(end).MAC})
			})
		}
	}
}

// portOf is a switch's port and the end across its link.
type portOf struct{ near, far End }

// beyond visits every interface that is reached by entering far. Switches form
// no loop, so it ends.
func (p *Plan) beyond(ports map[int][]portOf, far End, visit func(End)) {
	if !p.Nodes[far.Node].isSwitch() {
		visit(far)
		return
	}
	for _, port := range ports[far.Node] {
		if port.near != far {
			p.beyond(ports, port.far, visit)
		}
	}
}

// sets is a union-find over small integers.
type sets []int

func newSets(n int) sets {
	s := make(sets, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// find is the set that i is in.
func (s sets) find(i int) int {
	for s[i] != i {
		s[i] = s[s[i]]
		i = s[i]
	}
	return i
}

// join makes one set of two and reports whether they were two.
func (s sets) join(i, j int) bool {
	i, j = s.find(i), s.find(j)
	// The lower number stays, so that the result depends on the lab alone.
	s[max(i, j)] = min(i, j)
	return i != j
}
