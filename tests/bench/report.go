package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Machine is where the figures come from.
type Machine struct {
	Kernel string  `json:"kernel"`
	CPUs   int     `json:"cpus"`
	Load   float64 `json:"load"` // the first number of /proc/loadavg when the run began
	Go     string  `json:"go"`
}

// Report is a whole run.
type Report struct {
	Machine  Machine
	Times    int
	Notes    []string
	Outcomes []Outcome
}

// passed reports whether each row met its target.
func (r Report) passed() bool {
	for _, o := range r.Outcomes {
		if !o.Passed {
			return false
		}
	}
	return true
}

// heading says where and how it was measured.
func (r Report) heading() string {
	return fmt.Sprintf("Medians of %d, with the least and the greatest. Linux %s, %d processors, load %.2f when it began, %s.",
		r.Times, r.Machine.Kernel, r.Machine.CPUs, r.Machine.Load, r.Machine.Go)
}

func columns() []string { return []string{"what", "tcplab", "target", "peer", "ratio", "verdict"} }

// table prints for a terminal.
func (r Report) table(out io.Writer) error {
	fmt.Fprintln(out, r.heading())
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns(), "\t"))
	for _, o := range r.Outcomes {
		fmt.Fprintln(w, strings.Join(o.cells(), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, note := range r.Notes {
		fmt.Fprintf(out, "- %s\n", note)
	}
	return nil
}

// markdown prints for docs/figures.md.
func (r Report) markdown(out io.Writer) error {
	fmt.Fprintf(out, "%s\n\n| %s |\n|%s\n", r.heading(), strings.Join(columns(), " | "), strings.Repeat("---|", len(columns())))
	for _, o := range r.Outcomes {
		fmt.Fprintf(out, "| %s |\n", strings.Join(o.cells(), " | "))
	}
	fmt.Fprintln(out)
	var err error
	for _, note := range r.Notes {
		_, err = fmt.Fprintf(out, "- %s\n", note)
	}
	return err
}

// json prints for programs.
func (r Report) json(out io.Writer) error {
	type row struct {
		Name   string  `json:"name"`
		Unit   string  `json:"unit,omitempty"`
		Ours   *Spread `json:"tcplab,omitempty"`
		Target string  `json:"target,omitempty"`
		Tool   string  `json:"peer_tool,omitempty"`
		Peer   *Spread `json:"peer,omitempty"`
		Ratio  float64 `json:"ratio,omitempty"`
		Passed bool    `json:"passed"`
		Error  string  `json:"error,omitempty"`
	}
	document := struct {
		Machine
		Times  int      `json:"times"`
		Passed bool     `json:"passed"`
		Notes  []string `json:"notes,omitempty"`
		Rows   []row    `json:"rows"`
	}{Machine: r.Machine, Times: r.Times, Passed: r.passed(), Notes: r.Notes}
	for _, o := range r.Outcomes {
		next := row{
			Name: o.Row.Name, Unit: o.Row.Unit, Ours: o.Ours, Target: o.Row.target(),
			Tool: o.Row.Peer, Peer: o.Peer, Passed: o.Passed,
		}
		if ratio := o.Ratio(); !math.IsNaN(ratio) {
			next.Ratio = ratio
		}
		if o.Err != nil {
			next.Error = o.Err.Error()
		}
		document.Rows = append(document.Rows, next)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}

// cells are the row's, in the order of columns.
func (o Outcome) cells() []string {
	peer, ratio, word := "", "", "pass"
	if o.Peer != nil {
		peer = o.Row.Peer + " " + o.Row.spread(*o.Peer)
	}
	if r := o.Ratio(); !math.IsNaN(r) {
		ratio = strconv.FormatFloat(r, 'f', 2, 64)
	}
	switch {
	case !o.Passed:
		word = "FAIL"
	case o.Row.Target == Target{}:
		word = "" // there is nothing to pass
	}
	return []string{o.Row.Name, o.ours(), o.Row.target(), peer, ratio, word}
}

// ours is tcplab's figure, or why there is none.
func (o Outcome) ours() string {
	if o.Err != nil {
		return strings.Join(strings.Fields(o.Err.Error()), " ")
	}
	return o.Row.spread(*o.Ours)
}

// String is the row on one line, for the progress.
func (o Outcome) String() string {
	cells := o.cells()
	text := fmt.Sprintf("%s: %s", cells[0], cells[1])
	if cells[3] != "" {
		text += ", " + cells[3]
	}
	return strings.TrimSpace(cells[5] + " " + text)
}

// spread prints "2.91 Gbit/s (2.80–3.02)"; what never differed stands alone.
func (r Row) spread(s Spread) string {
	text := r.number(s.Median)
	if r.Unit != "" {
		text += " " + r.Unit
	}
	if s.Least != s.Most {
		text += fmt.Sprintf(" (%s–%s)", r.number(s.Least), r.number(s.Most))
	}
	return text
}

func (r Row) number(x float64) string { return strconv.FormatFloat(x, 'f', r.Digits, 64) }

// target prints the bounds: "≥ 2.5 Gbit/s".
func (r Row) target() string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	least, most := r.Target.Least, r.Target.Most
	var text string
	switch {
	case least != nil && most != nil && *least == *most:
		text = number(*least)
	case least != nil && most != nil:
		text = number(*least) + " to " + number(*most)
	case least != nil:
		text = "≥ " + number(*least)
	case most != nil:
		text = "≤ " + number(*most)
	default:
		return ""
	}
	if r.Target.OfPeer {
		return text + " × " + r.Peer
	}
	if r.Unit != "" {
		text += " " + r.Unit
	}
	return text
}
