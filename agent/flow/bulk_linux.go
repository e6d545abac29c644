package flow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/labs/pace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// bulk sends a stream of bytes from client to server, or one each way: so many, or for so
// long.
//
// The server's FIN is the acknowledgement that ends it, sent the moment the server
// has read the last byte. An ACK may be delayed by 40 ms and more, and a FIN
// cannot. With a given size the server needs no FIN of the client's to know
// the last byte, and the client sends none before: a FIN of its own segment would have
// to wait for the congestion window, and could cost a round trip that the data did not.
//
// A server that has seen enough (steady) sends its FIN before it has read all; the client
// then ends.
type bulk struct {
	size     uint64        // bytes of this stream and direction; 0: as many as go in
	duration time.Duration // this time, from the first write; 0: no such limit
	both     bool          // the server sends as much
	pacing   uint64        // bytes a second at most, by the kernel; 0: no such limit
	plan     *pace.Plan    // when bytes are due; nil: at once
	write    int           // bytes of a write with a plan
	steady   *steadiness   // of all streams; nil: never
	zerocopy bool
}

// Bounds of the default of a write with a rate (Bulk.write): a full segment of Ethernet, and what
// makes a call cheap.
const (
	leastWrite   = 1460
	defaultWrite = time.Millisecond // of the rate
)

// newBulks are the streams of a bulk.
func newBulks(spec *tcplabv1.Bulk) ([]kind, error) {
	streams := max(1, int(spec.GetStreams()))
	b := bulk{
		duration: spec.GetDuration().AsDuration(), both: spec.GetBoth(), zerocopy: spec.GetZerocopy(),
		pacing: uint64(spec.GetPacingBps() / 8), write: int(spec.GetWrite()),
	}
	if spec.GetBytes() < uint64(streams) && b.duration <= 0 {
		return nil, fmt.Errorf("bulk needs at least 1 byte for each of %d streams, or a duration above 0", streams)
	}
	if rate := spec.GetRateBps(); rate > 0 {
		each := rate / 8 / float64(streams)
		steps := make([]pace.Step, len(spec.GetRateSchedule()))
		for i, s := range spec.GetRateSchedule() {
			steps[i] = pace.Step{At: s.GetAt().AsDuration(), Rate: s.GetRate() / 8 / float64(streams)}
		}
		var err error
		if b.plan, err = pace.New(each, steps); err != nil {
			return nil, err
		}
		if b.write == 0 {
			b.write = int(min(max(leastWrite, each*defaultWrite.Seconds()), sendSize))
		}
	}
	if b.write > maxWrite {
		return nil, fmt.Errorf("a write of %d bytes: 1 to %d are possible", b.write, maxWrite)
	}
	if s := spec.GetSteady(); s != nil {
		if b.both {
			return nil, errors.New("a bulk in both directions has no one goodput that is steady")
		}
		b.steady = newSteadiness(s, streams)
	}
	kinds := make([]kind, streams)
	for i := range kinds {
		part := b
		part.size = spec.GetBytes() / uint64(streams)
		if uint64(i) < spec.GetBytes()%uint64(streams) {
			part.size++
		}
		kinds[i] = part
	}
	return kinds, nil
}

func (bulk) name() string  { return "bulk" }
func (bulk) forward() bool { return true }

func (b bulk) client(ctx context.Context, c *stream) error {
	if err := b.prepare(c); err != nil {
		return err
	}
	begin := time.Now()
	o := b.outbound(c)
	o.fin = b.open(c) || b.both
	err := b.clientPart(ctx, c, o)
	if err == nil && b.steady != nil {
		// The server may have had enough long before all is sent that the kernel has taken.
		err = c.AwaitAcknowledged(ctx, c.written)
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.written, err)
	}
	c.latencies.Add(time.Since(begin))
	return nil
}

// clientPart sends, and waits for the server's end: beside the sending, where the server sends too
// or may have enough before all is sent.
func (b bulk) clientPart(ctx context.Context, c *stream, o *outbound) error {
	if !b.both && b.steady == nil {
		if err := o.send(ctx); err != nil {
			return err
		}
		return c.ReceiveFIN()
	}
	ended := make(chan error, 1)
	go func() {
		var err error
		if b.both {
			err = b.takeAll(c)
		} else {
			err = c.ReceiveFIN()
			o.finish() // the server has enough, or all
		}
		ended <- err
	}()
	err := o.send(ctx)
	if err != nil {
		c.Interrupt(unix.SHUT_RDWR) // the reading is to end as well
	}
	return first(err, <-ended)
}

// first is the first that is an error: the second is then its consequence.
func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (b bulk) server(ctx context.Context, c *stream) error {
	if err := b.prepare(c); err != nil {
		return err
	}
	if b.steady != nil {
		b.steady.join(c)
	}
	sent := make(chan error, 1)
	if b.both {
		o := b.outbound(c)
		go func() { sent <- o.send(ctx) }()
	} else {
		sent <- nil
	}
	var err error
	if b.open(c) || b.both {
		err = b.takeAll(c)
	} else {
		err = c.receive(b.size)
	}
	if err != nil {
		c.Interrupt(unix.SHUT_RDWR) // the sending is to end as well
	}
	if err = first(err, <-sent); err == nil {
		err = c.FinishWriting()
	}
	if err == nil && b.both {
		// What the kernel has taken is not sent yet, and takes its time on a slow link. Only then is
		// this end's part done, and its TCP_INFO an account of all of it.
		err = c.AwaitAcknowledged(ctx, c.written)
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.read, err)
	}
	return nil
}

// prepare sets what only a bulk asks of its sockets.
func (b bulk) prepare(c *stream) error {
	if b.pacing > 0 {
		if err := c.SetPacing(b.pacing); err != nil {
			return err
		}
	}
	if b.zerocopy {
		return c.EnableZerocopy()
	}
	return nil
}

// open reports whether the sender's FIN says how much it is.
func (b bulk) open(c *stream) bool {
	return b.size == 0 || b.duration > 0 || c.limited || b.steady != nil
}

// takeAll reads until the peer ends, which it may not do before all is there.
func (b bulk) takeAll(c *stream) error {
	if err := c.receiveAll(); err != nil {
		return err
	}
	switch {
	case b.size > 0 && c.read > b.size:
		return socket.ErrTooMuch
	case !b.open(c) && c.read < b.size:
		return ErrEnded
	}
	return nil
}

// outbound is one direction of the bulk as its sender has it.
func (b bulk) outbound(c *stream) *outbound {
	return &outbound{stream: c, bulk: b, enough: make(chan struct{})}
}
