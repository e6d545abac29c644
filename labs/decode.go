package labs

import (
	"reflect"
	"slices"
	"strings"
)

// decoder reads a tree into the typed structs of file.go, and reports every
// unknown or missing key and every value of the wrong type.
type decoder struct {
	*report
	files []fileName // that were named, in order
}

// leaf is a value that reads itself from a node. It reports to d what is wrong
// with the node, and then stays zero.
type leaf interface {
	read(d *decoder, n *node)
}

func (d *decoder) decode(n *node, v reflect.Value) {
	if n.kind == unresolved {
		return
	}
	if l, ok := reflect.TypeAssert[leaf](v.Addr()); ok {
		l.read(d, n)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem())
	case reflect.Struct:
		d.decodeStruct(n, v)
	case reflect.Slice:
		d.decodeSlice(n, v)
	case reflect.String:
		if s, ok := d.scalar(n, "text"); ok {
			v.SetString(s)
		}
	}
}

func (d *decoder) decodeStruct(n *node, v reflect.Value) {
	fields := keysOf(v.Type())
	v.FieldByName("At").Set(reflect.ValueOf(n))
	if n.kind != mapping {
		d.add(n.at, "its keys are "+strings.Join(fields.names, ", "), "want a mapping, not %s", n.describe())
		return
	}
	for _, p := range n.pairs {
		i, known := fields.index[p.key]
		if !known {
			hint := didYouMean(p.key, fields.names)
			if hint == "" {
				hint = "the keys here are " + strings.Join(fields.names, ", ")
			}
			d.add(p.at, hint, "unknown key %q", p.key)
			continue
		}
		if p.value.kind == null {
			d.add(p.at, "give it a value, or leave the key out", "%q has no value", p.key)
			continue
		}
		d.decode(p.value, v.FieldByIndex(i))
	}
	for _, name := range fields.required {
		if n.get(name) == nil && !slices.ContainsFunc(n.pairs, func(p pair) bool { return p.key == name }) {
			d.add(n.at, "", "the key %q is missing", name)
		}
	}
}

// decodeSlice takes a single value for a list of one.
func (d *decoder) decodeSlice(n *node, v reflect.Value) {
	items := n.items
	if n.kind != sequence {
		if n.kind == mapping && v.Type().Elem().Kind() == reflect.Struct {
			d.add(n.at, `each item starts with "- "`, "want a list, not a mapping")
			return
		}
		items = []*node{n}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		d.decode(item, v.Index(i))
	}
}

// scalar is the text of a scalar; want names what is wanted instead of
// anything else.
func (d *decoder) scalar(n *node, want string) (string, bool) {
	switch n.kind {
	case unresolved:
		return "", false
	case mapping, sequence, null:
		d.add(n.at, "", "want %s, not %s", want, n.describe())
		return "", false
	case notFinite:
		d.add(n.at, "", "%s is not a finite number", n.text)
		return "", false
	}
	return n.text, true
}

// keys are what a struct of file.go reads, those of embedded structs among them.
type keys struct {
	names    []string // in order
	required []string
	index    map[string][]int // the field of each
}

func keysOf(t reflect.Type) keys {
	k := keys{index: make(map[string][]int, t.NumField())}
	for _, f := range reflect.VisibleFields(t) {
		name := f.Tag.Get("yaml")
		if f.Anonymous || name == "-" {
			continue
		}
		k.names = append(k.names, name)
		k.index[name] = f.Index
		if slices.Contains(strings.Split(f.Tag.Get("jsonschema"), ","), "required") {
			k.required = append(k.required, name)
		}
	}
	return k
}
