package draw

import (
	"fmt"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// alike is from how many endpoints on, which differ in nothing but the number
// in their name, they stand in one line.
const alike = 6

// Text draws the lab for a terminal: a line as a line from top to bottom, anything else
// as a tree. "▸" is the direction away from the node above, "◂" the one back,
// "⇄" both alike.
func Text(lab *tcplabv1.Lab, words Words) string {
	g := newGraph(lab, words)
	var b strings.Builder
	if way := g.path(); way != nil {
		g.line(&b, way)
		return b.String()
	}
	t := tree{graph: g, out: &b, seen: make([]bool, len(g.nodes)), drawn: make([]bool, len(g.edges)), children: make([][]int, len(g.nodes))}
	for _, root := range g.middle() {
		if !t.seen[root] {
			t.span(root)
			b.WriteString(g.title(root) + "\n")
			t.below(root, -1, "")
		}
	}
	return b.String()
}

// title is a node's name, and its kind where that is not the usual one.
func (g *graph) title(n int) string {
	if kind := kindWord(g.nodes[n]); kind != "endpoint" {
		return g.nodes[n].GetName() + " (" + kind + ")"
	}
	return g.nodes[n].GetName()
}

// does is what an edge does, seen from a node.
func (g *graph) does(e, from int) string {
	away, back := g.ways(e, from)
	switch {
	case away == "" && back == "":
		return ""
	case away == back:
		return "⇄ " + away
	case back == "":
		return "▸ " + away
	case away == "":
		return "◂ " + back
	}
	return "▸ " + away + "  ◂ " + back
}

func (g *graph) line(b *strings.Builder, way []int) {
	for i, n := range way {
		b.WriteString(g.title(n) + "\n")
		if i == len(way)-1 {
			return
		}
		for _, e := range g.at[n] {
			if g.across(e, n) == way[i+1] {
				b.WriteString(strings.TrimRight("│  "+g.does(e, n), " ") + "\n")
			}
		}
	}
}

// tree draws a spanning tree with the further links at their places.
type tree struct {
	*graph
	out      *strings.Builder
	seen     []bool  // nodes that have a place
	drawn    []bool  // edges
	children [][]int // edges of the tree below each node
}

// span gives each node that can be reached its place, the nearest first.
func (t *tree) span(root int) {
	t.seen[root] = true
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, e := range t.at[queue[0]] {
			if next := t.across(e, queue[0]); !t.seen[next] {
				t.seen[next] = true
				t.children[queue[0]] = append(t.children[queue[0]], e)
				queue = append(queue, next)
			}
		}
	}
	for _, below := range t.children {
		for _, e := range below {
			t.drawn[e] = true
		}
	}
}

// entry is a line of the tree below a node.
type entry struct {
	text string
	edge int // that goes on below it; -1: none
}

// below draws all that hangs at a node, which was reached by an edge.
func (t *tree) below(n, by int, indent string) {
	var entries []entry
	for _, e := range t.at[n] {
		if e != by && !t.drawn[e] {
			t.drawn[e] = true
			entries = append(entries, entry{text: t.nodes[t.across(e, n)].GetName() + ", as elsewhere" + prefixed(t.does(e, n)), edge: -1})
		}
	}
	for i := 0; i < len(t.children[n]); {
		e := t.children[n][i]
		run := t.run(n, i)
		if run >= alike {
			first, last := t.across(e, n), t.across(t.children[n][i+run-1], n)
			entries = append(entries, entry{
				text: fmt.Sprintf("%s … %s (%d %ss)%s", t.nodes[first].GetName(), t.nodes[last].GetName(), run, kindWord(t.nodes[first]), prefixed(t.does(e, n))),
				edge: -1,
			})
			i += run
			continue
		}
		entries = append(entries, entry{text: t.title(t.across(e, n)) + prefixed(t.does(e, n)), edge: e})
		i++
	}
	for i, x := range entries {
		branch, further := "├─ ", "│  "
		if i == len(entries)-1 {
			branch, further = "└─ ", "   "
		}
		t.out.WriteString(indent + branch + x.text + "\n")
		if x.edge >= 0 {
			t.below(t.across(x.edge, n), x.edge, indent+further)
		}
	}
}

func prefixed(does string) string {
	if does == "" {
		return ""
	}
	return "  " + does
}

// run is how many children from the i-th on are alike and have but this link.
func (t *tree) run(n, i int) int {
	first := t.across(t.children[n][i], n)
	count := 0
	for _, e := range t.children[n][i:] {
		child := t.across(e, n)
		if len(t.at[child]) != 1 || kindWord(t.nodes[child]) != kindWord(t.nodes[first]) || t.does(e, n) != t.does(t.children[n][i], n) ||
			stem(t.nodes[child].GetName()) != stem(t.nodes[first].GetName()) {
			break
		}
		count++
	}
	return count
}
