package labs

import (
	"fmt"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// segment is what hears one broadcast: a link, or all links that switches
// join.
type segment struct {
	members []member // ends in endpoints and routers, in the order of links
	ports   []member // ends in switches
	loop    string   // field of a link that closes a circle of switches; or empty
}

// member is one end of a link.
type member struct {
	link  *tcplabv1.Link
	end   *tcplabv1.LinkEnd
	field string // "links[0].a"
}

// segmentsOf are the segments of a lab, in the order of their first links.
func segmentsOf(lab *tcplabv1.Lab) []segment {
	switches := make(map[string]bool)
	for _, n := range lab.GetNodes() {
		switches[n.GetName()] = n.GetKind() == tcplabv1.NodeKind_NODE_KIND_SWITCH
	}
	// Union-find over switches: those joined by a link are one.
	parent := make(map[string]string)
	var root func(string) string
	root = func(s string) string {
		if p, ok := parent[s]; ok && p != s {
			parent[s] = root(p)
			return parent[s]
		}
		return s
	}
	loops := make(map[int]bool)
	for i, l := range lab.GetLinks() {
		a, b := l.GetA().GetNode(), l.GetB().GetNode()
		if !switches[a] || !switches[b] {
			continue
		}
		if root(a) == root(b) {
			loops[i] = true
		}
		parent[root(b)] = root(a)
	}
	var out []segment
	index := make(map[string]int) // of a joined set of switches
	foreign := hostLinks(lab)
	for i, l := range lab.GetLinks() {
		if foreign[l] {
			continue
		}
		at := -1
		for _, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			if switches[end.GetNode()] {
				if known, ok := index[root(end.GetNode())]; ok {
					at = known
				}
			}
		}
		if at < 0 {
			at = len(out)
			out = append(out, segment{})
		}
		s := &out[at]
		for j, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			m := member{link: l, end: end, field: fmt.Sprintf("links[%d].%s", i, [2]string{"a", "b"}[j])}
			if switches[end.GetNode()] {
				index[root(end.GetNode())] = at
				s.ports = append(s.ports, m)
			} else {
				s.members = append(s.members, m)
			}
		}
		if loops[i] && s.loop == "" {
			s.loop = fmt.Sprintf("links[%d]", i)
		}
	}
	return out
}

// reach answers which nodes a packet can get to.
type reach struct {
	neighbours map[string][]string
	forwards   map[string]bool
	from       map[string]map[string]bool
}

func newReach(lab *tcplabv1.Lab) *reach {
	r := &reach{neighbours: make(map[string][]string), forwards: make(map[string]bool), from: make(map[string]map[string]bool)}
	for _, n := range lab.GetNodes() {
		switch n.GetKind() {
		case tcplabv1.NodeKind_NODE_KIND_ROUTER, tcplabv1.NodeKind_NODE_KIND_SWITCH:
			r.forwards[n.GetName()] = true
		}
	}
	for _, l := range lab.GetLinks() {
		a, b := l.GetA().GetNode(), l.GetB().GetNode()
		r.neighbours[a] = append(r.neighbours[a], b)
		r.neighbours[b] = append(r.neighbours[b], a)
	}
	return r
}

// reaches reports whether packets get from one node to another: past routers
// and switches, but through no endpoint.
func (r *reach) reaches(from, to string) bool {
	seen, ok := r.from[from]
	if !ok {
		seen = map[string]bool{from: true}
		for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
			if queue[0] != from && !r.forwards[queue[0]] {
				continue
			}
			for _, next := range r.neighbours[queue[0]] {
				if !seen[next] {
					seen[next] = true
					queue = append(queue, next)
				}
			}
		}
		r.from[from] = seen
	}
	return seen[to]
}
