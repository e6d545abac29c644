package connect

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
)

// client begins the connections.
type client struct {
	end
	dialer  socket.Dialer
	to      netip.AddrPort
	address netip.AddrPort // of the first connection

	pacer   loop.Timer
	pumping bool
	start   time.Time     // of the flow
	pause   time.Duration // before the next, in a closed loop
	busy    int           // connections under way, by Connect.concurrency
	peak    int

	attempted, made uint64
	firstBegan      time.Time
	lastStood       time.Time
	connects        latency.Set
	latencies       latency.Set
	uncorrected     latency.Set
	requests        latency.Set
}

const (
	// batch is how many connections are begun before others get their turn.
	batch = 64
	// failurePause is what a closed loop waits behind a connection that failed: attempts that fail at
	// once, as those without a port do, would else keep the thread from all the others.
	failurePause = time.Millisecond
)

func newClient(p *plan, spec socket.Spec, to netip.AddrPort) *client {
	c := &client{end: newEnd(p, spec), dialer: socket.Dialer{Spec: spec}, to: to}
	c.pacer.Func = c.pump
	c.end.stood = c.stood
	c.answered = func(k *conn) { c.requests.Add(c.lastRead.Sub(k.asked)) }
	c.end.served = c.served
	c.freed = func() {
		c.busy--
		c.pump()
	}
	c.idle = c.pump
	return c
}

// begin starts the flow on its loop.
func (c *client) begin(l *loop.Loop) error {
	c.loop, c.start = l, time.Now()
	l.Set(&c.pacer, c.start)
	return nil
}

// pump begins the connections that are due, as far as may be under way at once, and sets the time
// of the next; at last it ends the loop.
func (c *client) pump() {
	if c.pumping {
		return // called by a connection that pump began
	}
	c.pumping = true
	defer func() { c.pumping = false }()
	for n := 0; ; n++ {
		now := time.Now()
		due, more := c.next(now)
		switch {
		case !more:
			c.loop.Stop(&c.pacer)
			if c.open == 0 {
				c.loop.End(nil)
			}
			return
		case c.busy >= c.plan.concurrency:
			return // the end of one pumps again
		case due.After(now):
			c.loop.Set(&c.pacer, due)
			return
		case n == batch:
			c.loop.Set(&c.pacer, now)
			return
		}
		c.connect(due)
	}
}

// next is when the next connection is due; more is false where none is to come.
func (c *client) next(now time.Time) (due time.Time, more bool) {
	p := c.plan
	if p.count > 0 && c.attempted >= p.count {
		return due, false
	}
	due = now
	if p.apart > 0 {
		due = c.start.Add(p.due(c.attempted))
	} else if c.pause > 0 {
		due, c.pause = now.Add(c.pause), 0
	}
	return due, p.duration == 0 || due.Sub(c.start) < p.duration
}

// connect begins one connection.
func (c *client) connect(due time.Time) {
	k := &conn{end: &c.end, due: due, exchanges: c.plan.requests, fd: -1}
	c.attempted++
	err := c.dialer.Dial(func(port uint16) error {
		fd, err := c.spec.Open(port, unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		k.began = time.Now()
		err = fd.Connect(c.to)
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			fd.Close()
			return err
		}
		k.fd, k.deferred = fd, err == nil
		return nil
	})
	if c.firstBegan.IsZero() {
		c.firstBegan = k.began
	}
	if err != nil {
		c.failed(fmt.Errorf("connecting: %w", err))
		c.pause = failurePause
		return
	}
	c.open++
	c.busy++
	c.peak = max(c.peak, c.busy)
	if c.plan.connectTimeout > 0 {
		k.after(c.plan.connectTimeout, func() { k.fail(unix.ETIMEDOUT) })
	}
	k.advance()
}

// stood counts a handshake.
func (c *client) stood(k *conn) {
	c.made++
	c.lastStood = time.Now()
	c.connects.Add(c.lastStood.Sub(k.began))
	if c.made == 1 {
		c.address = k.fd.Local()
		c.readBack(k)
	}
}

// served counts the latency of a connection.
func (c *client) served(k *conn) {
	now := time.Now()
	c.latencies.Add(now.Sub(k.due))
	if c.plan.apart > 0 {
		c.uncorrected.Add(now.Sub(k.began))
	}
}

// rate is how many handshakes were completed a second.
func (c *client) rate() float64 {
	took := c.lastStood.Sub(c.firstBegan)
	if c.made == 0 || took <= 0 {
		return 0
	}
	return float64(c.made) / took.Seconds()
}
