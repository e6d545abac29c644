package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// given are the routes that the lab gives a node, in the order of the lab. Of two
// to one prefix the first counts.
func (p *Plan) given(at int, asked []*tcplabv1.Route, segments []segment) ([]Route, error) {
	var routes []Route
	for _, r := range asked {
		near, far, err := p.neighbour(at, r.GetVia(), segments)
		if err != nil {
			return nil, err
		}
		to, err := p.destinations(r.GetTo())
		if err != nil {
			return nil, err
		}
		made := false
		for _, destination := range to {
			via, ok := sharedAddress(p.at(near), p.at(far), destination.Addr().Is6())
			if !ok {
				continue
			}
			made = true
			taken := slices.ContainsFunc(routes, func(other Route) bool { return other.Destination == destination })
			itself := destination.IsSingleIP() && destination.Addr() == via
			if !taken && !itself {
				routes = append(routes, Route{Destination: destination, Via: via, Interface: p.at(near).Name})
			}
		}
		if !made {
			return nil, fmt.Errorf("route to %s: %s has no address of its family on the way there", r.GetTo(), r.GetVia())
		}
	}
	return routes, nil
}

// neighbour is the first interface of a node from which another node, or the link to it, is
// reached without a router, and the interface there.
func (p *Plan) neighbour(at int, via string, segments []segment) (near, far End, err error) {
	for _, byNode := range []bool{true, false} {
		for _, s := range segments {
			for _, own := range s {
				if own.Node != at {
					continue
				}
				for _, other := range s {
					fits := p.Nodes[other.Node].Name == via
					if !byNode {
						fits = p.linkName(own, other) == via
					}
					if other.Node != at && fits {
						return own, other, nil
					}
				}
			}
		}
	}
	return near, far, fmt.Errorf("route via %s: no such node or link is next to it", via)
}

// linkName is the name of the link between two interfaces, or empty.
func (p *Plan) linkName(a, b End) string {
	for _, l := range p.Links {
		if l.Ends == [2]End{a, b} || l.Ends == [2]End{b, a} {
			return l.Name
		}
	}
	return ""
}

// destinations are the prefixes that a route's destination means.
func (p *Plan) destinations(to string) ([]netip.Prefix, error) {
	if to == labs.DefaultRoute {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}, nil
	}
	if prefix, err := netip.ParsePrefix(to); err == nil {
		return []netip.Prefix{prefix.Masked()}, nil
	}
	at := p.node(to)
	if at < 0 {
		return nil, fmt.Errorf("route to %s: there is no such node", to)
	}
	var all []netip.Prefix
	for _, v6 := range []bool{false, true} {
		for _, a := range p.Nodes[at].addresses(v6) {
			all = append(all, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("route to %s: it has no address", to)
	}
	return all, nil
}

// sharedAddress is an address of there in a subnet of here, of one family.
func sharedAddress(here, there *Interface, v6 bool) (netip.Addr, bool) {
	for _, a := range there.Addresses {
		for _, own := range here.Addresses {
			if a.Addr().Is6() == v6 && own.Masked().Contains(a.Addr()) {
				return a.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// without are the routes that no given one covers.
func without(routes, given []Route) []Route {
	return slices.DeleteFunc(routes, func(r Route) bool {
		return slices.ContainsFunc(given, func(g Route) bool {
			return g.Destination.Bits() <= r.Destination.Bits() && g.Destination.Contains(r.Destination.Addr())
		})
	})
}
