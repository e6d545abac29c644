package labs

import (
	"cmp"
	"slices"
	"strings"
)

// Bounds of the files that a lab names.
const (
	// MaxAttachmentSize is the most bytes of one of them: 16 MiB.
	MaxAttachmentSize = 16 << 20
	// MaxAttachments is how many of them a lab may have.
	MaxAttachments = 100
	// MaxAttachmentsSize is the most bytes of all together, so that they fit
	// into one request: 48 MiB.
	MaxAttachmentsSize = 48 << 20
	maxFileName        = 255 // bytes
)

// Attachment is a file that a lab names, and where it does so first.
type Attachment struct {
	Name         string // plain, without any folder
	Line, Column int    // in the lab file, from 1
}

// fileName is the plain name of an attachment.
type fileName struct {
	name string
	at   *node
}

func (v *fileName) read(d *decoder, n *node) {
	s, ok := d.scalar(n, "a file's name")
	if !ok {
		return
	}
	const hint = "put it beside the lab file, and give its plain name"
	switch {
	case s == "":
		d.add(n.at, "", "the file has no name")
		return
	case len(s) > maxFileName:
		d.add(n.at, "", "a file's name has at most %d bytes, not %d", maxFileName, len(s))
		return
	case strings.ContainsAny(s, `/\:`):
		d.add(n.at, hint, "the file %s is in a folder: a lab opens no paths", n.describe())
		return
	case s[0] == '.' || s[0] == '-':
		d.add(n.at, hint, "a file's name cannot start with %q", s[:1])
		return
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		d.add(n.at, "", "the file's name holds a character that is not text")
		return
	}
	*v = fileName{name: s, at: n}
	d.files = append(d.files, *v)
}

// Attachments are the files that the lab names at any of its parameter points,
// by name. The error is [Problems].
func (f *File) Attachments(overrides []Override) ([]Attachment, error) {
	r := &report{}
	params := f.override(overrides, r)
	f.boundSweep(params, r)
	if err := r.err(); err != nil {
		return nil, err
	}
	found := make(map[string]Attachment)
	choice := make([]int, len(params))
	for {
		p := params.resolve(choice, r)
		d := &decoder{report: r}
		r.point = p.describe()
		f.decode(p, d)
		if err := r.err(); err != nil {
			return nil, err
		}
		swept := false
		for _, named := range d.files {
			if _, known := found[named.name]; !known {
				found[named.name] = Attachment{Name: named.name, Line: named.at.at.line, Column: named.at.at.column}
			}
			swept = swept || named.at.at.replaced
		}
		if !swept || !next(params, choice) { // without a parameter the names are the same at every point
			break
		}
	}
	out := make([]Attachment, 0, len(found))
	for _, a := range found {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Attachment) int { return cmp.Compare(a.Name, b.Name) })
	if len(out) > MaxAttachments {
		r.add(f.root.at, "", "the lab names %d files, more than %d", len(out), MaxAttachments)
	}
	return out, r.err()
}

// Attach is the file with what it names: a file's bytes by its name.
func (f *File) Attach(attachments map[string][]byte) *File {
	with := *f
	with.source.Attachments = attachments
	return &with
}

// attachments reads the files of a lab, each once, however many points and
// links follow it.
type attachments struct {
	bytes  map[string][]byte
	tables map[string][]float64
	traces map[string]*recording
}

func newAttachments(bytes map[string][]byte) *attachments {
	return &attachments{bytes: bytes, tables: make(map[string][]float64), traces: make(map[string]*recording)}
}

// content is a file's bytes; ok is false with a problem.
func (a *attachments) content(r *report, named *fileName) (content []byte, ok bool) {
	if named.at == nil {
		return nil, false // its name was refused
	}
	content, ok = a.bytes[named.name]
	switch {
	case !ok:
		r.add(named.at.at, "put it beside the lab file", "there is no file %q", named.name)
		return nil, false
	case len(content) > MaxAttachmentSize:
		r.add(named.at.at, "", "the file %q has %d bytes, more than 16 MiB", named.name, len(content))
		return nil, false
	}
	return content, true
}

// quantiles are those in a file; none with a problem.
func (a *attachments) quantiles(r *report, named *fileName) []float64 {
	if known, ok := a.tables[named.name]; ok {
		return known
	}
	content, ok := a.content(r, named)
	if !ok {
		return nil
	}
	table := readQuantiles(named.name, content, r)
	a.tables[named.name] = table
	return table
}

// recording is the trace in a file; nil with a problem.
func (a *attachments) recording(r *report, named *fileName) *recording {
	if known, ok := a.traces[named.name]; ok {
		return known
	}
	content, ok := a.content(r, named)
	if !ok {
		return nil
	}
	read := readPacketDelivery
	if isCSV(named.name) {
		read = readCSV
	}
	rec := read(named.name, content, r)
	a.traces[named.name] = rec
	return rec
}

// isCSV tells a table of time, rate, delay and loss from a packet-delivery
// file: by its name.
func isCSV(name string) bool { return strings.HasSuffix(strings.ToLower(name), ".csv") }
