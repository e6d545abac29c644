package topology

import (
	"errors"
	"fmt"
	"net/netip"
)

// Path is how a connection goes from one node to another.
type Path struct {
	Client, Server int        // index into Plan.Nodes
	Source         netip.Addr // the client's address
	Destination    netip.Addr // the server's
}

// Path finds addresses of one family between which packets go both ways. A
// subnet that both nodes are on comes before a path through routers, and
// among equals the nodes' first interfaces.
func (p *Plan) Path(client, server string, v6 bool) (Path, error) {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	path := Path{Client: p.node(client), Server: p.node(server)}
	for _, end := range []struct {
		name string
		at   int
	}{{client, path.Client}, {server, path.Server}} {
		if end.at < 0 {
			return path, fmt.Errorf("there is no node %q", end.name)
		}
		if p.Nodes[end.at].Foreign {
			return path, fmt.Errorf("node %s is not of the lab's own making: no flow starts or ends there", end.name)
		}
		if p.Nodes[end.at].isSwitch() {
			return path, fmt.Errorf("node %s is a switch, which has no address", end.name)
		}
	}
	if path.Client == path.Server {
		return path, fmt.Errorf("both ends are at node %s", client)
	}
	var wrong error
	from, to := &p.Nodes[path.Client], &p.Nodes[path.Server]
	for _, near := range []bool{true, false} {
		for _, destination := range to.addresses(v6) {
			source, direct := from.source(destination.Addr())
			if !source.IsValid() || direct != near {
				continue
			}
			if back, _ := to.source(source); !back.IsValid() {
				continue
			}
			wrong = errors.Join(p.walk(path.Client, destination.Addr()), p.walk(path.Server, source))
			if wrong == nil {
				path.Source, path.Destination = source, destination.Addr()
				return path, nil
			}
		}
	}
	if wrong != nil {
		return path, fmt.Errorf("no %s path leads from %s to %s and back: %w", family, client, server, wrong)
	}
	return path, fmt.Errorf("no %s path leads from %s to %s and back: only routers pass packets on", family, client, server)
}

// node is the index of the named node, or -1.
func (p *Plan) node(name string) int {
	for i := range p.Nodes {
		if p.Nodes[i].Name == name {
			return i
		}
	}
	return -1
}

// addresses are all of one family, in the order of the interfaces.
func (n *Node) addresses(v6 bool) []netip.Prefix {
	var all []netip.Prefix
	for _, iface := range n.Interfaces {
		for _, a := range iface.Addresses {
			if a.Addr().Is6() == v6 {
				all = append(all, a)
			}
		}
	}
	return all
}

// source is the node's address towards a destination, on the interface that
// its packets leave by, and whether that is on the destination's own subnet. It is not
// valid where no route leads there.
func (n *Node) source(to netip.Addr) (_ netip.Addr, direct bool) {
	best := -1
	var source netip.Addr
	for _, own := range n.addresses(to.Is6()) {
		if own.Masked().Contains(to) && own.Bits() > best {
			best, source, direct = own.Bits(), own.Addr(), true
		}
	}
	for _, route := range n.Routes {
		if route.Destination.Bits() <= best || !route.Destination.Contains(to) {
			continue
		}
		for _, own := range n.addresses(to.Is6()) {
			if own.Masked().Contains(route.Via) {
				best, source, direct = route.Destination.Bits(), own.Addr(), false
				break
			}
		}
	}
	return source, direct
}

// walk follows a packet from a node to an address, by the nodes' routes, and says where
// it would be lost.
func (p *Plan) walk(from int, to netip.Addr) error {
	last := p.owners[to]
	for hops, at := 0, from; ; hops++ {
		n := &p.Nodes[at]
		switch {
		case at == last:
			return nil
		case at != from && !n.isRouter():
			return fmt.Errorf("a packet to %s comes to %s, which is no router", to, n.Name)
		case hops == timeToLive:
			return fmt.Errorf("a packet to %s goes round in a circle at %s", to, n.Name)
		}
		via := n.next(to)
		if !via.IsValid() {
			return fmt.Errorf("%s has no route to %s", n.Name, to)
		}
		next, ok := p.owners[via]
		if !ok {
			return fmt.Errorf("%s sends a packet to %s by %s, which nobody has", n.Name, to, via)
		}
		at = next
	}
}

// timeToLive is how many routers a packet passes (IPDEFTTL in
// include/uapi/linux/ip.h).
const timeToLive = 64

// next is the address to which a node sends a packet next: the destination's
// own on its subnets. It is not valid where no route leads there.
func (n *Node) next(to netip.Addr) (next netip.Addr) {
	best := -1
	for _, own := range n.addresses(to.Is6()) {
		if own.Masked().Contains(to) && own.Bits() > best {
			best, next = own.Bits(), to
		}
	}
	for _, route := range n.Routes {
		if route.Destination.Bits() > best && route.Destination.Contains(to) {
			best, next = route.Destination.Bits(), route.Via
		}
	}
	return next
}
