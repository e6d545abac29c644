package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// run gathers the results of all packages. The zero value is ready.
type run struct {
	packages map[string]*results
	total    counts
	skips    map[string]int // by reason
}

// results are those of a package under way.
type results struct {
	counts
	output map[string]*strings.Builder // by test; of the package itself under ""
	parent map[string]bool             // tests that have subtests, which are counted in their place
}

type counts struct{ passed, failed, skipped int }

func (c *counts) add(other counts) {
	c.passed += other.passed
	c.failed += other.failed
	c.skipped += other.skipped
}

// take notes an event and prints what it settles.
func (r *run) take(e event, out io.Writer) {
	p := r.of(cmp.Or(e.Package, e.ImportPath))
	switch e.Action {
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "run":
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			p.parent[e.Test[:i]] = true
		}
	case "output":
		p.print(e)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p, out)
		} else {
			r.endTest(e, p, out)
		}
	}
}

func (r *run) of(name string) *results {
	if r.packages == nil {
		r.packages, r.skips = map[string]*results{}, map[string]int{}
	}
	p := r.packages[name]
	if p == nil {
		p = &results{output: map[string]*strings.Builder{}, parent: map[string]bool{}}
		r.packages[name] = p
	}
	return p
}

// print keeps a test's output until it is known how the test ended.
func (p *results) print(e event) {
	text := p.output[e.Test]
	if text == nil {
		text = &strings.Builder{}
		p.output[e.Test] = text
	}
	text.WriteString(e.Output)
}

func (r *run) endTest(e event, p *results, out io.Writer) {
	text := p.output[e.Test]
	delete(p.output, e.Test)
	if e.Action == "fail" && text != nil {
		fmt.Fprint(out, text)
	}
	if p.parent[e.Test] && e.Action != "fail" {
		return
	}
	switch e.Action {
	case "pass":
		p.passed++
	case "fail":
		p.failed++
	case "skip":
		p.skipped++
		r.skips[reason(text)]++
	}
}

// endPackage prints the package's line. A package can fail without a test that
// does: when it does not build, or panics outside one.
func (r *run) endPackage(e event, p *results, out io.Writer) {
	if e.Action == "fail" {
		if p.failed == 0 {
			p.failed = 1
		}
		for _, test := range slices.Sorted(maps.Keys(p.output)) {
			fmt.Fprint(out, p.output[test])
		}
	}
	if p.counts != (counts{}) {
		word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "ok"}[e.Action]
		if e.FailedBuild != "" {
			word = "FAIL (build)"
		}
		fmt.Fprintf(out, "%-4s %s: %s, %.1f s\n", word, e.Package, p.counts, e.Elapsed)
	}
	r.total.add(p.counts)
	delete(r.packages, e.Package)
}

// conclude prints the skips and the totals, and tells whether all is well.
func (r *run) conclude(out io.Writer) bool {
	// A package without an end: its go test was killed.
	for _, name := range slices.Sorted(maps.Keys(r.packages)) {
		if p := r.packages[name]; len(p.output) > 0 || p.counts != (counts{}) {
			fmt.Fprintf(out, "FAIL %s: did not end\n", name)
			r.total.add(p.counts)
			r.total.failed++
		}
	}
	for _, why := range slices.Sorted(maps.Keys(r.skips)) {
		fmt.Fprintf(out, "skipped %d: %s\n", r.skips[why], why)
	}
	fmt.Fprintln(out, r.total)
	return r.total.failed == 0 && r.total.passed > 0
}

func (c counts) String() string {
	text := fmt.Sprintf("%d passed, %d failed", c.passed, c.failed)
	if c.skipped > 0 {
		text += fmt.Sprintf(", %d skipped", c.skipped)
	}
	return text
}

// reason is the message of t.Skip, whose lines "    file.go:12: needs x" stand
// between those of the test's beginning and end.
func reason(output *strings.Builder) string {
	if output == nil {
		return "no reason given"
	}
	for line := range strings.Lines(output.String()) {
		if _, why, found := strings.Cut(line, ".go:"); found && strings.HasPrefix(line, "    ") {
			if _, why, found = strings.Cut(why, ": "); found {
				return strings.TrimSpace(why)
			}
		}
	}
	return "no reason given"
}
