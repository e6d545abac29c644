// Package labs reads lab files: what a lab's nodes and links are, what travels
// over them, and what theory says should come out.
//
// [Parse] reads a file, [File.Expand] makes one complete [tcplabv1.Lab] of each
// parameter point, [Validate] checks a Lab wherever it came from, [Complete]
// fills in what one leaves out and [Assign] its addresses. The labs that
// tcplab brings along are in [List] and [Load].
//
// A lab file is YAML without its surprises: the package refuses anchors, tags,
// several documents, unknown and duplicate keys, numbers without their unit,
// files over 1 MiB and sweeps over 100,000 points. It opens no files: what a
// lab needs beside its text comes as attachments.
package labs

import "reflect"

// Source is a lab file as it was handed in.
type Source struct {
	Name        string            // for messages: "nagle.yaml"
	Content     []byte            // the YAML, at most [MaxFileSize] bytes
	Attachments map[string][]byte // traces and tables that the file names
}

// File is a lab file that was read, with its parameters still open.
type File struct {
	source Source
	root   *node
	params paramList
	spec   labSpec // at the first point
}

// Parameter is a parameter of a lab file, with its values as they are written;
// one that is not swept has one.
type Parameter struct {
	Name   string
	Values []string
}

// Name is the lab's name, at the first parameter point.
func (f *File) Name() string { return f.spec.Name }

// Title is what the lab shows, in one line, at the first parameter point.
func (f *File) Title() string { return f.spec.Title }

// Source is what the file was read from.
func (f *File) Source() Source { return f.source }

// Parameters are the file's parameters, in its order.
func (f *File) Parameters() []Parameter {
	out := make([]Parameter, len(f.params))
	for i, p := range f.params {
		out[i].Name = p.name
		for _, value := range p.values {
			out[i].Values = append(out[i].Values, value.text)
		}
	}
	return out
}

// Parse reads a lab file. The error is [Problems]: all the mistakes of syntax,
// keys, types and units that were found, at most 50. What only shows when
// everything is put together (a flow from an unknown node) is found by
// [File.Expand].
func Parse(src Source) (*File, error) {
	if src.Name == "" {
		src.Name = "lab.yaml"
	}
	r := &report{}
	root := readTree(src, r)
	if root == nil || len(r.problems) > 0 {
		return nil, r.err()
	}
	if root.kind != mapping {
		r.add(root.at, "a lab starts with name:, nodes:, links: and experiments:", "want a mapping, not %s", root.describe())
		return nil, r.err()
	}
	f := &File{source: src, root: root}
	d := &decoder{report: r}
	if params := root.get("params"); params != nil && params.kind != null {
		f.params.read(d, params)
	}
	if len(r.problems) > 0 {
		return nil, r.err()
	}
	p := f.params.resolve(make([]int, len(f.params)), r)
	if err := r.err(); err != nil {
		return nil, err
	}
	f.spec = f.decode(p, d)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// decode reads the file at one point.
func (f *File) decode(p *point, d *decoder) labSpec {
	s := substitution{point: p, report: d.report, left: maxReplacedAll}
	root := *f.root
	root.pairs = make([]pair, len(f.root.pairs))
	for i, entry := range f.root.pairs {
		if entry.key != "params" { // resolved, and part of no other value
			entry.value = s.tree(entry.value)
		}
		root.pairs[i] = entry
	}
	var spec labSpec
	d.decode(&root, reflect.ValueOf(&spec).Elem())
	if root.get("nodes") == nil && root.get("topology") == nil {
		d.add(root.at, "", "the key \"nodes\" is missing")
	}
	return spec
}
