package draw

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Lengths of the picture, in pixels.
const (
	boxWidth   = 190.0 // of a node
	lineHeight = 15.0
	across     = 520.0 // between nodes on the line
	down       = 110.0 // between nodes one above the other
	edgeSpace  = 30.0  // around the picture
	mostLines  = 4     // addresses of a node; of more the rest is counted
)

type spot struct{ x, y float64 }

// frame is what a picture spans.
type frame struct{ low, high spot }

func (f *frame) include(at spot, w, h float64) {
	f.low = spot{min(f.low.x, at.x-w/2), min(f.low.y, at.y-h/2)}
	f.high = spot{max(f.high.x, at.x+w/2), max(f.high.y, at.y+h/2)}
}

// SVG draws the lab with each node's name, kind and addresses, and what each
// direction of its links does.
func SVG(lab *tcplabv1.Lab, words Words) string {
	g := newGraph(lab, words)
	spots := g.places()
	f := &frame{}
	var links, nodes, labels strings.Builder
	for i, s := range spots {
		if i == 0 {
			*f = frame{s, s}
		}
		f.include(s, boxWidth, g.height(i))
		g.svgNode(&nodes, i, s)
	}
	g.svgLinks(&links, &labels, spots, f)
	width, height := f.high.x-f.low.x+2*edgeSpace, f.high.y-f.low.y+2*edgeSpace
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="%.0f %.0f %.0f %.0f" font-family="sans-serif" font-size="12">`+"\n",
		width, height, f.low.x-edgeSpace, f.low.y-edgeSpace, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n", escape(lab.GetName()))
	fmt.Fprintf(&b, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", f.low.x-edgeSpace, f.low.y-edgeSpace, width, height)
	b.WriteString(links.String() + nodes.String() + labels.String() + "</svg>\n")
	return b.String()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}

// lines are what stands in a node's box.
func (g *graph) lines(n int) []string {
	var addresses []string
	for _, e := range g.at[n] {
		end := g.edges[e].link.GetA()
		if g.edges[e].ends[0] != n {
			end = g.edges[e].link.GetB()
		}
		addresses = append(addresses, end.GetAddresses()...)
	}
	if left := len(addresses) - mostLines; left > 0 {
		addresses = append(addresses[:mostLines:mostLines], fmt.Sprintf("and %d more", left))
	}
	return append([]string{g.nodes[n].GetName(), kindWord(g.nodes[n])}, addresses...)
}

func (g *graph) height(n int) float64 { return float64(len(g.lines(n)))*lineHeight + 14 }

func (g *graph) svgNode(b *strings.Builder, n int, s spot) {
	colour := map[string]string{"endpoint": "#e8f1fb", "router": "#fdf0dc", "switch": "#e6f4e6", "host": "#eeeeee", "outside": "#eeeeee"}[kindWord(g.nodes[n])]
	round := map[string]float64{"endpoint": 8, "router": 24, "switch": 0}[kindWord(g.nodes[n])]
	h := g.height(n)
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.0f" height="%.1f" rx="%.0f" fill="%s" stroke="#44546a"/>`+"\n", s.x-boxWidth/2, s.y-h/2, boxWidth, h, round, colour)
	for i, line := range g.lines(n) {
		style := ` fill="#44546a" font-size="11"`
		if i == 0 {
			style = ` font-weight="bold" font-size="14"`
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle"%s>%s</text>`+"\n", s.x, s.y-h/2+lineHeight*float64(i+1)+3, style, escape(line))
	}
}

