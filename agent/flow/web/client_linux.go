package web

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// client asks for the objects. It ends its loop when all are there or given up, and its
// connections have ended.
type client struct {
	side
	host   string         // what it calls the server
	to     netip.AddrPort // the server, or the first proxy
	dialer socket.Dialer

	begun    time.Time     // the first connect(2)
	ended    time.Time     // the last object was there, or given up
	heads    [][]byte      // of requests, by object; nil: not made yet
	next     uint64        // of all that is to be asked for, the number of the first that never was
	again    []task        // lost, to be asked for again
	open     []*clientConn // that may carry requests
	under    int           // requests under way
	thinkers int           // pauses of connections that are gone
	lasts    time.Duration // after which nothing more begins; 0: it ends by itself
	until    time.Time
	timeUp   bool // it has lasted so long
	timer    loop.Timer
	broken   error // no connection can be had

	seen clientSeen
}

// task is a request that is to be answered.
type task struct {
	object  int
	tries   int
	first   time.Time // when it was first asked for
	asked   time.Time // when it was last
	arrived time.Time // the first byte of its answer
	order   uint64    // of asking, on all connections
}

// clientSeen is what the client has measured.
type clientSeen struct {
	exchanges            []exchange // of a page, by object
	answers, failed      uint32
	cutShort, unseenCuts uint32
	retries, requests    uint32
	connections, reused  uint32
	peak                 int
	timeouts, overtaken  uint32
	asked, bodies        uint64 // bytes of bodies
	connect              latency.Set
	latency, firstByte   latency.Set
	documentDone         time.Time
	phases               phases
	failure              error // the first
	lastRead             time.Time
}

// exchange is what is known of one object.
type exchange struct {
	connection int
	place      int
	task       task
	done       time.Time
	bytes      uint64
	status     int
	err        error
	finished   bool
}

// phases are the parts of the first transaction.
type phases struct {
	connect, firstByte, body, total time.Duration
	known                           bool
}

// errTimeout says that the client gave up waiting.
var errTimeout = errors.New("the client gave up waiting")

// errLost says that an answer never began.
var errLost = errors.New("the connection ended before the answer")

// start begins to ask. It runs on the loop.
func (c *client) start(l *loop.Loop) error {
	c.begin(l)
	c.dialer = socket.Dialer{Spec: c.spec}
	c.afterClose = c.dispatch
	c.heads = make([][]byte, len(c.plan.objects))
	if !c.plan.isLoad() {
		c.seen.exchanges = make([]exchange, len(c.plan.objects))
	}
	if c.lasts > 0 {
		c.until = time.Now().Add(c.lasts)
		c.timer.Func = func() {
			c.timeUp = true
			c.dispatch()
		}
		l.Set(&c.timer, c.until)
	}
	c.dispatch()
	return nil
}

// left reports whether there is something to ask for.
func (c *client) left() bool {
	// The timer may come late, behind answers.
	c.timeUp = c.timeUp || c.lasts > 0 && !c.seen.lastRead.Before(c.until)
	switch {
	case c.broken != nil || c.timeUp:
		return false
	case len(c.again) > 0:
		return true
	case c.plan.duration > 0:
		return true
	case c.plan.requests > 0:
		return c.next < c.plan.requests
	case c.plan.leading && c.next == 1 && !c.seen.exchanges[0].finished:
		return false
	}
	return c.next < uint64(len(c.plan.objects))
}

// exhausted reports whether nothing will be asked for any more but what is lost from now on.
func (c *client) exhausted() bool {
	waits := c.plan.leading && c.next == 1 && len(c.plan.objects) > 1
	return !c.left() && !waits
}

// peek is the object of the next task.
func (c *client) peek() *object {
	if len(c.again) > 0 {
		return &c.plan.objects[c.again[0].object]
	}
	return &c.plan.objects[c.next%uint64(len(c.plan.objects))]
}

// take is the next task.
func (c *client) take() task {
	if len(c.again) > 0 {
		t := c.again[0]
		c.again = c.again[1:]
		return t
	}
	t := task{object: int(c.next % uint64(len(c.plan.objects)))}
	c.next++
	return t
}

