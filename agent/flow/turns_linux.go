package flow

import (
	"context"
	"sync/atomic"
	"time"
)

// turns deals the transactions of a flow out to its connections: whichever is free takes the next. None
// begins before all connections stand.
type turns struct {
	count, connections uint32

	taken  atomic.Uint32
	joined atomic.Uint32
	all    chan struct{} // closed when all connections have joined
	start  time.Time     // when they had; once all is closed
}

func newTurns(count, connections uint32) *turns {
	return &turns{count: count, connections: connections, all: make(chan struct{})}
}

// join adds the client's end of a connection that stands, waits until all have joined, and takes the
// connection's first transaction: each has one. There is none to do where the flow's time is up before
// all stand.
func (t *turns) join(ctx context.Context, c *stream) (i uint32, more bool, err error) {
	i, more = t.take()
	if t.joined.Add(1) == t.connections {
		t.start = time.Now()
		close(t.all)
		return i, more, nil
	}
	var up <-chan time.Time
	if !c.until.IsZero() {
		timer := time.NewTimer(time.Until(c.until))
		defer timer.Stop()
		up = timer.C
	}
	select {
	case <-t.all:
		return i, more, nil
	case <-up:
		return 0, false, nil
	case <-ctx.Done():
		return 0, false, context.Cause(ctx)
	}
}

// left reports whether a transaction is left to be taken.
func (t *turns) left() bool { return t.taken.Load() < t.count }

// take takes the next transaction, counted from 0, if one is left.
func (t *turns) take() (uint32, bool) {
	n := t.taken.Add(1)
	return n - 1, n <= t.count
}