// svgLinks draws the links, parallel ones as arcs, and their labels, which lie
// over the nodes.
func (g *graph) svgLinks(lines, labels *strings.Builder, spots []spot, f *frame) {
	parallel := make(map[[2]int][]int)
	for i, e := range g.edges {
		pair := [2]int{min(e.ends[0], e.ends[1]), max(e.ends[0], e.ends[1])}
		parallel[pair] = append(parallel[pair], i)
	}
	for i, e := range g.edges {
		pair := [2]int{min(e.ends[0], e.ends[1]), max(e.ends[0], e.ends[1])}
		same := parallel[pair]
		from, to := spots[pair[0]], spots[pair[1]]
		length := math.Hypot(to.x-from.x, to.y-from.y)
		if length == 0 {
			continue
		}
		off := spot{-(to.y - from.y) / length, (to.x - from.x) / length}
		label := g.label(e, spots[e.ends[0]], spots[e.ends[1]])
		w, h := extent(label)
		// Arcs lie to both sides of the straight way, apart by what their labels take.
		apart := math.Abs(off.x)*(w+20) + math.Abs(off.y)*(h+30)
		bend := (float64(slices.Index(same, i)) - float64(len(same)-1)/2) * apart
		middle := spot{(from.x + to.x) / 2, (from.y + to.y) / 2}
		curve := fmt.Sprintf(`<path d="M %.1f %.1f Q %.1f %.1f %.1f %.1f" fill="none" stroke="#7f8ea3" stroke-width="1.5"/>`+"\n",
			from.x, from.y, middle.x+2*bend*off.x, middle.y+2*bend*off.y, to.x, to.y)
		if leaf, hub, column := g.inColumn(pair, spots); column && len(same) == 1 {
			f.include(g.svgElbow(lines, labels, label, spots[leaf], spots[hub]), w, h)
			continue
		}
		lines.WriteString(curve)
		t := g.where(pair, length)
		at := spot{
			from.x + t*(to.x-from.x) + 4*t*(1-t)*bend*off.x,
			from.y + t*(to.y-from.y) + 4*t*(1-t)*bend*off.y,
		}
		if len(label) > 0 {
			f.include(at, w, h)
			svgLabel(labels, label, at)
		}
	}
}

// inColumn tells the endpoint of a link that stands in a column beside its hub.
func (g *graph) inColumn(pair [2]int, spots []spot) (leaf, hub int, column bool) {
	leaf, hub = pair[0], pair[1]
	if !g.isLeaf(leaf) {
		leaf, hub = hub, leaf
	}
	dx, dy := math.Abs(spots[leaf].x-spots[hub].x), math.Abs(spots[leaf].y-spots[hub].y)
	return leaf, hub, g.isLeaf(leaf) && dx > 1.4*across && dy > 1
}

// svgElbow draws a link of a column: level past the other boxes, where its label
// has room, and then straight to the hub. It returns the label's place.
func (g *graph) svgElbow(lines, labels *strings.Builder, label []string, leaf, hub spot) spot {
	w, _ := extent(label)
	side := math.Copysign(1, hub.x-leaf.x)
	elbow := leaf.x + side*(boxWidth/2+w+30)
	fmt.Fprintf(lines, `<path d="M %.1f %.1f H %.1f L %.1f %.1f" fill="none" stroke="#7f8ea3" stroke-width="1.5"/>`+"\n", leaf.x, leaf.y, elbow, hub.x, hub.y)
	at := spot{leaf.x + side*(boxWidth/2+w/2+15), leaf.y}
	if len(label) > 0 {
		svgLabel(labels, label, at)
	}
	return at
}

// where is at which part of a link its label stands: in the middle, but nearer to an
// endpoint that hangs far off, and aside of the middle where long links cross.
func (g *graph) where(pair [2]int, length float64) float64 {
	const far = 1.2 * across
	switch {
	case length < far:
		return 0.5
	case g.isLeaf(pair[0]):
		return 0.3
	case g.isLeaf(pair[1]):
		return 0.7
	}
	return 0.37
}

// label says what both directions of a link do, with arrows as the link lies.
func (g *graph) label(e edge, from, to spot) []string {
	there, back := "→", "←"
	switch {
	case math.Abs(to.x-from.x) < 1 && to.y > from.y:
		there, back = "↓", "↑"
	case math.Abs(to.x-from.x) < 1:
		there, back = "↑", "↓"
	case to.x < from.x:
		there, back = back, there
	}
	forward, backward := g.words(e.link.GetForward()), g.words(e.link.GetBackward())
	if forward == backward && forward != "" {
		return []string{"⇄ " + forward}
	}
	var lines []string
	for _, way := range [][2]string{{there, forward}, {back, backward}} {
		if way[1] != "" {
			lines = append(lines, way[0]+" "+way[1])
		}
	}
	return lines
}

// extent is about how much room a label takes.
func extent(label []string) (w, h float64) {
	const letter = 6.2
	for _, line := range label {
		w = max(w, float64(utf8.RuneCountInString(line))*letter+10)
	}
	return w, float64(len(label))*lineHeight + 4
}

func svgLabel(b *strings.Builder, label []string, at spot) {
	w, h := extent(label)
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="#ffffff" fill-opacity="0.9"/>`+"\n", at.x-w/2, at.y-h/2, w, h)
	for i, line := range label {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="11">%s</text>`+"\n", at.x, at.y-h/2+lineHeight*float64(i+1)-2, escape(line))
	}
}
