package flow

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// burst sends writes of given sizes and gaps. The client knows when it made each
// and how long the call took, the server when it had read each one's first and
// last byte. As with bulk the server's FIN ends it.
type burst struct {
	writes []uint32        // sizes in bytes of one round
	gaps   []time.Duration // after each of them
	count  int             // rounds
}

// span is what one write took, at one end.
type span struct {
	bytes      uint32
	begin, end time.Time
}

// maxBurstWrites bounds what is told write by write (Burst.writes).
const maxBurstWrites = 10_000

func newBurst(spec *tcplabv1.Burst) (kind, error) {
	b := burst{writes: spec.GetWrites(), count: int(max(1, spec.GetCount()))}
	if len(b.writes) == 0 || len(b.writes)*b.count > maxBurstWrites {
		return nil, fmt.Errorf("a burst of %d times %d writes: 1 to %d are possible", b.count, len(b.writes), maxBurstWrites)
	}
	if n := len(spec.GetGaps()); n > 1 && n != len(b.writes) {
		return nil, fmt.Errorf("a burst of %d writes with %d gaps", len(b.writes), n)
	}
	for i, size := range b.writes {
		if size == 0 || size > maxWrite {
			return nil, fmt.Errorf("a write of %d bytes: 1 to %d are possible", size, maxWrite)
		}
		var gap time.Duration
		if n := len(spec.GetGaps()); n > 0 {
			gap = spec.GetGaps()[min(i, n-1)].AsDuration()
		}
		b.gaps = append(b.gaps, gap)
	}
	return b, nil
}

func (burst) name() string  { return "burst" }
func (burst) forward() bool { return true }

func (b burst) client(ctx context.Context, c *stream) error {
	p := make([]byte, slices.Max(b.writes))
	for round := range b.count {
		if round > 0 {
			if err := c.wait(ctx, b.gaps[len(b.gaps)-1]); err != nil {
				return fmt.Errorf("before round %d of %d: %w", round+1, b.count, err)
			}
			if c.over() {
				break
			}
		}
		if err := c.corked(func() error { return b.round(ctx, c, p) }); err != nil {
			return fmt.Errorf("in round %d of %d: %w", round+1, b.count, err)
		}
	}
	var err error
	if c.limited { // the server cannot know which write was the last
		err = c.FinishWriting()
	}
	if err == nil {
		err = c.ReceiveFIN()
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.written, err)
	}
	return nil
}

// round makes the writes of one round, with the gaps between them.
func (b burst) round(ctx context.Context, c *stream, p []byte) error {
	for i, size := range b.writes {
		if i > 0 {
			if err := c.wait(ctx, b.gaps[i-1]); err != nil {
				return err
			}
			if c.over() {
				return nil
			}
		}
		begin := time.Now()
		err := c.send(p[:size])
		c.wrote = append(c.wrote, span{size, begin, time.Now()})
		if err != nil {
			return fmt.Errorf("in write %d of %d: %w", i+1, len(b.writes), err)
		}
	}
	return nil
}

func (b burst) server(_ context.Context, c *stream) error {
	var left uint64
	for _, size := range b.writes {
		left += uint64(size)
	}
	left *= uint64(b.count)
	p := make([]byte, min(left, discardSize))
	var start time.Time // when the first byte of the write that comes in was read
	var due uint64      // bytes of it that are still to come
	for left > 0 {
		n, err := c.DiscardSome(p[:min(left, uint64(len(p)))])
		now := time.Now()
		if err == nil && n == 0 {
			if c.limited && due == 0 {
				break // the client's time was up
			}
			err = ErrEnded
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", c.read, err)
		}
		c.read += uint64(n)
		c.lastRead = now
		left -= uint64(n)
		for got := uint64(n); got > 0; {
			size := b.writes[len(c.arrived)%len(b.writes)]
			if due == 0 {
				start, due = now, uint64(size)
			}
			part := min(got, due)
			got, due = got-part, due-part
			if due == 0 {
				c.arrived = append(c.arrived, span{size, start, now})
			}
		}
	}
	return c.FinishWriting()
}

// timings joins what both ends of a burst know of its writes. What the server had
// not read by the end of a burst that failed is 0.
func timings(client, server measured) []*tcplabv1.WriteTiming {
	var all []*tcplabv1.WriteTiming
	for i, w := range client.wrote {
		t := &tcplabv1.WriteTiming{At: durationpb.New(w.begin.Sub(client.started)), Blocked: durationpb.New(w.end.Sub(w.begin)), Bytes: uint64(w.bytes)}
		if i < len(server.arrived) {
			t.First = durationpb.New(server.arrived[i].begin.Sub(w.begin))
			t.Latency = durationpb.New(server.arrived[i].end.Sub(w.begin))
		}
		all = append(all, t)
	}
	return all
}
