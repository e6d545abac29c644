package http1

import (
	"bytes"
	"errors"
	"fmt"
)

// Event is what a [Parser] has found.
type Event int

// The events. Of each message there is one Head, any number of Data, and one End.
const (
	More    Event = iota // all was used, and the message goes on
	GotHead              // the head is there: see Parser.Head and Parser.Body
	GotData              // some bytes of the body
	GotEnd               // the message has ended
)

// Limits of what is taken for a message.
const (
	// MaxHead is the most bytes of a head, or of a trailer.
	MaxHead = 64 << 10
	// MaxFields is the most fields of a head.
	MaxFields = 256

	maxLine = 4096 // bytes of a line with the size of a chunk
)

// Parser takes a stream of messages apart. It is fed what comes, in pieces of any
// size. One parser reads one connection, in one direction. After an error it says the
// same again.
type Parser struct {
	answers   bool // it reads answers, not requests
	bodyless  bool // the next answer is to a HEAD
	state     state
	head      Head
	body      Body
	left      uint64 // bytes of the body, or of the chunk, that are still to come
	bodyBytes uint64 // bytes of the body that have come
	text      []byte // of a head or a line that came in several pieces
	trailer   int    // bytes of the trailer so far
	err       error
}

// state is where in a message the parser is.
type state int

const (
	inHead    state = iota // before or in it
	inBody                 // `left` bytes are to come
	inSize                 // in the line with a chunk's size
	inChunk                // `left` bytes of the chunk are to come
	inBreak                // in the CRLF after a chunk
	inTrailer              // behind the last chunk
	inRest                 // all up to the connection's end is body
	atEnd                  // nothing of it is left, and nobody was told yet
)

// NewRequests makes a parser of requests: what a server reads.
func NewRequests() *Parser { return &Parser{} }

// NewAnswers makes a parser of answers: what a client reads.
func NewAnswers() *Parser { return &Parser{answers: true} }

// Expect says which method the next answer is to, before any of it is parsed:
// that to a HEAD has the fields of a body, and no body.
func (p *Parser) Expect(method string) { p.bodyless = method == "HEAD" }

// Head is the head of the message, from GotHead until the next call of Parse.
func (p *Parser) Head() *Head { return &p.head }

// Body is how the end of the message's body is told, from GotHead until GotEnd.
func (p *Parser) Body() Body { return p.body }

// BodyBytes is how many bytes of the message's body have come.
func (p *Parser) BodyBytes() uint64 { return p.bodyBytes }

// Parse looks at what came next and says what it is: how many bytes of it were
// used, and with GotData which of them are the body's. It is called again with
// what was not used, until it says More. With GotEnd nothing need be used: it is
// then called with nothing, too, and so it is where no more came.
func (p *Parser) Parse(in []byte) (event Event, used int, data []byte, err error) {
	for p.err == nil {
		var n int
		switch p.state {
		case inHead:
			var done bool
			n, done, p.err = p.parseHead(in[used:])
			used += n
			if p.err == nil && !done {
				return More, used, nil, nil
			}
			if p.err == nil {
				return GotHead, used, nil, nil
			}
		case inBody, inChunk, inRest:
			if p.state != inRest && p.left == 0 {
				p.pieceEnded()
				continue
			}
			if used == len(in) {
				return More, used, nil, nil
			}
			data = in[used:]
			if p.state != inRest && uint64(len(data)) > p.left {
				data = data[:p.left]
			}
			p.Skip(uint64(len(data)))
			return GotData, used + len(data), data, nil
		case inSize, inBreak, inTrailer:
			var line []byte
			line, n, p.err = p.line(in[used:])
			used += n
			if p.err == nil && line == nil {
				return More, used, nil, nil
			}
			if p.err == nil {
				p.err = p.parseLine(line)
				p.text = p.text[:0]
			}
		case atEnd:
			p.state, p.bodyless = inHead, false
			return GotEnd, used, nil, nil
		}
	}
	return More, used, nil, p.err
}

// pieceEnded goes on behind the body, or behind a chunk's data.
func (p *Parser) pieceEnded() {
	if p.state == inChunk {
		p.state = inBreak
	} else {
		p.state = atEnd
	}
}

