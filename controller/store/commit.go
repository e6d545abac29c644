package store

import (
	"context"
	"database/sql"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// maxTogether bounds the changes of one transaction, and so how long the first of them waits for the last.
const maxTogether = 256

// change is one who wants something written.
type change struct {
	make func(ctx context.Context, conn *sql.Conn) error
	then func() // nil: nothing
	err  error  // set before done is closed
	done chan struct{}
}

// committer writes for all: what is wanted while a transaction is put on disk goes into the next one together, so that many who
// write at a time share what the disk takes for one.
type committer struct {
	store   *Store
	changes chan *change
	stop    chan struct{}
	stopped chan struct{} // closed when nothing is written any more
}

// errClosed is the error of who writes to a store that is closed.
var errClosed = errors.New("the store is closed")

func newCommitter(s *Store) *committer {
	c := &committer{store: s, changes: make(chan *change), stop: make(chan struct{}), stopped: make(chan struct{})}
	go c.run() // until end
	return c
}

// end has what was begun be written, and nothing after it.
func (c *committer) end() {
	close(c.stop)
	<-c.stopped
}

func (c *committer) run() {
	defer close(c.stopped)
	for {
		select {
		case first := <-c.changes:
			c.settle(c.gather(first))
		case <-c.stop:
			return
		}
	}
}

// gather takes along who waits now.
func (c *committer) gather(first *change) []*change {
	all := []*change{first}
	for len(all) < maxTogether {
		select {
		case next := <-c.changes:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

// settle writes changes and tells those who wait for them. Where one ends the transaction of all, as a full disk
// does, each is tried once more by itself.
func (c *committer) settle(all []*change) {
	if len(all) == 1 || !c.commit(all) {
		for _, one := range all {
			one.err = nil
			c.commit([]*change{one})
		}
	}
	for _, one := range all {
		close(one.done)
	}
}

// commit writes changes in one transaction, and reports whether their errors are their own.
func (c *committer) commit(all []*change) (whole bool) {
	// None is interrupted: that would end the transaction of all (https://sqlite.org/c3ref/interrupt.html).
	ctx := context.Background()
	failed := func(err error) bool {
		for _, one := range all {
			one.err = err
		}
		return false
	}
	conn, err := c.store.writer.Conn(ctx)
	if err != nil {
		return failed(err)
	}
	defer conn.Close() // gives it back
	// Not sql.Tx: when its Commit fails the connection goes back to the pool
	// with the transaction still open.
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return failed(err)
	}
	changed := false
	for _, one := range all {
		switch err := apart(ctx, conn, one, len(all) > 1); {
		case err != nil:
			// Fails where SQLite has rolled back by itself, which is as good.
			_, _ = conn.ExecContext(ctx, "ROLLBACK")
			return failed(err)
		case one.err == nil:
			changed = true
		}
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
		return failed(err)
	}
	for _, one := range all {
		if one.err == nil && one.then != nil {
			one.then()
		}
	}
	if changed {
		c.store.changed.wake()
	}
	return true
}

// apart makes one change, so that it can fail without the others where there are some. The error is that of the whole transaction.
func apart(ctx context.Context, conn *sql.Conn, one *change, others bool) error {
	if !others {
		return one.make(ctx, conn)
	}
	if _, err := conn.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	if one.err = one.make(ctx, conn); one.err != nil {
		if _, err := conn.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return one.err
		}
	}
	_, err := conn.ExecContext(ctx, "RELEASE one")
	return err
}

// write makes a change, all of it or nothing. When it returns nil the change is on disk, and watchers see it. It may share its
// transaction with others' and be made twice, where the first was in vain: it only writes by conn and sets what it sets anew.
func (s *Store) write(ctx context.Context, op string, do func(ctx context.Context, conn *sql.Conn) error) error {
	return s.writeThen(ctx, op, do, nil)
}

// writeThen is write, and calls then once the change is on disk: in the order in which changes are, and before any later one
// is. It must not wait.
func (s *Store) writeThen(ctx context.Context, op string, do func(ctx context.Context, conn *sql.Conn) error, then func()) error {
	if s.commits == nil {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "ask the tcplab that drives it",
			"%s: another process drives the runs in %s", op, s.dir)
	}
	if err := ctx.Err(); err != nil {
		return storageError(s.dir, op, err)
	}
	one := &change{make: do, then: then, done: make(chan struct{})}
	select {
	case s.commits.changes <- one:
	case <-ctx.Done():
		return storageError(s.dir, op, ctx.Err())
	case <-s.commits.stopped:
		return storageError(s.dir, op, errClosed)
	}
	<-one.done // soon: it waits for the disk alone
	return storageError(s.dir, op, one.err)
}
