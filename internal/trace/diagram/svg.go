package diagram

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tcplab/tcplab/internal/trace"
)

// Lengths of the picture in pixels.
const (
	margin    = 24.0
	timeWidth = 76.0  // for the times beside each line
	across    = 430.0 // between the lines
	noteWidth = 250.0 // for remarks beside the server's times
	header    = 72.0
	footer    = 30.0
	slant     = 46.0  // down, of a segment that takes as long as most
	sendStep  = 15.0  // between departures at one line at least, so that labels do not meet
	otherStep = 5.0   // between any two moments at least
	pause     = 110.0 // between two moments at most; a longer one is marked
)

// moment is when a segment left or came.
type moment struct {
	at     time.Time
	client bool // at the client's line
	sent   bool
}

// page says where on the page a time is: further down is later, and as much as the scale says, but no two
// departures too near, and no pause too long.
type page struct {
	times  []time.Time
	y      []float64
	breaks []int         // pauses that were cut short, by the moment before
	flight time.Duration // of most segments
	used   map[int]bool  // moments that have their arrow
	stamps [2][]float64  // where times are written, at each line
}

// layout places the moments of a part of an exchange.
func layout(c cut) page {
	var moments []moment
	var flights []time.Duration
	for i := range c.Arrows {
		a := &c.Arrows[i]
		if !a.Sent.IsZero() {
			moments = append(moments, moment{a.Sent, a.FromClient, true})
		}
		if !a.Received.IsZero() {
			// Where nobody saw the departure the label stands at the arrival.
			moments = append(moments, moment{a.Received, !a.FromClient, a.Sent.IsZero()})
		}
		if !a.Sent.IsZero() && a.Received.After(a.Sent) {
			flights = append(flights, a.Received.Sub(a.Sent))
		}
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return a.at.Compare(b.at) })
	perSecond := slant / 0.01
	p := page{used: make(map[int]bool)}
	if len(flights) > 0 {
		slices.Sort(flights)
		p.flight = flights[len(flights)/2]
		perSecond = slant / p.flight.Seconds()
	}
	last := [2]float64{math.Inf(-1), math.Inf(-1)} // the last label's place at each line
	y := header
	for i, m := range moments {
		if i > 0 {
			step := m.at.Sub(moments[i-1].at).Seconds() * perSecond
			if step > pause {
				p.breaks = append(p.breaks, len(p.times)-1)
			}
			if m.at.Equal(moments[i-1].at) && !m.sent {
				step = 0
			} else {
				step = min(max(step, otherStep), pause)
			}
			y += step
		}
		line := 0
		if m.client {
			line = 1
		}
		if m.sent {
			y = max(y, last[line]+sendStep)
			last[line] = y
		}
		p.times, p.y = append(p.times, m.at), append(p.y, y)
	}
	return p
}

// of is the place of a moment. Of several at one time each takes its own.
func (p *page) of(t time.Time) float64 {
	i, found := slices.BinarySearchFunc(p.times, t, func(a, b time.Time) int { return a.Compare(b) })
	if !found {
		return header
	}
	for j := i; j < len(p.times) && p.times[j].Equal(t); j++ {
		if !p.used[j] {
			p.used[j] = true
			return p.y[j]
		}
	}
	return p.y[i]
}

// between is the place of any time, between those of moments, or beyond the last.
func (p *page) between(t time.Time) float64 {
	i, found := slices.BinarySearchFunc(p.times, t, func(a, b time.Time) int { return a.Compare(b) })
	switch n := len(p.times); {
	case found:
		return p.y[i]
	case i == 0:
		return header - slant
	case i == n:
		return p.y[n-1] + slant/2
	default:
		share := t.Sub(p.times[i-1]).Seconds() / p.times[i].Sub(p.times[i-1]).Seconds()
		return p.y[i-1] + share*(p.y[i]-p.y[i-1])
	}
}

