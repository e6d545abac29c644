package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Area is a part of the work with its own definition of done.
type Area struct {
	Name   string // as in make accept AREA=
	Checks []Check
}

// Check is one line of an area's "Done means".
type Check struct {
	Name  string        // the line, short enough to be read in a list
	Limit time.Duration // after which it has failed; 10 minutes by default
	// Run does it. The figure is what was measured or counted, with its unit, and
	// is given with an error too where there is one.
	Run func(ctx context.Context, b *Bench) (figure string, err error)
}

// areas are all that there are, in the order in which they were built.
func areas() []Area {
	return []Area{foundation(), links(), virtual(), flowArea(), fleetArea()}
}

// Outcome is what became of a check.
type Outcome struct {
	Name    string  `json:"name"`
	Passed  bool    `json:"passed"`
	Figure  string  `json:"figure,omitempty"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// run carries the checks out in order and says of each how it went. It ends
// early, with the checks that are left failed, when the context ends.
func run(ctx context.Context, b *Bench, checks []Check, progress io.Writer) []Outcome {
	var outcomes []Outcome
	for i, check := range checks {
		fmt.Fprintf(progress, "%d/%d  %s …\n", i+1, len(checks), check.Name)
		o := try(ctx, b, check)
		outcomes = append(outcomes, o)
		fmt.Fprintf(progress, "%s (%.1f s)\n", o, o.Seconds)
	}
	return outcomes
}

func try(ctx context.Context, b *Bench, check Check) Outcome {
	limit := cmp.Or(check.Limit, 10*time.Minute)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	figure, err := "", context.Cause(ctx)
	if err == nil {
		figure, err = check.Run(within, b)
	}
	o := Outcome{Name: check.Name, Passed: err == nil, Figure: figure, Seconds: time.Since(start).Seconds()}
	switch {
	case err == nil:
	case errors.Is(within.Err(), context.DeadlineExceeded):
		o.Error = fmt.Sprintf("not done after %v: %v", limit, err)
	default:
		o.Error = err.Error()
	}
	return o
}

// String is "PASS name — figure" or "FAIL name — figure: error".
func (o Outcome) String() string {
	text := o.word() + " " + o.Name
	if o.Figure != "" {
		text += " — " + o.Figure
	}
	if o.Error != "" {
		if o.Figure == "" {
			text += " — " + o.Error
		} else {
			text += ": " + o.Error
		}
	}
	return text
}

func (o Outcome) word() string {
	if o.Passed {
		return "PASS"
	}
	return "FAIL"
}

// table prints all outcomes and their sum.
func table(out io.Writer, area string, outcomes []Outcome) {
	passed := 0
	columns := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, o := range outcomes {
		if o.Passed {
			passed++
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%.1f s\n", o.word(), o.Name, cmp.Or(o.Figure, "-"), o.Seconds)
	}
	// The writer is the caller's standard output; there is no one to tell.
	_ = columns.Flush()
	fmt.Fprintf(out, "%s: %d passed, %d failed\n", area, passed, len(outcomes)-passed)
}
