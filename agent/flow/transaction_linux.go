package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tcplab/tcplab/labs/pace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// transaction sends requests and reads replies, one after another on each connection. What is
// one write of the lab is one write(2), and nothing is read between a
// request's writes: how they become segments is TCP's business, and often what
// the lab is about.
//
// Of several connections nobody knows beforehand how many transactions each has: the client ends
// it when none is left, and the server with it.
type transaction struct {
	writes     []uint32      // sizes in bytes
	reply      uint64        // bytes
	turns      *turns        // of all connections
	thinkTime  time.Duration // the client's, between a reply and the next request
	serverTime time.Duration // between a request and its reply
	plan       *pace.Plan    // when requests are due; nil: a closed loop
}

// newTransactions are the connections of a flow of transactions.
func newTransactions(spec *tcplabv1.Transaction) ([]kind, error) {
	count, connections := max(spec.GetCount(), 1), max(spec.GetConnections(), 1)
	if count < connections {
		return nil, fmt.Errorf("%d transactions are less than one for each of %d connections", count, connections)
	}
	t := transaction{
		writes:     spec.GetWrites(),
		reply:      spec.GetReply(),
		turns:      newTurns(count, connections),
		thinkTime:  spec.GetThinkTime().AsDuration(),
		serverTime: spec.GetServerTime().AsDuration(),
	}
	if rate := spec.GetRate(); rate != 0 {
		if t.thinkTime > 0 {
			return nil, fmt.Errorf("transactions at %v a second with a think time of %s", rate, t.thinkTime)
		}
		steps := make([]pace.Step, len(spec.GetRateSchedule()))
		for i, s := range spec.GetRateSchedule() {
			steps[i] = pace.Step{At: s.GetAt().AsDuration(), Rate: s.GetRate()}
		}
		var err error
		if t.plan, err = pace.New(rate, steps); err != nil {
			return nil, err
		}
	}
	if len(t.writes) == 0 || t.reply == 0 {
		return nil, errors.New("a transaction needs at least one write and a reply of at least 1 byte")
	}
	for _, size := range t.writes {
		if size == 0 || size > maxWrite {
			return nil, fmt.Errorf("a write of %d bytes: 1 to %d are possible", size, maxWrite)
		}
	}
	return slices.Repeat([]kind{t}, int(connections)), nil
}

func (transaction) name() string  { return "transaction" }
func (transaction) forward() bool { return false }

func (t transaction) client(ctx context.Context, c *stream) error {
	p := make([]byte, slices.Max(t.writes))
	i, more, err := t.turns.join(ctx, c)
	if err != nil {
		return fmt.Errorf("waiting until all %d connections stand: %w", t.turns.connections, err)
	}
	for more {
		begin, err := t.await(ctx, c, i)
		if err == nil && i > 0 && c.over() {
			return nil
		}
		if err == nil {
			err = t.ask(c, p, begin)
		}
		if err != nil {
			return fmt.Errorf("in transaction %d of %d: %w", i+1, t.turns.count, err)
		}
		if t.turns.left() {
			if err := c.wait(ctx, t.thinkTime); err != nil {
				return fmt.Errorf("after transaction %d of %d: %w", i+1, t.turns.count, err)
			}
		}
		i, more = t.turns.take()
	}
	return nil
}

// await waits until a transaction may begin and returns from when its latency counts: in
// an open loop from when it was due, late or not.
func (t transaction) await(ctx context.Context, c *stream, i uint32) (time.Time, error) {
	if t.plan == nil {
		return time.Now(), nil
	}
	due := t.turns.start.Add(t.plan.Due(float64(i)))
	return due, c.wait(ctx, time.Until(due))
}

func (t transaction) ask(c *stream, p []byte, due time.Time) error {
	begin := due
	if t.plan != nil {
		begin = time.Now()
	}
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
	c.latencies.Add(c.lastRead.Sub(due))
	if t.plan != nil {
		c.uncorrected.Add(c.lastRead.Sub(begin))
	}
	return nil
}

func (t transaction) server(ctx context.Context, c *stream) error {
	var request uint64
	for _, size := range t.writes {
		request += uint64(size)
	}
	c.limited = c.limited || t.turns.connections > 1
	var served uint32
	for ; served < t.turns.count; served++ {
		err := t.answer(ctx, c, request)
		if errors.Is(err, io.EOF) {
			break // the client's time was up, or other connections took what was left
		}
		if err != nil {
			return fmt.Errorf("in transaction %d of %d: %w", served+1, t.turns.count, err)
		}
	}
	// The last reply is only written: how TCP sends it is still to be seen, until
	// the client has it and ends.
	if err := c.ReceiveFIN(); err != nil && !c.ResetIsTheEnd(err) {
		return fmt.Errorf("after %d transactions: %w", served, err)
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
