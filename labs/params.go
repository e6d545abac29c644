package labs

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/labs/unit"
)

// Bounds on what parameters may make of a file.
const (
	// maxReplaced is how long a text may become, and maxReplacedAll the sum of
	// all of a point: parameters that repeat one another grow no further.
	maxReplaced    = 64 << 10
	maxReplacedAll = 4 << 20
)

var parameterName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// paramList are the parameters of a lab, in the file's order.
type paramList []param

// param is a parameter with the values that it is swept over; one that is not
// swept has one.
type param struct {
	name   string
	at     position
	values []*node
}

func (v *paramList) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "such as {rtt: 20ms, no_delay: [false, true]}", "want a mapping of parameters, not %s", n.describe())
		return
	}
	for _, p := range n.pairs {
		if !parameterName.MatchString(p.key) {
			d.add(p.at, "use a-z, 0-9 and underscore, starting with a letter, so that expressions can say it", "%q cannot be a parameter's name", p.key)
			continue
		}
		values := p.value.items
		if p.value.kind != sequence {
			values = []*node{p.value}
		}
		if len(values) == 0 {
			d.add(p.value.at, "", "the parameter %q has no values", p.key)
			continue
		}
		for _, value := range values {
			d.scalar(value, "a value")
		}
		*v = append(*v, param{name: p.key, at: p.at, values: values})
	}
}

func (v paramList) names() []string {
	names := make([]string, len(v))
	for i, p := range v {
		names[i] = p.name
	}
	return names
}

// point is one assignment of the parameters, with references between them
// resolved.
type point struct {
	params paramList
	values map[string]*node
}

// resolve makes the point at which parameter i has its choice[i]-th value.
func (v paramList) resolve(choice []int, r *report) *point {
	p := &point{params: v, values: make(map[string]*node, len(v))}
	chosen := make(map[string]*node, len(v))
	for i, param := range v {
		chosen[param.name] = param.values[choice[i]]
	}
	for _, param := range v {
		p.follow(param.name, chosen, nil, r)
	}
	return p
}

// follow resolves one parameter after those that its value refers to; path are
// the parameters that led here.
func (p *point) follow(name string, chosen map[string]*node, path []string, r *report) {
	if _, done := p.values[name]; done {
		return
	}
	value := chosen[name]
	for i, before := range path {
		if before != name {
			continue
		}
		// Every parameter on the cycle is answered here, so it is told once.
		cycle := append(path[i:], name)
		r.add(value.at, "", "parameters refer to one another in a circle: %s", strings.Join(cycle, " → "))
		for _, c := range cycle {
			p.values[c] = &node{at: chosen[c].at, kind: null}
		}
		return
	}
	for _, ref := range references(value.text) {
		if _, known := chosen[ref]; known {
			p.follow(ref, chosen, append(path, name), r)
		}
	}
	if _, done := p.values[name]; !done {
		s := substitution{point: p, report: r, left: maxReplacedAll}
		p.values[name] = s.scalar(value)
	}
}

// proto is the point as the contract carries it: numbers and booleans as
// themselves, everything else as it is written.
func (p *point) proto() map[string]*structpb.Value {
	out := make(map[string]*structpb.Value, len(p.params))
	for _, param := range p.params {
		value := p.values[param.name]
		switch value.kind {
		case boolean:
			out[param.name] = structpb.NewBoolValue(strings.EqualFold(value.text, "true"))
		case number:
			q, err := unit.Parse(value.text)
			if err != nil {
				continue // cannot be: that it parses made it a number
			}
			out[param.name] = structpb.NewNumberValue(q.Value)
		default:
			out[param.name] = structpb.NewStringValue(value.text)
		}
	}
	return out
}

// describe names the point by the parameters that differ between points:
// "rtt=10ms, no_delay=true".
func (p *point) describe() string {
	var parts []string
	for _, param := range p.params {
		if len(param.values) > 1 || param.values[0].at.file == overrideFile {
			parts = append(parts, param.name+"="+p.values[param.name].text)
		}
	}
	return strings.Join(parts, ", ")
}

// references are the names in the ${name} and ${name ? a : b} of a text.
func references(s string) []string {
	var names []string
	for {
		_, rest, found := strings.Cut(s, "${")
		if !found {
			return names
		}
		before := s[:len(s)-len(rest)-2]
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return names
		}
		if !strings.HasSuffix(before, "$") {
			name, _, _, _ = choiceOf(name)
			names = append(names, name)
		}
		s = after
	}
}

