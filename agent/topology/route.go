package topology

import (
	"fmt"
	"net/netip"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// attachment is a node's address in a subnet.
type attachment struct {
	node    int
	iface   string
	address netip.Addr
}

// addRoutes gives each node the shortest path, in hops, to every subnet that it
// is not on, for IPv4 and IPv6 apart. Only routers pass packets on: what lies
// behind an endpoint is not reached. Of equal paths the one through the node's
// first interface is taken, and there the router that the lab names first.
// Routes that the lab gives come first; no shortest path leads where one of them does.
func (p *Plan) addRoutes(lab *tcplabv1.Lab, segments []segment) error {
	given := make([][]Route, len(p.Nodes))
	for i, n := range lab.GetNodes() {
		var err error
		if given[i], err = p.given(i, n.GetRoutes(), segments); err != nil {
			return fmt.Errorf("node %s: %w", n.GetName(), err)
		}
		p.Nodes[i].Routes = given[i]
	}
	for _, v6 := range []bool{false, true} {
		g := p.graph(v6)
		for i := range p.Nodes {
			shortest := aggregate(without(p.routes(g, i), given[i]), g.subnets[i])
			p.Nodes[i].Routes = append(p.Nodes[i].Routes, shortest...)
		}
	}
	return nil
}

// graph joins nodes through the subnets that they are on, of one family.
type graph struct {
	subnets [][]netip.Prefix // by node, in the order of its interfaces
	members map[netip.Prefix][]attachment
}

func (p *Plan) graph(v6 bool) graph {
	g := graph{subnets: make([][]netip.Prefix, len(p.Nodes)), members: make(map[netip.Prefix][]attachment)}
	for i, node := range p.Nodes {
		for _, iface := range node.Interfaces {
			for _, a := range iface.Addresses {
				if a.Addr().Is6() != v6 {
					continue
				}
				subnet := a.Masked()
				g.subnets[i] = append(g.subnets[i], subnet)
				g.members[subnet] = append(g.members[subnet], attachment{node: i, iface: iface.Name, address: a.Addr()})
			}
		}
	}
	return g
}

// routes searches breadth first from one node: its subnets, the routers on them, their
// subnets, and so on. Each subnet is first met on a shortest path.
func (p *Plan) routes(g graph, from int) []Route {
	type hop struct {
		node int
		via  Route // the first step from the start; without destination
	}
	var routes []Route
	seen := map[int]bool{from: true}
	met := make(map[netip.Prefix]bool)
	for _, subnet := range g.subnets[from] {
		met[subnet] = true
	}
	var queue []hop
	visit := func(subnet netip.Prefix, step func(attachment) Route) {
		for _, m := range g.members[subnet] {
			if !seen[m.node] && p.Nodes[m.node].isRouter() {
				seen[m.node] = true
				queue = append(queue, hop{m.node, step(m)})
			}
		}
	}
	for _, own := range p.Nodes[from].Interfaces {
		for _, a := range own.Addresses {
			// Members are of the graph's family alone.
			visit(a.Masked(), func(m attachment) Route { return Route{Via: m.address, Interface: own.Name} })
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, subnet := range g.subnets[at.node] {
			if met[subnet] {
				continue
			}
			met[subnet] = true
			route := at.via
			route.Destination = subnet
			routes = append(routes, route)
			visit(subnet, func(attachment) Route { return at.via })
		}
	}
	return routes
}
