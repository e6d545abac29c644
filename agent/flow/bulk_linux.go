package flow

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bulk sends one stream of bytes from client to server: so many, or for so
// long.
//
// The server's FIN is the acknowledgement that ends it, sent the moment the server
// has read the last byte. An ACK may be delayed by 40 ms and more, and a FIN
// cannot. With a given size the server needs no FIN of the client's to know
// the last byte, and the client sends none before: a FIN of its own segment would have
// to wait for the congestion window, and could cost a round trip that the data did not.
type bulk struct {
	size     uint64        // bytes; 0: as many as go in
	duration time.Duration // this time, from the first write; 0: no such limit
}

func (bulk) name() string  { return "bulk" }
func (bulk) forward() bool { return true }

func (b bulk) client(_ context.Context, c *stream) error {
	begin := time.Now()
	until := c.until
	if b.duration > 0 {
		until = begin.Add(b.duration)
	}
	var err error
	if until.IsZero() {
		err = c.sendLong(b.size)
	} else {
		err = b.sendUntil(c, until)
	}
	if err == nil {
		err = c.ReceiveFIN()
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.written, err)
	}
	c.latencies.Add(time.Since(begin))
	return nil
}

// sendUntil writes until the time is over, or all is written. Ending the stream from beside wakes a
// write that waits for room, and what the kernel took by then still goes out.
func (b bulk) sendUntil(c *stream, until time.Time) error {
	// Full segments, as with a given size; the FIN takes the cork off.
	if err := c.Cork(true); err != nil {
		return err
	}
	var over atomic.Bool
	timer := time.AfterFunc(time.Until(until), func() {
		over.Store(true)
		// An error says that the connection is gone, which the write meets too.
		_ = c.FinishWriting()
	})
	defer timer.Stop()
	p := make([]byte, sendSize)
	for b.size == 0 || c.written < b.size {
		if b.size > 0 {
			p = p[:min(uint64(len(p)), b.size-c.written)]
		}
		err := c.send(p)
		if errors.Is(err, unix.EPIPE) && over.Load() {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return c.FinishWriting()
}

func (b bulk) server(_ context.Context, c *stream) error {
	var err error
	if b.size > 0 && !c.limited {
		err = c.receive(b.size)
	} else {
		err = c.receiveAll()
	}
	if err == nil {
		err = c.FinishWriting()
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.read, err)
	}
	return nil
}
