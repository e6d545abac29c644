package labs

import (
	"fmt"

	"github.com/goccy/go-yaml/token"
)

// Bounds of a lab file.
const (
	// MaxFileSize is the most bytes that a lab file may have: 1 MiB.
	MaxFileSize = 1 << 20
	// maxDepth is how deep values may nest; the grammar needs 8.
	maxDepth = 20
	// maxKeys is how many keys a mapping may have; the contract allows 4096
	// nodes.
	maxKeys = 5000
)

// beyondBounds looks for what the parser must not see, because its recursion
// or its time would get out of hand: values that nest too deep, which brackets
// and "- - - -" do at two bytes a level (by indentation a level costs ever more
// bytes, and the builder bounds it), mappings of very many keys, several
// documents, and directives. It returns the first such place, or no reason.
func beyondBounds(tokens token.Tokens) (at *token.Token, hint, reason string) {
	flow, line, onLine := 0, 0, 0
	var keys []keyColumn
	started, ended := false, false
	for _, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		firstOnLine := t.Position.Line != line
		if firstOnLine {
			line, onLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			onLine++
		case token.DirectiveType:
			return t, "remove the line", "YAML directives are not supported"
		}
		switch {
		case flow > maxDepth || onLine > maxDepth:
			return t, "", fmt.Sprintf("values nest more than %d deep", maxDepth)
		case started && t.Type == token.DocumentHeaderType, ended:
			return t, "put the second lab into a file of its own", "a lab file is one YAML document, and here a second one starts"
		}
		started = true
		ended = t.Type == token.DocumentEndType
		if firstOnLine && flow == 0 {
			if keys = countKey(keys, t); len(keys) > 0 && keys[len(keys)-1].count > maxKeys {
				return t, "", fmt.Sprintf("a mapping has more than %d keys", maxKeys)
			}
		}
	}
	return nil, "", ""
}

// keyColumn counts the lines that start at one column and belong to one
// mapping.
type keyColumn struct{ column, count int }

// countKey takes the first token of a line into the columns that are open
// around it, the innermost last.
func countKey(open []keyColumn, t *token.Token) []keyColumn {
	column := t.Position.Column
	for len(open) > 0 && open[len(open)-1].column > column {
		open = open[:len(open)-1]
	}
	if t.Type == token.SequenceEntryType {
		return open // its own keys start further right, and anew
	}
	if len(open) == 0 || open[len(open)-1].column < column {
		open = append(open, keyColumn{column: column})
	}
	open[len(open)-1].count++
	return open
}
