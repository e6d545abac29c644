package flow

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	// sendSize is what one write(2) of a long transfer takes: enough to make the
	// call cheap, little enough to stay in the processor's cache.
	sendSize = 256 << 10
	// discardSize is what one read of a long transfer asks for. Nothing is copied.
	discardSize = 1 << 20
)

// ErrEnded says that the stream ended before all had come.
var ErrEnded = WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY, errors.New("the peer ended the connection early"))

// stream is an end's connection while the flow does its work: what is sent and
// received on it is counted.
type stream struct {
	*socket.Socket
	*measured
	limited bool      // the client may end in order before all is done
	until   time.Time // when this end does; zero: never

	outgoing, incoming []byte // what is written, and what is read over: no transaction makes its own
}

// room makes *p at least so long and returns so much of it.
func room(p *[]byte, size uint64) []byte {
	if uint64(len(*p)) < size {
		*p = make([]byte, size)
	}
	return (*p)[:size]
}

// over reports whether the client is to begin nothing more.
func (c *stream) over() bool { return !c.until.IsZero() && !time.Now().Before(c.until) }

// wait waits for d, and no longer than until the client is to end.
func (c *stream) wait(ctx context.Context, d time.Duration) error {
	if !c.until.IsZero() {
		d = min(d, time.Until(c.until))
	}
	return wait(ctx, d)
}

// send writes p in one write(2).
func (c *stream) send(p []byte) error {
	n, err := c.Write(p)
	c.written += uint64(n)
	return err
}

// sendLong writes so many bytes as if in one write(2): all segments are full
// but the last.
func (c *stream) sendLong(size uint64) error {
	if size <= sendSize {
		return c.send(room(&c.outgoing, size)) // one write needs no cork
	}
	if err := c.Cork(true); err != nil {
		return err
	}
	p := room(&c.outgoing, sendSize)
	for size > 0 {
		part := min(size, sendSize)
		if err := c.send(p[:part]); err != nil {
			return err
		}
		size -= part
	}
	return c.Cork(false)
}

// corked writes a message of several writes, corked where the lab asks for it.
func (c *stream) corked(write func() error) error {
	if !c.CorksMessages() {
		return write()
	}
	if err := c.Cork(true); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return c.Cork(false)
}

// receive reads exactly so many bytes. Where the client may end early it is io.EOF that it did
// so before the first of them.
func (c *stream) receive(size uint64) error {
	p := room(&c.incoming, min(size, discardSize))
	for left := size; left > 0; {
		n, err := c.take(p[:min(left, uint64(len(p)))])
		left -= uint64(n)
		if c.limited && left == size && errors.Is(err, io.EOF) {
			return io.EOF
		}
		if left > 0 && errors.Is(err, io.EOF) {
			return ErrEnded
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// receiveAll reads until the peer ends.
func (c *stream) receiveAll() error {
	p := make([]byte, discardSize)
	for {
		if _, err := c.take(p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (c *stream) take(p []byte) (int, error) {
	n, err := c.Discard(p)
	if n > 0 {
		c.read += uint64(n)
		c.lastRead = time.Now()
	}
	return n, err
}