// dispatch hands out what is to be asked for, and ends when all is done.
func (c *client) dispatch() {
	for c.left() {
		conn := c.place()
		if conn == nil {
			break
		}
		conn.ask(c.take())
	}
	if c.left() || c.under > 0 {
		return
	}
	if c.ended.IsZero() {
		c.ended = time.Now()
	}
	for _, conn := range c.open {
		conn.retire()
	}
	if len(c.conns) == 0 {
		c.loop.End(nil)
	}
}

// place is the connection on which to ask next: one that is idle, or a new one, or else
// the pipeline with the fewest under way; nil where there is none.
func (c *client) place() *clientConn {
	var best *clientConn
	next := c.peek()
	for _, conn := range c.open {
		if conn.takes(next) && (best == nil || len(conn.under) < len(best.under)) {
			best = conn
		}
	}
	if best != nil && len(best.under) == 0 || len(c.open)+c.thinkers >= c.plan.client.connections {
		return best
	}
	conn, err := c.dial()
	if err != nil {
		c.breakOff(fmt.Errorf("connecting from %s to %s: %w", c.spec.Addr, c.to, err))
		return nil
	}
	return conn
}

// dial opens a connection.
func (c *client) dial() (*clientConn, error) {
	conn := &clientConn{client: c}
	err := c.dialer.Dial(func(port uint16) error {
		fd, err := c.spec.Open(port, unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		conn.called = time.Now()
		if c.begun.IsZero() {
			c.begun = conn.called
		}
		if err := fd.Connect(c.to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			fd.Close()
			return err
		}
		conn.conn, err = c.adopt(fd, conn, connecting)
		return err
	})
	if err != nil {
		return nil, err
	}
	conn.begin()
	c.open = append(c.open, conn)
	c.seen.peak = max(c.seen.peak, len(c.open))
	return conn, nil
}

// breakOff ends the flow: nothing can be asked for any more.
func (c *client) breakOff(err error) {
	if c.broken != nil {
		return
	}
	c.broken = err
	c.fail(err)
	for _, t := range c.again {
		c.finish(t, nil, 0, err)
	}
	c.again = nil
}

func (c *client) fail(err error) {
	if c.seen.failure == nil {
		c.seen.failure = err
	}
}

// lost deals with a task whose answer never began.
func (c *client) lost(t task, conn *clientConn, err error) {
	if c.broken == nil && t.tries <= c.plan.client.retries && isIdempotent(c.plan.objects[t.object].method) {
		c.seen.retries++
		c.again = append(c.again, t)
		return
	}
	c.finish(t, conn, 0, err)
}

// finish takes note of what became of a task: an error says that it was given up.
func (c *client) finish(t task, conn *clientConn, bytes uint64, err error) {
	c.finishAt(time.Now(), t, conn, bytes, err)
}

// finishAt is finish of what has ended at that time.
func (c *client) finishAt(now time.Time, t task, conn *clientConn, bytes uint64, err error) {
	o := &c.plan.objects[t.object]
	if err != nil {
		c.seen.failed++
		c.fail(fmt.Errorf("%s %s: %w", o.method, o.target, err))
	} else {
		c.seen.answers++
		if bytes < o.answerBytes() {
			c.seen.unseenCuts++
		}
		c.seen.latency.Add(now.Sub(t.first))
		c.seen.firstByte.Add(t.arrived.Sub(t.asked))
	}
	if c.seen.exchanges == nil {
		return
	}
	e := &c.seen.exchanges[t.object]
	e.task, e.done, e.bytes, e.err, e.finished = t, now, bytes, err, true
	if conn != nil {
		e.connection, e.place, e.status = conn.number, conn.answers, conn.status
	}
	if c.plan.leading && t.object == 0 {
		c.seen.documentDone = now
	}
}

// errorOf makes an error of a connection say how it ends a flow.
func errorOf(reset bool, err error) error {
	switch {
	case errors.Is(err, errTimeout):
		return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE, err)
	case reset:
		return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, err)
	}
	return flow.WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY, err)
}
