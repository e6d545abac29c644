package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Measurement is done several times in a run. Each time gives one figure for
// each of its rows.
type Measurement struct {
	Name  string        // what is done, for the progress
	Setup string        // what a reader of the table must know; may be empty
	Limit time.Duration // when one time has failed
	Rows  []Row
	// Once does it. The figures are in the order of Rows.
	Once func(context.Context) ([]Figure, error)
}

// Row is a line of the table.
type Row struct {
	Name   string
	Unit   string // of the figures; empty: they are counts
	Digits int    // after the point, to print them with
	Target Target
	Peer   string // the tool beside which it is measured; empty: none
	// Every asks the target of each figure. Otherwise it is asked of the median,
	// which does not see one loss in five.
	Every bool
}

// Target bounds a figure. The zero value bounds nothing.
type Target struct {
	Least, Most *float64 // nil: no bound
	// OfPeer says that the bounds are of the ratio of tcplab's median to the
	// peer's.
	OfPeer bool
}

func atLeast(x float64) Target    { return Target{Least: &x} }
func atMost(x float64) Target     { return Target{Most: &x} }
func between(a, b float64) Target { return Target{Least: &a, Most: &b} }
func exactly(x float64) Target    { return between(x, x) }

// met reports whether the figure is within the bounds. NaN never is.
func (t Target) met(x float64) bool {
	return !math.IsNaN(x) && (t.Least == nil || x >= *t.Least) && (t.Most == nil || x <= *t.Most)
}

// Figure is what one time gave for one row.
type Figure struct {
	Ours float64 `json:"ours"`
	Peer float64 `json:"peer,omitempty"` // where the row has one
}

// Spread is what all times gave: the median, the least and the greatest.
type Spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// spread needs one value at least. The median of an even number is the greater
// of the two in the middle.
func spread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	return Spread{Median: sorted[len(sorted)/2], Least: sorted[0], Most: sorted[len(sorted)-1]}
}

// Outcome is what became of a row.
type Outcome struct {
	Row    Row
	Ours   *Spread // nil where the measurement failed
	Peer   *Spread // nil where the row has none, too
	Passed bool
	Err    error
}

// Ratio is tcplab's median to the peer's, and NaN where there is none.
func (o Outcome) Ratio() float64 {
	if o.Ours == nil || o.Peer == nil || o.Peer.Median == 0 {
		return math.NaN()
	}
	return o.Ours.Median / o.Peer.Median
}

// run does the measurements one after another, each as often as asked, and
// judges their rows. When ctx ends, what is left has failed.
func run(ctx context.Context, measurements []Measurement, times int, progress io.Writer) []Outcome {
	var all []Outcome
	for i, m := range measurements {
		figures, err := repeat(ctx, m, times, func(n int) {
			fmt.Fprintf(progress, "%d/%d  %s: %d of %d …\n", i+1, len(measurements), m.Name, n, times)
		})
		outcomes := judge(m.Rows, figures, err)
		for _, o := range outcomes {
			fmt.Fprintf(progress, "      %s\n", o)
		}
		all = append(all, outcomes...)
	}
	return all
}

// repeat does one measurement; figures are by time and row.
func repeat(ctx context.Context, m Measurement, times int, tell func(n int)) ([][]Figure, error) {
	var all [][]Figure
	for n := range times {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		tell(n + 1)
		within, cancel := context.WithTimeoutCause(ctx, m.Limit, fmt.Errorf("not done within %v", m.Limit))
		figures, err := m.Once(within)
		if cause := context.Cause(within); cause != nil {
			err = cause // what the measurement says of it is a consequence
		}
		cancel()
		if err == nil && len(figures) != len(m.Rows) {
			err = fmt.Errorf("%d figures for %d rows", len(figures), len(m.Rows))
		}
		if err != nil {
			return nil, err
		}
		all = append(all, figures)
	}
	return all, nil
}

// judge holds figures against the rows' targets.
func judge(rows []Row, figures [][]Figure, err error) []Outcome {
	outcomes := make([]Outcome, len(rows))
	for i, row := range rows {
		o := &outcomes[i]
		o.Row, o.Err = row, err
		if err != nil {
			continue
		}
		var ours, peers []float64
		for _, figure := range figures {
			ours, peers = append(ours, figure[i].Ours), append(peers, figure[i].Peer)
		}
		s := spread(ours)
		o.Ours = &s
		if row.Peer != "" {
			p := spread(peers)
			o.Peer = &p
		}
		switch {
		case row.Target.OfPeer:
			o.Passed = row.Target.met(o.Ratio())
		case row.Every:
			o.Passed = row.Target.met(s.Least) && row.Target.met(s.Most)
		default:
			o.Passed = row.Target.met(s.Median)
		}
	}
	return outcomes
}
