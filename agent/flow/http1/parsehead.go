package http1

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
)

// parseHead takes a head, or what there is of it. Where it comes in one piece it
// is parsed where it lies.
func (p *Parser) parseHead(in []byte) (used int, done bool, err error) {
	if !p.answers {
		used = p.skipEmptyLines(in)
		in = in[used:]
	}
	if len(in) == 0 {
		return used, false, nil
	}
	var text []byte
	if end := bytes.Index(in, headEnd()); len(p.text) == 0 && end >= 0 {
		text = in[:end]
		used += end + len(headEnd())
	} else {
		before := len(p.text)
		seen := max(0, before-len(headEnd())+1) // there it was looked for before
		// Never more than fits a head is kept, and what follows it least of all.
		p.text = append(p.text, in[:min(len(in), MaxHead+len(headEnd())-before)]...)
		if end = bytes.Index(p.text[seen:], headEnd()); end < 0 {
			if len(p.text) >= MaxHead {
				return used, false, fmt.Errorf("a head of more than %d bytes", MaxHead)
			}
			return used + len(in), false, nil
		}
		text = p.text[:seen+end]
		used += len(text) + len(headEnd()) - before
		p.text = p.text[:0]
	}
	if len(text) > MaxHead {
		return used, false, fmt.Errorf("a head of more than %d bytes", MaxHead)
	}
	if err := p.head.parse(text, p.answers); err != nil {
		return used, false, err
	}
	p.body, err = p.head.body(p.bodyless)
	if err != nil {
		return used, false, err
	}
	p.bodyBytes, p.left = 0, p.body.Length
	p.state = [...]state{None: atEnd, Length: inBody, Chunked: inSize, UntilClose: inRest}[p.body.Framing]
	return used, true, nil
}

// skipEmptyLines lets empty lines before a request pass (RFC 9112, 2.2), and
// says how many bytes they have.
func (p *Parser) skipEmptyLines(in []byte) (used int) {
	for used < len(in) {
		switch c := in[used]; {
		case len(p.text) == 0 && c == '\r' && (used+1 == len(in) || in[used+1] == '\n'):
			p.text = append(p.text, c)
		case len(p.text) == 1 && p.text[0] == '\r' && c == '\n':
			p.text = p.text[:0]
		default:
			return used
		}
		used++
	}
	return used
}

func headEnd() []byte { return []byte("\r\n\r\n") }

// parse reads a head without its last empty line.
func (h *Head) parse(text []byte, answer bool) error {
	*h = Head{Fields: h.Fields[:0]}
	line, rest := cutLine(text)
	first := h.parseRequestLine
	if answer {
		first = h.parseStatusLine
	}
	if err := first(line); err != nil {
		return err
	}
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		f, err := parseField(line)
		if err != nil {
			return err
		}
		if len(h.Fields) == MaxFields {
			return fmt.Errorf("more than %d fields", MaxFields)
		}
		h.Fields = append(h.Fields, f)
	}
	return nil
}

func cutLine(text []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(text, []byte("\r\n"))
	return line, rest
}

// parseRequestLine reads "GET /1 HTTP/1.1".
func (h *Head) parseRequestLine(line []byte) error {
	first := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if first <= 0 || last == first {
		return fmt.Errorf("%q is no request line: method, target and version with one blank between", clip(line))
	}
	h.Method, h.Target = line[:first], line[first+1:last]
	if !isToken(h.Method) {
		return fmt.Errorf("%q is no method", clip(h.Method))
	}
	if len(h.Target) == 0 || bytes.ContainsFunc(h.Target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("%q is no target", clip(h.Target))
	}
	return h.parseVersion(line[last+1:])
}

// parseStatusLine reads "HTTP/1.1 200 OK".
func (h *Head) parseStatusLine(line []byte) error {
	version, rest, found := bytes.Cut(line, []byte(" "))
	if !found || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return fmt.Errorf("%q is no status line", clip(line))
	}
	for _, c := range rest[:3] {
		if c < '0' || c > '9' {
			return fmt.Errorf("%q is no status", clip(rest[:3]))
		}
		h.Status = 10*h.Status + int(c-'0')
	}
	if hasControl(rest) {
		return fmt.Errorf("%q is no status line", clip(line))
	}
	switch {
	case h.Status < 100:
		return fmt.Errorf("%d is no status", h.Status)
	case h.Status == 101:
		return errors.New("the peer switches protocols, which nobody asked for")
	}
	return h.parseVersion(version)
}

func (h *Head) parseVersion(text []byte) error {
	const name = "HTTP/1."
	if len(text) != len(name)+1 || string(text[:len(name)]) != name || text[len(name)] < '0' || text[len(name)] > '9' {
		return fmt.Errorf("%q is no version of HTTP/1", clip(text))
	}
	// What is newer than 1.1 is to be understood as that (RFC 9110, 2.5).
	h.Version = min(Version(text[len(name)]-'0'), HTTP11)
	return nil
}

func parseField(line []byte) (Field, error) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isToken(line[:colon]) {
		return Field{}, fmt.Errorf("%q is no header field", clip(line))
	}
	f := Field{Name: line[:colon], Value: trim(line[colon+1:])}
	if hasControl(f.Value) {
		return Field{}, fmt.Errorf("the field %s has control characters", clip(f.Name))
	}
	return f, nil
}

// hasControl reports whether a text has what no field's value has (RFC 9110,
// 5.5).
func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// isToken reports whether a text is one (RFC 9110, 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return len(b) > 0
}

// chunkSize reads the line before a chunk. Extensions (RFC 9112, 7.1.1) say nothing
// here.
func chunkSize(line []byte) (uint64, error) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	if digits = bytes.TrimRight(digits, " \t"); len(digits) == 0 || len(digits) > 15 {
		return 0, fmt.Errorf("%q is no size of a chunk", clip(line))
	}
	var size uint64
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			size = size<<4 | uint64(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			size = size<<4 | uint64(c|0x20-'a'+10)
		default:
			return 0, fmt.Errorf("%q is no size of a chunk", clip(line))
		}
	}
	return size, nil
}

// length reads a Content-Length.
func length(value []byte) (uint64, error) {
	if len(value) == 0 || len(value) > 18 {
		return 0, fmt.Errorf("%q is no Content-Length", clip(value))
	}
	var n uint64
	for _, c := range value {
		if c < '0' || c > '9' || n > math.MaxInt64/10 {
			return 0, fmt.Errorf("%q is no Content-Length", clip(value))
		}
		n = 10*n + uint64(c-'0')
	}
	return n, nil
}