// SVG draws an exchange as a picture.
func SVG(x trace.Exchange, o Options) string {
	c := o.cut(x)
	p := layout(c)
	bottom := header
	if len(p.y) > 0 {
		bottom = p.y[len(p.y)-1]
	}
	height := bottom + footer + margin
	width := 2*margin + 2*timeWidth + across + noteWidth
	left, right := margin+timeWidth, margin+timeWidth+across
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n", escape(x.Client.String()+" – "+x.Server.String()))
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", width, height)
	client, server := o.titles(x)
	title(&b, left, client)
	title(&b, right, server)
	for _, at := range []float64{left, right} {
		fmt.Fprintf(&b, `<line x1="%.0f" y1="%.0f" x2="%.0f" y2="%.1f" stroke="#44546a" stroke-width="1.5"/>`+"\n", at, header-14, at, bottom+14)
	}
	fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="end" fill="#7f8ea3">ms</text>`+"\n", left-8, header-14)
	fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" fill="#7f8ea3">ms</text>`+"\n", right+8, header-14)
	for _, i := range p.breaks {
		y := (p.y[i] + p.y[i+1]) / 2
		for _, at := range []float64{left, right} {
			fmt.Fprintf(&b, `<path d="M %.0f %.1f l 12 -6 M %.0f %.1f l 12 -6" stroke="#44546a"/>`+"\n", at-6, y, at-6, y+5)
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="%.1f" text-anchor="end" fill="#7f8ea3" font-style="italic">%.1f ms</text>`+"\n", left-12, y+4,
			float64(p.times[i+1].Sub(p.times[i]))/float64(time.Millisecond))
	}
	var names strings.Builder // over the lines
	for i := range c.Arrows {
		p.draw(&b, &names, &c.Arrows[i], c.Begin, left, right)
	}
	b.WriteString(names.String())
	if text := leftOut(c); text != "" {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.1f" text-anchor="middle" fill="#7f8ea3">%s</text>`+"\n", (left+right)/2, bottom+footer, text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func leftOut(c cut) string {
	var parts []string
	if c.before > 0 {
		parts = append(parts, segments(c.before)+" before")
	}
	if c.after > 0 {
		parts = append(parts, segments(c.after)+" more")
	}
	return strings.Join(parts, ", ")
}

func title(b *strings.Builder, x float64, lines []string) {
	for i, line := range lines {
		style := ` fill="#44546a"`
		if i == 0 {
			style = ` font-weight="bold" font-size="14"`
		}
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle"%s>%s</text>`+"\n", x, margin+float64(i)*15, style, escape(line))
	}
}

// colour tells kinds of segments apart.
func colour(a *trace.Arrow) string {
	switch {
	case a.Lost || a.Flags.Has(trace.RST):
		return "#c0392b"
	case slices.ContainsFunc(a.Notes, func(n string) bool { return strings.HasPrefix(n, "sent again") }):
		return "#d35400"
	case a.Flags.Any(trace.SYN | trace.FIN):
		return "#1e8449"
	case a.Payload > 0:
		return "#1f5fa8"
	}
	return "#7f8ea3"
}

// draw draws one segment.
func (p *page) draw(b, names *strings.Builder, a *trace.Arrow, begin time.Time, left, right float64) {
	from, to := left, right
	if !a.FromClient {
		from, to = right, left
	}
	start, end := math.NaN(), math.NaN()
	if !a.Sent.IsZero() {
		start = p.of(a.Sent)
	}
	if !a.Received.IsZero() {
		end = p.of(a.Received)
	}
	ink, dash := colour(a), ""
	tip := to
	switch {
	case a.Lost:
		tip = from + (to-from)*0.55
		end = start + max(slant/4, p.between(a.Sent.Add(p.flight))-start)*0.55
	case math.IsNaN(end): // nobody saw it come
		end, dash = start+slant/2, ` stroke-dasharray="4 3"`
	case math.IsNaN(start):
		start, dash = end-slant/2, ` stroke-dasharray="4 3"`
	}
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="1.3"%s/>`+"\n", from, start, tip, end, ink, dash)
	angle := math.Atan2(end-start, tip-from)
	if a.Lost {
		fmt.Fprintf(b, `<path d="M %.1f %.1f l 10 10 M %.1f %.1f l 10 -10" stroke="%s" stroke-width="2"/>`+"\n", tip-5, end-5, tip-5, end+5, ink)
	} else {
		fmt.Fprintf(b, `<path d="M 0 0 L -9 -3.5 L -9 3.5 Z" fill="%s" transform="translate(%.1f %.1f) rotate(%.2f)"/>`+"\n", ink, tip, end, angle*180/math.Pi)
	}
	// The label lies along the arrow, near where it begins, on a ground of its own.
	text := label(a)
	turn := angle
	if to < from {
		turn += math.Pi
	}
	const along = 0.27
	lx, ly := from+(to-from)*along, start+(end-start)*along*(to-from)/(tip-from)
	if a.Sent.IsZero() {
		lx, ly = from+(to-from)*(1-along), start+(end-start)*(1-along)
	}
	extent := float64(len([]rune(text)))*5.9 + 6
	fmt.Fprintf(names, `<g transform="translate(%.1f %.1f) rotate(%.2f)"><rect x="%.1f" y="-6.5" width="%.1f" height="13" fill="#ffffff" fill-opacity="0.92"/><text y="4" text-anchor="middle" fill="%s">%s</text></g>`+"\n",
		lx, ly, turn*180/math.Pi, -extent/2, extent, cmp.Or(ink, "#000000"), escape(text))
	p.stamp(b, a.Sent, begin, start, from == left, left, right)
	if !a.Received.IsZero() {
		p.stamp(b, a.Received, begin, end, to == left, left, right)
	}
	if text := remark(a); text != "" {
		y := start
		if !a.FromClient {
			y = cmp.Or(start, end)
		} else if !math.IsNaN(end) && !a.Lost {
			y = end
		}
		fmt.Fprintf(names, `<text x="%.0f" y="%.1f" fill="%s" font-style="italic">%s</text>`+"\n", right+timeWidth, y+4, ink, escape(text))
	}
}

// stamp writes a time beside a line, where there is room for it.
func (p *page) stamp(b *strings.Builder, t, begin time.Time, y float64, atLeft bool, left, right float64) {
	line, x, anchor := 1, right+8, "start"
	if atLeft {
		line, x, anchor = 0, left-8, "end"
	}
	taken := func(other float64) bool { return math.Abs(y-other) < 11 }
	if t.IsZero() || slices.ContainsFunc(p.stamps[line], taken) {
		return
	}
	p.stamps[line] = append(p.stamps[line], y)
	fmt.Fprintf(b, `<text x="%.0f" y="%.1f" text-anchor="%s" fill="#44546a">%s</text>`+"\n", x, y+4, anchor, milliseconds(t, begin))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}
