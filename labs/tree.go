package labs

import (
	"strings"

	"github.com/tcplab/tcplab/labs/unit"
)

// position is where a value stands: in a file, or in an override.
type position struct {
	file         string
	line, column int
	replaced     bool // the value, or one inside it, comes from a ${parameter}
}

// kind is what a node of the tree is.
type kind int

const (
	null kind = iota
	boolean
	number
	text
	notFinite // .nan and .inf: YAML has them, a lab has no use for them
	mapping
	sequence
	unresolved // holds a parameter that was reported, and says nothing more
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "not a finite number", "a mapping", "a list", "an unresolved parameter"}[k]
}

// node is a value of the file with its place. Nodes are never changed once
// built: the trees of all parameter points share what no parameter touches.
type node struct {
	at    position
	kind  kind
	text  string // of a scalar, as written, without quotes
	plain bool   // a scalar on one line without quotes: byte i of text is i bytes after at
	items []*node
	pairs []pair
	weigh int  // nodes from here down
	holds bool // a ${parameter} is somewhere from here down
}

// pair is an entry of a mapping.
type pair struct {
	key   string
	at    position // of the key
	value *node
}

// get is the value of a key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// item is the i-th item of a list, the list itself where it has no such item
// (a single value may stand for a list of one), or nil.
func (n *node) item(i int) *node {
	if n == nil || i >= len(n.items) {
		return n
	}
	return n.items[i]
}

// describe says what a node is, for messages: `"20ms"` or "a list".
func (n *node) describe() string {
	switch n.kind {
	case null, mapping, sequence:
		return n.kind.String()
	}
	s := n.text
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "…"
	}
	return `"` + s + `"`
}

// scalarKind is what YAML's core schema takes a plain scalar for. Numbers are
// decimal: 0x10 and 1_000 are texts, which no field takes for a number.
func scalarKind(s string) kind {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return null
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return boolean
	}
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case ".nan", ".inf", "nan", "inf":
		return notFinite
	}
	if q, err := unit.Parse(s); err == nil && q.Dimension == unit.Scalar {
		return number
	}
	return text
}
