package topology

import (
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
		if p.Nodes[end.at].isSwitch() {
			return path, fmt.Errorf("node %s is a switch, which has no address", end.name)
		}
	}
	if path.Client == path.Server {
		return path, fmt.Errorf("both ends are at node %s", client)
	}
	from, to := &p.Nodes[path.Client], &p.Nodes[path.Server]
	for _, near := range []bool{true, false} {
		for _, destination := range to.addresses(v6) {
			source, direct := from.source(destination.Addr())
			if !source.IsValid() || direct != near {
				continue
			}
			if back, _ := to.source(source); back.IsValid() {
				path.Source, path.Destination = source, destination.Addr()
				return path, nil
			}
		}
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
	for _, own := range n.addresses(to.Is6()) {
		if own.Masked().Contains(to) {
			return own.Addr(), true
		}
	}
	best := -1
	var source netip.Addr
	for _, route := range n.Routes {
		if route.Destination.Bits() <= best || !route.Destination.Contains(to) {
			continue
		}
		for _, own := range n.addresses(to.Is6()) {
			if own.Masked().Contains(route.Via) {
				best, source = route.Destination.Bits(), own.Addr()
				break
			}
		}
	}
	return source, false
}
