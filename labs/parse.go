package labs

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// In a YAML flow mapping "{no_delay: ${no_delay}}" the inner braces would open
// and close a mapping. So that parameters need no quotes there, the braces of
// "${name}" are exchanged for two private-use characters before the text is read, one
// character for one, so that columns stay true, and changed back after.
//
// So are the brackets of a range of names, "client[1-10]", which in a flow
// sequence would open and close a sequence.
const (
	openMark         = "\uE000"
	closeMark        = "\uE001"
	openBracketMark  = "\uE002"
	closeBracketMark = "\uE003"
)

var (
	bracesOfParameter = regexp.MustCompile(`\$\{([^{}\n]*)\}`)
	bracketsOfRange   = regexp.MustCompile(`([A-Za-z0-9_-])\[([0-9]+|\$` + openMark + `[^\n` + closeMark + `]*` + closeMark + `)-([0-9]+|\$` + openMark + `[^\n` + closeMark + `]*` + closeMark + `)\]`)
)

// mark exchanges the braces of parameters and the brackets of ranges.
func mark(s string) string {
	s = bracesOfParameter.ReplaceAllString(s, "$$"+openMark+"$1"+closeMark)
	return bracketsOfRange.ReplaceAllString(s, "$1"+openBracketMark+"$2-$3"+closeBracketMark)
}

// unmark puts the braces and brackets back.
func unmark(s string) string {
	return strings.NewReplacer(openMark, "{", closeMark, "}", openBracketMark, "[", closeBracketMark, "]").Replace(s)
}

// readTree reads a lab file's bytes into a tree, and reports what YAML itself
// or tcplab's narrower use of it forbids.
func readTree(src Source, r *report) *node {
	start := position{file: src.Name, line: 1, column: 1}
	switch {
	case len(src.Content) > MaxFileSize:
		r.add(start, "large tables belong in attachments", "the file has %d bytes, more than 1 MiB", len(src.Content))
		return nil
	case !utf8.Valid(src.Content):
		r.add(placeOfByte(src, firstInvalid(src.Content)), "", "the file is not UTF-8 here")
		return nil
	}
	if i := bytes.IndexAny(src.Content, openMark+closeMark+openBracketMark+closeBracketMark+"\x00"); i >= 0 {
		r.add(placeOfByte(src, i), "", "the file holds a character that is not text")
		return nil
	}
	content := mark(string(src.Content))
	tokens := lexer.Tokenize(content)
	if at, hint, reason := beyondBounds(tokens); reason != "" {
		r.add(place(src.Name, at), hint, "%s", reason)
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		syntaxProblem(src.Name, err, r)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil { // beyondBounds left one document
			body = doc.Body
		}
	}
	if body == nil {
		r.add(start, "`tcplab lab new` writes one to start from", "the file is empty")
		return nil
	}
	b := builder{file: src.Name, report: r}
	return b.build(body, 1)
}

func syntaxProblem(file string, err error, r *report) {
	var se *yaml.SyntaxError
	if !errors.As(err, &se) {
		r.add(position{file: file, line: 1, column: 1}, "", "this is not YAML: %s", err)
		return
	}
	hint := ""
	switch {
	case strings.Contains(se.Message, `'\t'`) || strings.Contains(se.Message, "\t"):
		hint = "YAML indents with spaces, never with tabs"
	case strings.Contains(se.Message, "not allowed in this context"):
		hint = "check the indentation; a text that holds \": \" needs quotes"
	}
	message := strings.ReplaceAll(unmark(se.Message), "\t", `\t`)
	r.add(place(file, se.Token), hint, "this is not YAML: %s", message)
}

// place is where a token stands; the parser's own position, or the file's
// start where it has none.
func place(file string, t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{file: file, line: 1, column: 1}
	}
	return position{file: file, line: max(1, t.Position.Line), column: max(1, t.Position.Column)}
}

func placeOfByte(src Source, i int) position {
	before := src.Content[:i]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return position{file: src.Name, line: line, column: column}
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(b)
}

// builder turns the parser's tree into ours.
type builder struct {
	file   string
	report *report
}

// build refuses aliases, anchors, tags and merge keys: a lab file is short, and
// what it repeats belongs in a parameter. So there is nothing that could grow.
func (b *builder) build(n ast.Node, depth int) *node {
	at := place(b.file, n.GetToken())
	if depth > maxDepth {
		b.report.add(at, "", "values nest more than %d deep", maxDepth)
		return &node{at: at, weigh: 1}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return b.mapping(n, depth)
	case *ast.SequenceNode:
		out := &node{at: at, kind: sequence, weigh: 1}
		for _, v := range n.Values {
			item := b.build(v, depth+1)
			out.items = append(out.items, item)
			out.include(item)
		}
		return out
	case *ast.AnchorNode, *ast.AliasNode:
		b.report.add(at, "repeat the value, or make it a parameter and write ${name}", "YAML anchors and aliases are not supported")
	case *ast.TagNode:
		b.report.add(at, "a text that starts with ! needs quotes", "YAML tags are not supported")
	case *ast.LiteralNode:
		return b.scalar(at, n.Value.Value, text, false)
	case *ast.NullNode:
		if n.Token.Type == token.ImplicitNullType && strings.HasPrefix(strings.TrimSpace(n.Token.Origin), "!") {
			b.report.add(at, "a text that starts with ! needs quotes", "YAML tags are not supported")
		}
		return &node{at: at, kind: null, weigh: 1}
	case ast.ScalarNode:
		t := n.GetToken()
		switch t.Type {
		case token.SingleQuoteType, token.DoubleQuoteType:
			return b.scalar(at, t.Value, text, false)
		}
		if s, ok := n.(*ast.StringNode); ok {
			return b.scalar(at, s.Value, scalarKind(s.Value), !strings.Contains(strings.TrimSpace(t.Origin), "\n"))
		}
		return b.scalar(at, t.Value, scalarKind(t.Value), true)
	default:
		b.report.add(at, "", "this kind of YAML is not supported")
	}
	return &node{at: at, weigh: 1}
}

func (b *builder) scalar(at position, s string, k kind, plain bool) *node {
	s = unmark(s)
	return &node{at: at, kind: k, text: s, plain: plain, weigh: 1, holds: strings.Contains(s, "${")}
}

func (b *builder) mapping(n *ast.MappingNode, depth int) *node {
	out := &node{at: place(b.file, n.Start), kind: mapping, weigh: 1}
	if len(n.Values) > 0 && !n.IsFlowStyle {
		out.at = place(b.file, n.Values[0].Key.GetToken())
	}
	seen := make(map[string]position, len(n.Values))
	for _, v := range n.Values {
		at := place(b.file, v.Key.GetToken())
		key, ok := v.Key.(ast.ScalarNode)
		switch {
		case v.Key.Type() == ast.MergeKeyType:
			b.report.add(at, "repeat the keys", "YAML merge keys are not supported")
			continue
		case !ok:
			b.report.add(at, "", "a key must be a plain word")
			continue
		}
		name := unmark(key.GetToken().Value)
		if first, twice := seen[name]; twice {
			b.report.add(at, "", "the key %q is there twice: the first is at line %d, column %d", name, first.line, first.column)
			continue
		}
		seen[name] = at
		value := b.build(v.Value, depth+1)
		out.pairs = append(out.pairs, pair{key: name, at: at, value: value})
		out.include(value)
	}
	return out
}

// include adds a child's weight and parameters to its parent's.
func (n *node) include(child *node) {
	n.weigh += child.weigh
	n.holds = n.holds || child.holds
}
