package web

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/http1"
	"github.com/tcplab/tcplab/agent/flow/socket"
)

// piece is a text that is written so many times over.
type piece struct {
	text  []byte
	times uint64
	// What of each text is a message's body: so many bytes, behind so many others.
	before, body uint64
}

// output is what a connection is to write, in order, and has not yet.
type output struct {
	pieces []piece
	next   int    // the piece that is written now
	offset int    // bytes of its text that are written
	owned  []byte // texts that were copied, until all is written
}

// Sizes of what is written.
const (
	zerosSize  = 256 << 10 // bytes of a body that one call writes at most
	smallWrite = 16 << 10  // up to this, what is to be written is copied together for one plain call
	maxVectors = 64        // pieces that one call writes
)

// blocks are bytes that all connections of a loop write.
type blocks struct {
	zeros   []byte
	chunk   []byte // a whole chunk with its frame, of chunkBody bytes
	prefix  uint64 // bytes of its first line
	size    uint64
	small   []byte
	vectors [][]byte // of one call
}

func newBlocks(chunk int) *blocks {
	b := &blocks{zeros: make([]byte, zerosSize), small: make([]byte, 0, smallWrite), vectors: make([][]byte, 0, maxVectors)}
	if chunk > 0 {
		b.chunk = http1.AppendChunk(nil, uint64(chunk))
		b.prefix, b.size = uint64(len(b.chunk)), uint64(chunk)
		b.chunk = append(append(b.chunk, make([]byte, chunk)...), "\r\n"...)
	}
	return b
}

func (o *output) empty() bool { return o.next == len(o.pieces) }

// text appends a copy of a text that is no body.
func (o *output) text(p []byte) {
	if len(p) == 0 {
		return
	}
	begin := len(o.owned)
	o.owned = append(o.owned, p...)
	o.pieces = append(o.pieces, piece{text: o.owned[begin:len(o.owned):len(o.owned)], times: 1})
}

// zeros appends a body of so many bytes.
func (o *output) zeros(b *blocks, n uint64) {
	size := uint64(len(b.zeros))
	if whole := n / size; whole > 0 {
		o.pieces = append(o.pieces, piece{text: b.zeros, times: whole, body: size})
	}
	if rest := n % size; rest > 0 {
		o.pieces = append(o.pieces, piece{text: b.zeros[:rest], times: 1, body: rest})
	}
}

// chunks appends a body of so many bytes in chunks, and the last of them where the body is whole.
func (o *output) chunks(b *blocks, n uint64, whole bool) {
	if count := n / b.size; count > 0 {
		o.pieces = append(o.pieces, piece{text: b.chunk, times: count, before: b.prefix, body: b.size})
	}
	if rest := n % b.size; rest > 0 {
		o.text(http1.AppendChunk(nil, rest))
		o.zeros(b, rest)
		o.text([]byte("\r\n"))
	}
	if whole {
		o.text(http1.AppendLastChunk(nil))
	}
}

// drop forgets what is left.
func (o *output) drop() {
	clear(o.pieces)
	o.pieces, o.next, o.offset, o.owned = o.pieces[:0], 0, 0, o.owned[:0]
}

// flush writes until all is written, which it reports, or the socket takes no more. It adds up
// what it wrote, and how much of that was body.
func (o *output) flush(fd socket.FD, b *blocks, written, body *uint64) (done bool, err error) {
	for !o.empty() {
		n, err := o.write(fd, b)
		if n > 0 {
			*written += uint64(n)
			*body += o.advance(uint64(n))
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	o.drop()
	return true, nil
}

// write makes one call.
func (o *output) write(fd socket.FD, b *blocks) (int, error) {
	pieces := o.pieces[o.next:]
	first := pieces[0].text[o.offset:]
	if len(pieces) == 1 && pieces[0].times == 1 {
		return fd.SendNow(first)
	}
	total := len(first)
	vectors := append(b.vectors[:0], first)
	for i := range pieces {
		p := &pieces[i]
		left := p.times
		if i == 0 {
			left--
		}
		for ; left > 0 && len(vectors) < maxVectors && total < zerosSize; left-- {
			vectors = append(vectors, p.text)
			total += len(p.text)
		}
	}
	if total <= smallWrite {
		b.small = b.small[:0]
		for _, v := range vectors {
			b.small = append(b.small, v...)
		}
		return fd.SendNow(b.small)
	}
	return fd.SendVectors(vectors)
}

// advance takes what was written off the front, and says how much of it was body.
func (o *output) advance(n uint64) (body uint64) {
	for n > 0 {
		p := &o.pieces[o.next]
		size := uint64(len(p.text))
		step := min(n, size-uint64(o.offset))
		from := uint64(o.offset)
		body += p.bodyUpTo(from+step) - p.bodyUpTo(from)
		n -= step
		if o.offset += int(step); uint64(o.offset) < size {
			continue
		}
		o.offset = 0
		p.times--
		// Whole texts at once.
		if whole := min(n/size, p.times); whole > 0 {
			n -= whole * size
			p.times -= whole
			body += whole * p.body
		}
		if p.times == 0 {
			o.next++
		}
	}
	return body
}

// bodyUpTo is how much of a text's first n bytes is body.
func (p *piece) bodyUpTo(n uint64) uint64 {
	if n <= p.before {
		return 0
	}
	return min(n-p.before, p.body)
}

// pending is how many bytes wait.
func (o *output) pending() (n uint64) {
	for i := range o.pieces[o.next:] {
		n += uint64(len(o.pieces[o.next+i].text)) * o.pieces[o.next+i].times
	}
	return n - uint64(o.offset)
}
