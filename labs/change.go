package labs

import (
	"reflect"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Change is what of a link that stands shall be different.
type Change struct {
	Forward, Backward *tcplabv1.Direction // with the new values
	// Paths are the fields that change, as UpdateLinkRequest.update_mask names them; one
	// that has no value is to be as if the lab had left it out.
	Paths []string
}

// ParseChange reads a link's change as people write it: each setting is the path of a key of a
// lab file's link and its value, "forward.delay=80ms", or "delay=80ms" for
// both directions. Without a value, "rate=", the key is as if left out. The error is
// [Problems]; their File is the setting's path.
func ParseChange(settings []string) (*Change, error) {
	r := &report{}
	given := &settingTree{report: r, root: &node{kind: mapping}, values: make(map[string]*node)}
	var cleared []string
	for _, setting := range settings {
		path, value, ok := strings.Cut(setting, "=")
		at := position{file: setting}
		switch {
		case !ok || path == "":
			r.add(at, "such as forward.delay=80ms", "want a key, = and a value")
		case value == "":
			cleared = append(cleared, bothWays(path)...)
		default:
			given.set(path, value)
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	c := converter{report: r, places: make(map[string]*node), files: newAttachments(nil)}
	link := given.link(&c)
	if err := r.err(); err != nil {
		return nil, err
	}
	change := &Change{Forward: link.GetForward(), Backward: link.GetBackward(), Paths: cleared}
	for path, value := range given.values {
		fields := c.fieldsOf(value)
		if len(fields) == 0 {
			r.add(position{file: path}, "what goes below forward and backward can", "%s cannot be changed while the link stands", path)
		}
		change.Paths = append(change.Paths, fields...)
	}
	slices.Sort(change.Paths)
	change.Paths = slices.Compact(change.Paths)
	return change, r.err()
}

// bothWays is the path, in each direction where it names none.
func bothWays(path string) []string {
	if way, _, _ := strings.Cut(path, "."); way == "forward" || way == "backward" {
		return []string{path}
	}
	return []string{"backward." + path, "forward." + path}
}

// linkPath is where the converter keeps the places of the one link.
const linkPath = "link"

// fieldsOf are the fields of the link's directions that came from the node, whole lists where it
// is about one of their items.
func (c *converter) fieldsOf(n *node) []string {
	var fields []string
	for place, from := range c.places {
		field, _, _ := strings.Cut(strings.TrimPrefix(place, linkPath+"."), "[")
		if from == n && (strings.HasPrefix(field, "forward.") || strings.HasPrefix(field, "backward.")) {
			fields = append(fields, field)
		}
	}
	if len(fields) == 0 { // a whole direction, of which each key is a field
		for _, p := range n.pairs {
			fields = append(fields, c.fieldsOf(p.value)...)
		}
	}
	return fields
}

// settingTree is the link that settings describe, as a lab file would.
type settingTree struct {
	*report
	root   *node
	values map[string]*node // by the setting's path
}

// set puts a value at the path's end.
func (t *settingTree) set(path, value string) {
	at := position{file: path}
	if t.values[path] != nil {
		t.add(at, "", "%s is given twice", path)
		return
	}
	parent, keys := t.root, strings.Split(path, ".")
	for i, key := range keys {
		child := parent.get(key)
		last := i == len(keys)-1
		switch {
		case key == "" || child != nil && (last || child.kind != mapping || t.isValue(child)):
			t.add(at, "", "%s is not beside what else is given", path)
			return
		case child == nil && last:
			child = t.value(path, value)
			t.values[path] = child
			parent.pairs = append(parent.pairs, pair{key: key, at: at, value: child})
		case child == nil:
			child = &node{at: at, kind: mapping}
			parent.pairs = append(parent.pairs, pair{key: key, at: at, value: child})
		}
		parent = child
	}
}

// isValue reports whether a node is what a setting gave.
func (t *settingTree) isValue(n *node) bool {
	for _, value := range t.values {
		if value == n {
			return true
		}
	}
	return false
}

// value reads a value: a scalar, or a list or mapping in brackets as YAML has them.
func (t *settingTree) value(path, text string) *node {
	if !strings.ContainsRune("[{", rune(text[0])) {
		return overrideNode(path, text, position{file: path}, t.report)
	}
	n := readTree(Source{Name: path, Content: []byte(text)}, t.report)
	if n == nil {
		n = &node{at: position{file: path}, kind: unresolved} // and reported
	}
	return n
}

// link is the link that the settings make, between two nodes that nobody sees.
func (t *settingTree) link(c *converter) *tcplabv1.Link {
	between := &node{kind: sequence, items: []*node{{kind: text, text: "a"}, {kind: text, text: "b"}}}
	root := *t.root
	root.pairs = append([]pair{{key: "between", value: between}}, t.root.pairs...)
	var spec linkSpec
	(&decoder{report: t.report}).decode(&root, reflect.ValueOf(&spec).Elem())
	return c.link(&spec, linkPath)
}
