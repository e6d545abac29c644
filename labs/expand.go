package labs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	// MaxPoints is the most parameter points that a lab may have.
	MaxPoints = 100_000
	// maxNodes bounds points × values in the file, and so the memory that a
	// sweep takes: some 1 GB.
	maxNodes = 10_000_000
)

// overrideFile is the File of an override's [Problem].
const overrideFile = "--set"

// Override replaces a parameter's values: --set rtt=10ms,50ms.
type Override struct {
	Name   string
	Values []string // at least one; each is read as a YAML scalar would be
}

// Expand makes the Lab of every parameter point: the cross product of the
// parameters' lists in the file's order, the last parameter changing fastest.
// Each Lab is complete (see [Complete]) and valid (see [Validate]); addresses are
// still to be assigned. The error is [Problems], those of the first point that
// has any.
func (f *File) Expand(overrides []Override) ([]*tcplabv1.Lab, error) {
	return f.expand(overrides, toRun)
}

// Stand makes the Lab of the one parameter point at which a lab shall stand. It need not have
// experiments (see [ValidateStanding]); where a parameter is swept the error says
// which is to be chosen.
func (f *File) Stand(overrides []Override) (*tcplabv1.Lab, error) {
	r := &report{}
	for _, p := range f.override(overrides, r) {
		if len(p.values) > 1 {
			r.add(p.values[0].at, "choose one: --set "+p.name+"="+p.values[0].text, "a lab stands at one point, and %q has %d values", p.name, len(p.values))
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	all, err := f.expand(overrides, toStand)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func (f *File) expand(overrides []Override, to purpose) ([]*tcplabv1.Lab, error) {
	r := &report{}
	params := f.override(overrides, r)
	points := f.boundSweep(params, r)
	if err := r.err(); err != nil {
		return nil, err
	}
	labs := make([]*tcplabv1.Lab, 0, points)
	e := expansion{file: f, purpose: to, checked: make(map[string]bool), files: newAttachments(f.source.Attachments)}
	choice := make([]int, len(params))
	size := 0
	for {
		lab, err := e.at(params, choice)
		if err != nil {
			return nil, err
		}
		if len(labs) == 0 && points*(f.root.weigh+steps(lab)) > maxNodes {
			r.add(f.placeOfSweep(params), "sweep fewer values at once", "a sweep of %d points is too much for schedules or traces of this length", points)
			return nil, r.err()
		}
		if size += sizeOf(lab); size > maxNodes {
			r.add(f.placeOfSweep(params), "sweep fewer values at once", "a sweep of %d points is too much for a lab of this size", points)
			return nil, r.err()
		}
		labs = append(labs, lab)
		if !next(params, choice) {
			return labs, nil
		}
	}
}

// expansion is what the points of a file have in common.
type expansion struct {
	file       *File
	purpose    purpose
	permission *tcplabv1.ExecPermission // to start programs; nil: it is not asked
	checked    map[string]bool          // expectations that were, by what their types depend on
	files      *attachments
}

// boundSweep counts the points, and refuses too many.
func (f *File) boundSweep(params paramList, r *report) int {
	points := countPoints(params)
	switch at := f.placeOfSweep(params); {
	case points > MaxPoints:
		r.add(at, "sweep fewer values at once", "the sweep has more than %d points", MaxPoints)
	case points*f.root.weigh > maxNodes:
		r.add(at, "sweep fewer values at once", "a sweep of %d points is too much for a file of this size", points)
	}
	return points
}

// steps weighs what schedules and traces add to a lab, in nodes of a file.
func steps(lab *tcplabv1.Lab) int {
	const nodesOfStep, momentsOfNode = 10, 20
	n := 0
	for _, l := range lab.GetLinks() {
		for _, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
			n += len(d.GetSchedule())*nodesOfStep + len(d.GetTrace().GetOpportunitiesMs())/momentsOfNode
		}
	}
	return n
}

// next steps to the point after choice, as an odometer does, and reports
// whether there is one.
func next(params paramList, choice []int) bool {
	for i, param := range slices.Backward(params) {
		if choice[i]++; choice[i] < len(param.values) {
			return true
		}
		choice[i] = 0
	}
	return false
}

// override is the file's parameters with the overrides' values.
func (f *File) override(overrides []Override, r *report) paramList {
	at := position{file: overrideFile}
	params := slices.Clone(f.params)
	seen := make(map[string]bool, len(overrides))
	for _, o := range overrides {
		i := slices.IndexFunc(params, func(p param) bool { return p.name == o.Name })
		switch {
		case i < 0:
			hint := didYouMean(o.Name, params.names())
			if hint == "" {
				hint = "the parameters are " + strings.Join(params.names(), ", ")
				if len(params) == 0 {
					hint = "the lab has no parameters"
				}
			}
			r.add(at, hint, "unknown parameter %q", o.Name)
			continue
		case seen[o.Name]:
			r.add(at, "several values are written "+o.Name+"=a,b", "the parameter %q is set twice", o.Name)
			continue
		case len(o.Values) == 0:
			r.add(at, "", "the parameter %q has no value", o.Name)
			continue
		}
		seen[o.Name] = true
		params[i].values = make([]*node, len(o.Values))
		for j, s := range o.Values {
			params[i].values[j] = overrideNode(o.Name, s, at, r)
		}
	}
	return params
}

// overrideNode reads a value as a YAML scalar: quotes make it a text.
func overrideNode(name, s string, at position, r *report) *node {
	n := &node{at: at, weigh: 1, holds: strings.Contains(s, "${")}
	switch {
	case len(s) > maxReplaced || !utf8.ValidString(s):
		r.add(at, "", "the value of %q is not a text of at most %d bytes", name, maxReplaced)
		return n
	case len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0]:
		n.kind, n.text = text, s[1:len(s)-1]
		return n
	}
	n.kind, n.text = scalarKind(s), s
	switch n.kind {
	case null:
		r.add(at, "an empty text is written "+name+"=''", "the parameter %q has no value", name)
	case notFinite:
		r.add(at, "", "%s=%s is not a finite number", name, s)
	}
	return n
}

// countPoints is the size of the cross product, or more than [MaxPoints].
func countPoints(params paramList) int {
	n := 1
	for _, p := range params {
		if n *= len(p.values); n > MaxPoints {
			return math.MaxInt32
		}
	}
	return n
}

// placeOfSweep is where a sweep that is too large is told: at the overrides
// where they made it so, else at the parameters.
func (f *File) placeOfSweep(params paramList) position {
	for _, p := range params {
		if len(p.values) > 1 && p.values[0].at.file == overrideFile {
			return p.values[0].at
		}
	}
	if n := f.root.get("params"); n != nil {
		return n.at
	}
	return f.root.at
}

// at makes the Lab of one point. Expectations are type-checked once for each
// set of types that they can see, for CEL takes longer than all the rest.
func (e *expansion) at(params paramList, choice []int) (*tcplabv1.Lab, error) {
	r := &report{}
	p := params.resolve(choice, r)
	if err := r.err(); err != nil {
		return nil, err
	}
	r.point = p.describe()
	spec := e.file.decode(p, &decoder{report: r})
	if err := r.err(); err != nil {
		return nil, err
	}
	r.spread(&spec)
	if err := r.err(); err != nil {
		return nil, err
	}
	c := converter{report: r, places: make(map[string]*node), files: e.files}
	lab := c.lab(&spec, p)
	if err := r.err(); err != nil {
		return nil, err
	}
	Complete(lab)
	c.tell(validateAll(lab, e.purpose, e.checked))
	if e.permission != nil && r.err() == nil {
		c.tell(Permit(lab, *e.permission))
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return lab, nil
}

// tell reports violations at the places in the file that they came from.
func (c *converter) tell(err error) {
	var violations Violations
	if !errors.As(err, &violations) {
		return
	}
	for _, v := range violations {
		n, exact := c.find(v.Field)
		at := n.at
		if exact && n.plain && v.Offset > 0 && v.Offset <= len(n.text) {
			at.column += utf8.RuneCountInString(n.text[:v.Offset])
		}
		c.add(at, v.Hint, "%s", v.Message)
	}
}

// find is the value that a field came from, or the nearest around it: what is
// left out has no place of its own.
func (c *converter) find(field string) (n *node, exact bool) {
	for path := field; ; {
		if n, found := c.places[path]; found {
			return n, path == field
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return c.places[""], false
		}
		path = path[:i]
	}
}

// expectationTypes is all that the type check of an expectation depends on:
// its own texts, and the names and types of what it can see.
func expectationTypes(lab *tcplabv1.Lab, e *tcplabv1.Expectation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q %q %q", e.GetWhere(), e.GetMeasure(), e.GetPredict(), e.GetThat(), e.GetRival(), e.GetWithinSlack())
	names := make([]string, 0, len(lab.GetPoint()))
	for name, value := range lab.GetPoint() {
		names = append(names, fmt.Sprintf(" %s:%s", name, typeOfValue(value)))
	}
	slices.Sort(names)
	b.WriteString(strings.Join(names, ""))
	for _, n := range lab.GetNodes() {
		b.WriteString(" " + n.GetName())
	}
	for _, l := range lab.GetLinks() {
		b.WriteString(" " + l.GetName())
	}
	for _, x := range lab.GetExperiments() {
		fmt.Fprintf(&b, " %q", x.GetCapture().GetNodes())
		for _, f := range x.GetFlows() {
			fmt.Fprintf(&b, " %s:%T:%s:%s:%s", f.GetName(), f.GetKind(), f.GetClient(), f.GetServer(), slices.Sorted(maps.Keys(f.GetExec().GetMetrics())))
		}
	}
	return b.String()
}
