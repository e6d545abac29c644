package labs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a lab file or in an override.
type Problem struct {
	File    string // the source's name, or "--set" for an override
	Line    int    // from 1; 0 where the file as a whole, or an override, is meant
	Column  int    // in characters, from 1; 0 with Line 0
	Message string // what is wrong
	Hint    string // what may have been meant, or what to do; may be empty
}

// String is the problem on one line: "file:line:column: message (hint)".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": " + p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Problems are the mistakes in a lab file, in the order of their places.
type Problems []Problem

// Error prints one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems is how many problems are collected before the rest is left out:
// more than one reads, few enough that a hostile file makes no large answer.
const maxProblems = 50

// report collects problems of one file.
type report struct {
	problems Problems
	point    string // the parameter point in words, where there are several
}

func (r *report) add(at position, hint, format string, args ...any) {
	if len(r.problems) == maxProblems {
		return
	}
	p := Problem{File: at.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...), Hint: hint}
	if at.replaced && r.point != "" {
		p.Message += ", at " + r.point
	}
	if !slices.Contains(r.problems, p) {
		r.problems = append(r.problems, p)
	}
}

// err is the problems, those of each file together and in order, or nil where there are none.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.problems
}
