package http1

import (
	"errors"
	"fmt"
	"strings"
)

// Framing is how the end of a body is told (RFC 9112, 6.3).
type Framing int

// The ways.
const (
	None       Framing = iota // there is no body
	Length                    // by Content-Length
	Chunked                   // by the last chunk
	UntilClose                // by the end of the connection; nobody can tell it from one cut short
)

// String names the framing.
func (f Framing) String() string {
	return [...]string{"none", "content-length", "chunked", "close-delimited"}[f]
}

// Body is what a head says of the body behind it.
type Body struct {
	Framing Framing
	Length  uint64 // with Length; at most 999,999,999,999,999,999
}

// body is how the body's end is told; bodyless: the head answers a HEAD.
func (h *Head) body(bodyless bool) (Body, error) {
	var coding, size *Field
	for i := range h.Fields {
		f := &h.Fields[i]
		switch {
		case f.Is(FieldTransferEncoding):
			if coding != nil {
				return Body{}, errors.New("Transfer-Encoding is there twice")
			}
			coding = f
		case f.Is(FieldContentLength):
			if size != nil {
				return Body{}, errors.New("Content-Length is there twice")
			}
			size = f
		}
	}
	var n uint64
	var err error
	switch {
	case coding != nil && size != nil:
		return Body{}, errors.New("Content-Length and Transfer-Encoding in one message: it has two ends")
	case coding != nil && h.Version < HTTP11:
		return Body{}, errors.New("Transfer-Encoding in HTTP/1.0, which has none")
	case coding != nil && !strings.EqualFold(string(coding.Value), "chunked"):
		return Body{}, fmt.Errorf("the transfer coding %q is not known: chunked is", clip(coding.Value))
	case size != nil:
		if n, err = length(size.Value); err != nil {
			return Body{}, err
		}
	}
	switch answer := h.Status > 0; {
	case answer && (bodyless || h.Status < 200 || h.Status == 204 || h.Status == 304):
		return Body{}, nil
	case coding != nil:
		return Body{Framing: Chunked}, nil
	case size != nil:
		return Body{Framing: Length, Length: n}, nil
	case answer:
		return Body{Framing: UntilClose}, nil
	}
	return Body{}, nil
}
