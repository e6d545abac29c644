package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// transaction sends requests and reads replies, one after another. What is
// one write of the lab is one write(2), and nothing is read between a
// request's writes: how they become segments is TCP's business, and often what
// the lab is about.
type transaction struct {
	writes     []uint32 // sizes in bytes
	reply      uint64   // bytes
	count      uint32
	thinkTime  time.Duration // the client's, between a reply and the next request
	serverTime time.Duration // between a request and its reply
	rate       float64       // at which requests are due, in 1/s; 0: a closed loop
}

func (transaction) name() string  { return "transaction" }
func (transaction) forward() bool { return false }

func (t transaction) client(ctx context.Context, c *stream) error {
	p := make([]byte, slices.Max(t.writes))
	start := time.Now()
	for i := range t.count {
		due, err := t.await(ctx, c, start, i)
		if err == nil && i > 0 && c.over() {
			return nil
		}
		if err == nil {
			err = t.ask(c, p, due)
		}
		if err != nil {
			return fmt.Errorf("in transaction %d of %d: %w", i+1, t.count, err)
		}
	}
	return nil
}

// await waits until a transaction may begin and returns from when its latency counts: in
// an open loop from when it was due, late or not.
func (t transaction) await(ctx context.Context, c *stream, start time.Time, i uint32) (time.Time, error) {
	if t.rate == 0 {
		if i == 0 {
			return time.Now(), nil
		}
		err := c.wait(ctx, t.thinkTime)
		return time.Now(), err
	}
	due := start.Add(time.Duration(float64(i) / t.rate * float64(time.Second)))
	return due, c.wait(ctx, time.Until(due))
}

func (t transaction) ask(c *stream, p []byte, due time.Time) error {
	begin := time.Now()
	err := c.corked(func() error {
		for _, size := range t.writes {
			if err := c.send(p[:size]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.receive(t.reply); err != nil {
		return err
	}
	end := time.Now()
	c.latencies.Add(end.Sub(due))
	if t.rate > 0 {
		c.uncorrected.Add(end.Sub(begin))
	}
	return nil
}

func (t transaction) server(ctx context.Context, c *stream) error {
	var request uint64
	for _, size := range t.writes {
		request += uint64(size)
	}
	for i := range t.count {
		err := t.answer(ctx, c, request)
		if errors.Is(err, io.EOF) {
			break // the client's time was up
		}
		if err != nil {
			return fmt.Errorf("in transaction %d of %d: %w", i+1, t.count, err)
		}
	}
	// The last reply is only written: how TCP sends it is still to be seen, until
	// the client has it and ends.
	if err := c.ReceiveFIN(); err != nil && !c.ResetIsTheEnd(err) {
		return fmt.Errorf("after %d transactions: %w", t.count, err)
	}
	return nil
}

func (t transaction) answer(ctx context.Context, c *stream, request uint64) error {
	if err := c.receive(request); err != nil {
		return err
	}
	if err := wait(ctx, t.serverTime); err != nil {
		return err
	}
	return c.sendLong(t.reply)
}