// Whole reports whether the message has come to its end, which only [Parser.Parse] has still to
// tell: it needs no more bytes for that.
func (p *Parser) Whole() bool {
	return p.err == nil && (p.state == atEnd || p.state == inBody && p.left == 0)
}

// Skippable is how many of the bytes to come are the body's whatever they are, so that a
// reader may throw them away unseen, if it then says so by Skip; of a body up to
// the connection's end, all.
func (p *Parser) Skippable() uint64 {
	switch {
	case p.err != nil:
		return 0
	case p.state == inBody || p.state == inChunk:
		return p.left
	case p.state == inRest:
		return 1 << 62
	}
	return 0
}

// Skip says that so many bytes, of those that are Skippable, came and went by.
func (p *Parser) Skip(n uint64) {
	p.bodyBytes += n
	if p.state != inRest {
		p.left -= n
	}
}

// Finish says that the connection has ended. The error is a [CutShortError] where that was
// inside a message; ended is true where it was what a body's end is told by,
// and then nothing of the message is missing that anybody could know of.
func (p *Parser) Finish() (ended bool, err error) {
	switch {
	case p.err != nil:
		return false, p.err
	case p.state == inRest, p.state == atEnd:
		p.state, p.bodyless = inHead, false
		return true, nil
	case p.state == inHead && len(p.text) == 0:
		return false, nil
	case p.state == inBody && p.left == 0:
		p.state, p.bodyless = inHead, false
		return true, nil
	case p.state == inHead:
		return false, &CutShortError{InHead: true}
	}
	return false, &CutShortError{Got: p.bodyBytes, Body: p.body}
}

// Between reports whether no message is under way.
func (p *Parser) Between() bool { return p.state == inHead && len(p.text) == 0 }

// CutShortError says that a connection ended inside a message.
type CutShortError struct {
	InHead bool   // inside its head; there is nothing of the body
	Got    uint64 // bytes of the body that came
	Body   Body   // how its end would have been told
}

// Error says where the message was cut.
func (e *CutShortError) Error() string {
	switch {
	case e.InHead:
		return "the connection ended inside a head"
	case e.Body.Framing == Length:
		return fmt.Sprintf("the connection ended after %d of %d bytes of the body", e.Got, e.Body.Length)
	}
	return fmt.Sprintf("the connection ended after %d bytes of a body, before its last chunk", e.Got)
}

// line is the next line without its CRLF, or nil where it has not all come. Of
// one that came in pieces p.text has what came before.
func (p *Parser) line(in []byte) (line []byte, used int, err error) {
	end := bytes.IndexByte(in, '\n')
	if end < 0 {
		if len(p.text)+len(in) > maxLine {
			return nil, 0, fmt.Errorf("a line of more than %d bytes between chunks", maxLine)
		}
		p.text = append(p.text, in...)
		return nil, len(in), nil
	}
	used = end + 1
	line = in[:used]
	if len(p.text) > 0 {
		p.text = append(p.text, line...)
		line = p.text
	}
	if len(line) > maxLine {
		return nil, 0, fmt.Errorf("a line of more than %d bytes between chunks", maxLine)
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, 0, errLineEnd
	}
	return line[:len(line)-2], used, nil
}

var errLineEnd = errors.New("a line that does not end in CRLF")

// parseLine takes a whole line of a chunked body.
func (p *Parser) parseLine(line []byte) error {
	switch p.state {
	case inSize:
		size, err := chunkSize(line)
		if err != nil {
			return err
		}
		p.left, p.state = size, inChunk
		if size == 0 {
			p.state, p.trailer = inTrailer, 0
		}
	case inBreak:
		if len(line) > 0 {
			return fmt.Errorf("%q stands where a chunk should have ended", clip(line))
		}
		p.state = inSize
	default:
		if p.trailer += len(line) + 2; p.trailer > MaxHead {
			return fmt.Errorf("a trailer of more than %d bytes", MaxHead)
		}
		if len(line) == 0 {
			p.state = atEnd
		} else if _, err := parseField(line); err != nil {
			return err
		}
	}
	return nil
}

// clip is a text for a message, not too long.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }
