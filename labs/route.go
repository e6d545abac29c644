package labs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// DefaultRoute is the destination of a route for all that no other one leads to.
const DefaultRoute = "default"

// routeMap are the routes of a node, from destinations to the neighbours that
// lead there, in the file's order.
type routeMap []textPair

func (v *routeMap) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "such as {server: r2, default: r1}", "want a mapping from destinations to neighbours, not %s", n.describe())
		return
	}
	(*textMap)(v).read(d, n)
}

func (c *converter) routes(v routeMap, path string) []*tcplabv1.Route {
	var out []*tcplabv1.Route
	for i, p := range v {
		out = append(out, &tcplabv1.Route{To: p.key, Via: p.value})
		c.from(&node{at: p.keyAt, text: p.key}, "%s.routes[%d]", path, i)
		c.from(&node{at: p.keyAt, text: p.key}, "%s.routes[%d].to", path, i)
		c.from(p.at, "%s.routes[%d].via", path, i)
	}
	return out
}

// routes checks the routes that the lab gives: destinations are known, and each
// leads to a neighbour.
func (v *validation) routes() {
	neighbours := v.neighbours()
	for i, n := range v.lab.GetNodes() {
		field := fmt.Sprintf("nodes[%d].routes", i)
		if n.GetKind() == switchKind && len(n.GetRoutes()) > 0 {
			v.add(field+"[0]", "", "%q is a switch and has no routes", n.GetName())
			continue
		}
		seen := make(map[string]bool)
		for j, route := range n.GetRoutes() {
			field := fmt.Sprintf("%s[%d]", field, j)
			if seen[route.GetTo()] {
				v.add(field+".to", "", "%q has two routes to %s", n.GetName(), route.GetTo())
			}
			seen[route.GetTo()] = true
			v.routeTo(field+".to", n.GetName(), route.GetTo())
			v.routeVia(field+".via", n.GetName(), route, neighbours[n.GetName()])
		}
	}
}

func (v *validation) routeTo(field, from, to string) {
	if to == DefaultRoute {
		return
	}
	if p, err := netip.ParsePrefix(to); err == nil {
		if p != p.Masked() {
			v.add(field, fmt.Sprintf("write %s, or %s/%d for the one host", p.Masked(), p.Addr(), p.Addr().BitLen()), "%q has host bits beyond its prefix", to)
		}
		return
	}
	if !v.known(field, to) {
		return
	}
	switch {
	case to == from:
		v.add(field, "", "a route of %q leads to itself", from)
	case v.nodes[to].GetKind() == switchKind:
		v.add(field, "", "%q is a switch: it has no address to lead to", to)
	}
}

func (v *validation) routeVia(field, from string, route *tcplabv1.Route, near []hop) {
	var names []string
	for _, h := range near {
		names = append(names, h.node)
		if h.node == route.GetVia() || h.link != "" && h.link == route.GetVia() {
			if v.nodes[h.node].GetKind() != router && h.node != route.GetTo() {
				v.add(field, fmt.Sprintf("make it one: %s: {kind: router}", h.node), "%q is no router: it passes nothing on", h.node)
			}
			return
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	hint := didYouMean(route.GetVia(), names)
	if hint == "" && len(names) > 0 && len(names) <= 10 {
		hint = fmt.Sprintf("its neighbours are %s", strings.Join(names, ", "))
	}
	v.add(field, hint, "%q is no neighbour of %q, so no route leads through it", route.GetVia(), from)
}

// hop is a neighbour: a node on a segment of the node's, and the link's name
// where it joins just the two.
type hop struct{ node, link string }

func (v *validation) neighbours() map[string][]hop {
	out := make(map[string][]hop)
	for _, n := range v.lab.GetNodes() {
		if len(n.GetRoutes()) > 0 {
			out[n.GetName()] = nil
		}
	}
	if len(out) == 0 {
		return out
	}
	for _, s := range segmentsOf(v.lab) {
		for _, m := range s.members {
			if _, asks := out[m.end.GetNode()]; !asks {
				continue
			}
			for _, other := range s.members {
				if other.end == m.end {
					continue
				}
				h := hop{node: other.end.GetNode()}
				if other.link == m.link {
					h.link = m.link.GetName()
				}
				out[m.end.GetNode()] = append(out[m.end.GetNode()], h)
			}
		}
	}
	return out
}
