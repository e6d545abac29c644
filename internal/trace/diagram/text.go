package diagram

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tcplab/tcplab/internal/trace"
)

const (
	defaultWidth = 100
	minBetween   = 34 // columns between the lines
	timeColumns  = 10
)

// Text draws an exchange in text. Times are in milliseconds, each at the line of the end whose node saw it.
func Text(x trace.Exchange, o Options) string {
	c := o.cut(x)
	width := o.Width
	if width == 0 {
		width = defaultWidth
	}
	longest := 0
	for i := range c.Arrows {
		longest = max(longest, utf8.RuneCountInString(label(&c.Arrows[i])))
	}
	remarks := 0
	for i := range c.Arrows {
		remarks = max(remarks, utf8.RuneCountInString(remark(&c.Arrows[i])))
	}
	// Labels are never cut; the lines come closer where the terminal is narrow.
	between := max(longest+10, min(width-2*timeColumns-4-min(remarks, 30), 64), minBetween)
	var b strings.Builder
	client, server := o.titles(x)
	for i := range max(len(client), len(server)) {
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("%*s%s%s", timeColumns+1, "", padded(at(client, i), between+2-utf8.RuneCountInString(at(server, i))), at(server, i)), " "))
	}
	fmt.Fprintf(&b, "%*s │%s│ ms\n", timeColumns-1, "ms", strings.Repeat(" ", between))
	if c.before > 0 {
		fmt.Fprintf(&b, "%*s ⋮ %s before\n", timeColumns-1, "", segments(c.before))
	}
	for i := range c.Arrows {
		b.WriteString(row(&c.Arrows[i], c.Exchange, between))
	}
	if c.after > 0 {
		fmt.Fprintf(&b, "%*s ⋮ %s more\n", timeColumns-1, "", segments(c.after))
	}
	return b.String()
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func padded(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(s)))
}

// row is one segment.
func row(a *trace.Arrow, x trace.Exchange, between int) string {
	left, right := a.Sent, a.Received
	if !a.FromClient {
		left, right = right, left
	}
	line := strings.TrimRight(fmt.Sprintf("%*s %s %-*s%s", timeColumns-1, milliseconds(left, x.Begin),
		shaft(a, between), timeColumns-1, milliseconds(right, x.Begin), remark(a)), " ")
	return line + "\n"
}

// shaft is the arrow between the two lines.
func shaft(a *trace.Arrow, between int) string {
	text := " " + label(a) + " "
	n := utf8.RuneCountInString(text)
	// The end that nobody saw is open.
	start, tip := "├", "▶┤"
	tail := "─"
	if a.Sent.IsZero() {
		start, tail = "┆", "┄"
	}
	if a.Received.IsZero() && !a.Lost {
		tip = "┄┆"
	}
	free := between - n - 1
	before := free / 2
	after := free - before
	if a.Lost {
		// It ends behind its label, before the other line.
		after = max(1, after/2)
		gap := free - before - after
		if a.FromClient {
			return start + strings.Repeat("─", before) + text + strings.Repeat("─", after) + "✗" + strings.Repeat(" ", gap) + "│"
		}
		return "│" + strings.Repeat(" ", gap) + "✗" + strings.Repeat("─", after) + text + strings.Repeat("─", before) + "┤"
	}
	if a.FromClient {
		return start + strings.Repeat(tail, before) + text + strings.Repeat("─", after) + tip
	}
	start, tip = "┤", "├◀"
	if a.Sent.IsZero() {
		start = "┆"
	}
	if a.Received.IsZero() {
		tip = "┆┄"
	}
	return tip + strings.Repeat("─", before) + text + strings.Repeat(tail, after) + start
}
