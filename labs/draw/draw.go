// Package draw draws a lab's topology: [Text] for a terminal, [SVG] for paper and
// browsers. The same lab makes the same picture. It knows nothing of units: what a
// direction does is put into words by its caller.
//
// Both take a spanning tree from the middle of the lab. Text is that tree, and names once
// more what a further link leads to. SVG puts what is left when endpoints with one
// link are taken away on a line where it is one, and on a circle where it is not,
// and the endpoints around it.
package draw

import (
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Words says in a line what a direction does; empty where it does nothing.
type Words func(*tcplabv1.Direction) string

// graph is a lab by numbers.
type graph struct {
	nodes []*tcplabv1.Node
	edges []edge
	at    [][]int // edges of each node, in the lab's order
	words Words
}

// edge is a link.
type edge struct {
	link *tcplabv1.Link
	ends [2]int
}

// newGraph leaves out links to nodes that there are not: a lab that is valid
// has none.
func newGraph(lab *tcplabv1.Lab, words Words) *graph {
	g := &graph{nodes: lab.GetNodes(), at: make([][]int, len(lab.GetNodes())), words: words}
	index := make(map[string]int, len(g.nodes))
	for i, n := range g.nodes {
		index[n.GetName()] = i
	}
	for _, l := range lab.GetLinks() {
		a, okA := index[l.GetA().GetNode()]
		b, okB := index[l.GetB().GetNode()]
		if !okA || !okB {
			continue
		}
		g.at[a] = append(g.at[a], len(g.edges))
		g.at[b] = append(g.at[b], len(g.edges))
		g.edges = append(g.edges, edge{link: l, ends: [2]int{a, b}})
	}
	return g
}

// across is the node at the other end of an edge.
func (g *graph) across(e, from int) int {
	if g.edges[e].ends[0] == from {
		return g.edges[e].ends[1]
	}
	return g.edges[e].ends[0]
}

// ways are the words for an edge, from a node and to it.
func (g *graph) ways(e, from int) (away, back string) {
	l := g.edges[e].link
	away, back = g.words(l.GetForward()), g.words(l.GetBackward())
	if g.edges[e].ends[0] != from {
		away, back = back, away
	}
	return away, back
}

// neighbours are the distinct nodes next to one.
func (g *graph) neighbours(n int) []int {
	var out []int
	for _, e := range g.at[n] {
		if next := g.across(e, n); !slices.Contains(out, next) {
			out = append(out, next)
		}
	}
	return out
}

// isLeaf reports whether a node has one neighbour, which has others.
func (g *graph) isLeaf(n int) bool {
	next := g.neighbours(n)
	return len(next) == 1 && len(g.neighbours(next[0])) > 1
}

// kindWord is the kind of a node in a word.
func kindWord(n *tcplabv1.Node) string {
	switch n.GetStack() {
	case tcplabv1.NodeStack_NODE_STACK_HOST:
		return "host"
	case tcplabv1.NodeStack_NODE_STACK_OUTSIDE:
		return "outside"
	}
	switch n.GetKind() {
	case tcplabv1.NodeKind_NODE_KIND_ROUTER:
		return "router"
	case tcplabv1.NodeKind_NODE_KIND_SWITCH:
		return "switch"
	}
	return "endpoint"
}

// middle orders the nodes in which trees begin: those with most neighbours first,
// routers and switches before endpoints.
func (g *graph) middle() []int {
	order := make([]int, len(g.nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		passes := func(n int) int {
			if kindWord(g.nodes[n]) == "endpoint" {
				return 1
			}
			return 0
		}
		if d := passes(a) - passes(b); d != 0 {
			return d
		}
		return len(g.neighbours(b)) - len(g.neighbours(a))
	})
	return order
}

// path is the way through a lab that is one line, from its first end; nil for
// any other.
func (g *graph) path() []int {
	var ends []int
	for n := range g.nodes {
		switch len(g.at[n]) {
		case 1:
			ends = append(ends, n)
		case 2:
		default:
			return nil
		}
	}
	if len(ends) != 2 || len(g.edges) != len(g.nodes)-1 {
		return nil
	}
	way := []int{ends[0]}
	for before := -1; len(way) < len(g.nodes); {
		last := way[len(way)-1]
		for _, e := range g.at[last] {
			if next := g.across(e, last); next != before {
				before = last
				way = append(way, next)
				break
			}
		}
		if way[len(way)-1] == last {
			return nil
		}
	}
	return way
}

// stem is a name without the number at its end.
func stem(name string) string { return strings.TrimRight(name, "0123456789") }