// substitution replaces the ${name} of a tree by the values of one point. $${
// stands for a plain ${.
type substitution struct {
	*point
	*report
	left int // how many more bytes texts may be replaced by
}

// tree is n with its parameters replaced; what holds none is shared.
func (s *substitution) tree(n *node) *node {
	if !n.holds {
		return n
	}
	switch n.kind {
	case mapping:
		out := *n
		out.at.replaced, out.holds = true, false
		out.pairs = make([]pair, len(n.pairs))
		for i, p := range n.pairs {
			out.pairs[i] = pair{key: p.key, at: p.at, value: s.tree(p.value)}
		}
		return &out
	case sequence:
		out := *n
		out.at.replaced, out.holds = true, false
		out.items = make([]*node, len(n.items))
		for i, item := range n.items {
			out.items[i] = s.tree(item)
		}
		return &out
	}
	return s.scalar(n)
}

// scalar replaces the parameters of one scalar. A parameter that is the whole
// of it keeps its type; in a part of a plain scalar it makes a new plain
// scalar, which is read again: ${n}0ms.
func (s *substitution) scalar(n *node) *node {
	if !n.holds {
		return n
	}
	out := *n
	out.at.replaced, out.holds, out.plain = true, false, false
	if name, ok := wholeReference(n.text); ok {
		out.kind = unresolved
		if value := s.lookup(n, name); value != nil {
			out.kind, out.text = value.kind, value.text
			s.spend(n, len(value.text))
		}
		return &out
	}
	var b strings.Builder
	for rest := n.text; ; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			b.WriteString(rest)
			break
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			rest = after
			continue
		}
		b.WriteString(before)
		name, after, closed := strings.Cut(after, "}")
		if !closed {
			s.add(n.at, "for a plain ${ write $${", "${ has no closing brace")
			out.kind = unresolved
			return &out
		}
		value := s.lookup(n, name)
		if value == nil {
			out.kind = unresolved
			return &out
		}
		b.WriteString(value.text)
		if b.Len() > maxReplaced {
			s.add(n.at, "", "with its parameters this becomes longer than %d bytes", maxReplaced)
			out.kind = unresolved
			return &out
		}
		rest = after
	}
	out.text = b.String()
	s.spend(n, len(out.text))
	if n.plain {
		out.kind = scalarKind(out.text)
	}
	return &out
}

func wholeReference(s string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(s, "${"); !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, "}")
	return name, ok && !strings.Contains(name, "}")
}

// choiceOf takes "name ? a : b" apart, which is a where the parameter is true and b where it is
// false. A plain name is no choice.
func choiceOf(reference string) (name, yes, no string, choice bool) {
	name, rest, choice := strings.Cut(reference, "?")
	if !choice {
		return reference, "", "", false
	}
	yes, no, _ = strings.Cut(rest, ":")
	return strings.TrimSpace(name), strings.TrimSpace(yes), strings.TrimSpace(no), true
}

// lookup is a parameter's value, or what is chosen by it, or nil with a problem.
func (s *substitution) lookup(n *node, reference string) *node {
	name, yes, no, choice := choiceOf(reference)
	value, known := s.values[name]
	switch {
	case known && !choice:
		return value
	case known && (yes == "" || no == ""):
		s.add(n.at, "such as ${full ? 70s : 4s}", "%q wants a value for true and one for false", "${"+reference+"}")
		return nil
	case known && value.kind != boolean:
		s.add(n.at, "only true and false choose", "%q is %s", name, value.text)
		return nil
	case known:
		if !strings.EqualFold(value.text, "true") {
			yes = no
		}
		return &node{at: n.at, kind: scalarKind(yes), text: yes}
	}
	hint := didYouMean(name, s.params.names())
	if hint == "" && len(s.params) > 0 {
		hint = "the parameters are " + strings.Join(s.params.names(), ", ")
	}
	s.add(n.at, hint, "unknown parameter %q", name)
	return nil
}

// spend counts replaced text against the bound of the whole.
func (s *substitution) spend(n *node, bytes int) {
	if s.left -= bytes; s.left < 0 {
		s.add(n.at, "", "with its parameters the lab becomes longer than %d bytes", maxReplacedAll)
	}
}
