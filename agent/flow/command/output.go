package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	// tailSize is the most that a result repeats of an output (ExecOutput.tail).
	tailSize = 2 << 10
	// lineSize is how much of a line is searched for the sign that a program is ready.
	lineSize = 64 << 10
	// jsonSize bounds the JSON in which metrics are found: what becomes of it in memory is many
	// times as large.
	jsonSize = 16 << 20
	// pieceSize is what one read of an output takes.
	pieceSize = 32 << 10
)

// output takes what a program writes to one of its outputs: the first bytes become an
// artifact, lines are matched, and the last bytes are remembered.
type output struct {
	name   string
	limit  uint64       // bytes that are kept
	match  func([]byte) // called with every line; may be nil
	keep   func() (Artifact, error)
	wanted bool // text is to be parsed

	mu       sync.Mutex // guards what is below
	total    uint64
	kept     uint64
	last     []byte // at most tailSize
	line     []byte // the last line, unfinished
	text     []byte // what was kept, where it is wanted
	artifact Artifact
	err      error // of the artifact
	ended    bool  // the artifact is committed or gone
}

func newOutput(name string, limit uint64, wanted bool, match func([]byte), keep func() (Artifact, error)) *output {
	return &output{name: name, limit: limit, wanted: wanted, match: match, keep: keep}
}

// read takes what r has until its end, which is that of the program and all that it
// started.
func (o *output) read(r io.Reader) {
	piece := make([]byte, pieceSize)
	for {
		n, err := r.Read(piece)
		o.take(piece[:n])
		if err != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.match != nil && len(o.line) > 0 {
				o.match(o.line)
			}
			return
		}
	}
}

func (o *output) take(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total += uint64(len(b))
	o.last = append(o.last, b...)
	if over := len(o.last) - tailSize; over > 0 {
		o.last = append(o.last[:0], o.last[over:]...)
	}
	room := b[:min(uint64(len(b)), o.limit-o.kept)]
	o.kept += uint64(len(room))
	o.store(room)
	if o.wanted && len(o.text) <= jsonSize {
		o.text = append(o.text, room...)
	}
	if o.match != nil {
		o.matchLines(room)
	}
}

// store appends to the artifact, which is made with the first byte.
func (o *output) store(b []byte) {
	if len(b) == 0 || o.err != nil {
		return
	}
	if o.artifact == nil {
		if o.artifact, o.err = o.keep(); o.err != nil {
			return
		}
	}
	_, o.err = o.artifact.Write(b)
}

func (o *output) matchLines(b []byte) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			o.line = append(o.line, b[:min(len(b), lineSize-len(o.line))]...)
			return
		}
		o.line = append(o.line, b[:min(end, lineSize-len(o.line))]...)
		o.match(o.line)
		o.line, b = o.line[:0], b[end+1:]
	}
}

// tail is the last of what was written, as text.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(string(o.last), "�")
}

// report makes the artifact part of the trial, and says what was written.
func (o *output) report() (*tcplabv1.ExecOutput, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &tcplabv1.ExecOutput{Bytes: o.total, BytesKept: o.kept, Tail: strings.ToValidUTF8(string(o.last), "�")}
	if o.artifact != nil && o.err == nil && !o.ended {
		o.err = o.artifact.Commit()
		o.ended = true
	}
	if o.err != nil {
		r.BytesKept = 0
		return r, fmt.Errorf("keep %s: %w", o.name, o.err)
	}
	if o.artifact != nil {
		r.Artifact = o.name
	}
	return r, nil
}

// json parses what was written.
func (o *output) json() (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.wanted:
		return nil, errors.New("it was not asked for")
	case o.total > o.kept:
		return nil, fmt.Errorf("it is longer than the %d bytes that are kept", o.limit)
	case len(o.text) > jsonSize:
		return nil, fmt.Errorf("it is longer than %d bytes", jsonSize)
	}
	return parseJSON(o.text)
}

// parseJSON reads one JSON document and nothing else.
func parseJSON(text []byte) (any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// abandon removes an artifact that is not part of the trial.
func (o *output) abandon() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.artifact == nil || o.ended {
		return nil
	}
	o.ended = true
	return o.artifact.Abandon()
}
