// Package diagram draws one connection as text-books do: a line for each end, the client's left,
// and between them an arrow for each segment.
//
// [Text] has a line of text for each segment, in the order in which they were sent. [SVG] has time running
// down the page, so that an arrow slants by how long its segment took; long pauses are cut short, and marked.
//
// It refuses to draw what was not seen: of a segment that was captured at one end alone, one end of the
// arrow is open.
package diagram

import (
	"fmt"
	"strings"
	"time"

	"github.com/tcplab/tcplab/internal/trace"
)

// Options says what is drawn. The zero value draws the whole exchange.
type Options struct {
	Client, Server string        // what the ends are called; empty: by their addresses
	After          time.Duration // since the exchange's beginning; what is before is left out
	Most           int           // segments; 0: all
	Width          int           // of a text, in columns; 0: 100
}

// cut is the part of an exchange that is drawn.
type cut struct {
	trace.Exchange
	before, after int // segments that are left out
}

func (o Options) cut(x trace.Exchange) cut {
	c := cut{Exchange: x}
	for c.before < len(x.Arrows) && x.Arrows[c.before].At().Sub(x.Begin) < o.After {
		c.before++
	}
	c.Arrows = x.Arrows[c.before:]
	if o.Most > 0 && len(c.Arrows) > o.Most {
		c.after = len(c.Arrows) - o.Most
		c.Arrows = c.Arrows[:o.Most]
	}
	return c
}

// titles are what stands above the two lines.
func (o Options) titles(x trace.Exchange) (client, server []string) {
	client, server = []string{x.Client.String()}, []string{x.Server.String()}
	if o.Client != "" {
		client = append([]string{o.Client}, client...)
	}
	if o.Server != "" {
		server = append([]string{o.Server}, server...)
	}
	return client, server
}

// label is what a segment carries: its flags, its data by their numbers, and what it newly
// acknowledges.
func label(a *trace.Arrow) string {
	flags := a.Flags &^ trace.PSH
	var parts []string
	if a.Payload > 0 {
		parts = append(parts, fmt.Sprintf("%d B  %d–%d", a.Payload, a.Seq, a.Seq+int64(a.Payload)-1))
		if rest := flags &^ trace.ACK; rest != 0 {
			parts = append(parts, rest.String())
		}
		if a.NewAck && a.Ack > 1 {
			parts = append(parts, fmt.Sprintf("ACK %d", a.Ack))
		}
		return strings.Join(parts, "  ")
	}
	text := flags.String()
	if flags.Has(trace.ACK) && !flags.Any(trace.SYN|trace.RST) {
		text += fmt.Sprintf(" %d", a.Ack)
	}
	if flags.Has(trace.SYN) && a.Options.MSS > 0 {
		text += fmt.Sprintf("  mss %d", a.Options.MSS)
	}
	if n := len(a.Options.SACK); n > 0 {
		text += fmt.Sprintf("  SACK %d–%d", sacked(a, 0), sackedEnd(a, 0))
		if n > 1 {
			text += fmt.Sprintf(" and %d more", n-1)
		}
	}
	return text
}

// sacked is where a block begins, counted as the acknowledgement is.
func sacked(a *trace.Arrow, block int) int64 {
	return a.Ack + int64(int32(a.Options.SACK[block].Start-a.Segment.Ack))
}

// sackedEnd is the last byte of a block.
func sackedEnd(a *trace.Arrow, block int) int64 {
	return a.Ack + int64(int32(a.Options.SACK[block].End-a.Segment.Ack)) - 1
}

// milliseconds is a time since the exchange's beginning.
func milliseconds(t time.Time, begin time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%.3f", float64(t.Sub(begin))/float64(time.Millisecond))
}

// remark is what else there is to be said of a segment.
func remark(a *trace.Arrow) string {
	notes := a.Notes
	if a.Lost {
		notes = append([]string{"lost"}, notes...)
	}
	return strings.Join(notes, "; ")
}

// segments is a number of segments in words.
func segments(n int) string {
	if n == 1 {
		return "1 segment"
	}
	return fmt.Sprintf("%d segments", n)
}
