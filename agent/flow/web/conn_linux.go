package web

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
)

// owner is whose a connection is: what it makes of what comes.
type owner interface {
	// connected: the connection that was asked for stands.
	connected()
	// wants reports whether it would read now.
	wants() bool
	// input takes what came and returns how much; less than all only where it
	// wants no more for now.
	input(in []byte) (used int)
	// skippable is how much of what comes is thrown away whatever it is, and skipped
	// says how much was.
	skippable() uint64
	skipped(n uint64)
	// flushed: all output was handed to the kernel.
	flushed()
	// ended: nothing more comes. The error says why, if it was not the peer's FIN; then the
	// connection is gone. Called once, and not where the owner ended the connection.
	ended(err error)
	// closed: the descriptor is gone. Called once, last of all.
	closed()
}

// conn is a connection on a loop.
type conn struct {
	*side
	owner  owner
	fd     socket.FD
	number int // from 1, of its side
	state  connState
	out    output
	rest   []byte // what came and was not taken yet

	readable bool // there may be something to read
	last     bool // the peer has ended or broken it: read on until that shows
	eof      bool // the peer's FIN was read
	reset    bool // a reset was met
	corked   bool
	pumping  bool

	traffic
	patience loop.Timer
	watch    *observe.Watch
}

// connState is what a connection is at.
type connState int

const (
	connecting connState = iota
	standing
	draining // this end has ended, and reads on to the peer's end
	closed
)

// How long an end waits for its connection to end in order, since it last heard of the peer: for
// a lost FIN to be sent again a few times (as package flow/socket has it).
const (
	patienceBase       = 3 * time.Second
	patienceRoundTrips = 8
)

const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP

// adopt makes a connection of a descriptor and adds it to the loop.
func (s *side) adopt(fd socket.FD, o owner, state connState) (*conn, error) {
	s.number++
	c := &conn{side: s, owner: o, fd: fd, number: s.number, state: state}
	c.patience.Func = c.outOfPatience
	if err := s.loop.Add(int(fd), edges, c); err != nil {
		fd.Close()
		return nil, err
	}
	s.conns[c] = struct{}{}
	if state == standing {
		s.watched(c)
	}
	return c, nil
}

// Ready is the loop's word that something can be done.
func (c *conn) Ready(events uint32) {
	if c.state == connecting {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		if err := c.fd.Err(); err != nil {
			c.fail(err)
			return
		}
		c.state = standing
		c.watched(c)
		c.owner.connected()
	}
	if c.state == closed {
		return
	}
	const broken = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|broken) != 0 {
		c.readable = true
		c.last = c.last || events&broken != 0
	}
	if events&unix.EPOLLOUT != 0 && !c.out.empty() {
		c.flush()
	}
	c.pump()
	if c.state == standing && events&unix.EPOLLERR != 0 && !c.owner.wants() {
		// Who does not read would never know.
		err := c.fd.Err()
		if err == nil {
			err = unix.ECONNRESET
		}
		c.fail(err)
		return
	}
	if c.state == draining && c.eof && events&unix.EPOLLHUP != 0 {
		c.settle()
	}
}

// pump reads as long as there is something and its owner wants it. Where it is under
// way already it goes on by itself.
func (c *conn) pump() {
	if c.pumping {
		return
	}
	c.pumping = true
	defer func() { c.pumping = false }()
	for c.state == standing && c.owner.wants() {
		if rest := c.rest; len(rest) > 0 {
			used := c.owner.input(rest)
			if c.state == standing {
				c.rest = append(rest[:0], rest[used:]...)
			}
			continue
		}
		if !c.readable || !c.read() {
			break
		}
	}
	for c.state == draining && !c.eof && c.readable && c.readToEnd() {
		continue
	}
}

// read reads once, and reports whether to go on.
func (c *conn) read() bool {
	skip := c.owner.skippable()
	p, discard := c.buffer, skip >= readSize
	if discard {
		p = c.waste[:min(skip, discardSize)]
	}
	n, err := c.receive(p, discard)
	switch {
	case err == nil && n == 0:
		c.readable, c.eof = false, true
		c.owner.ended(nil)
		return false
	case errors.Is(err, unix.EAGAIN):
		c.readable = false
		return false
	case err != nil:
		c.fail(err)
		return false
	}
	// A stream that gave less than asked has no more; what comes is a new edge (epoll(7)).
	c.readable = n == len(p) || c.last
	if discard {
		c.owner.skipped(uint64(n))
		return true
	}
	used := c.owner.input(p[:n])
	if used < n && c.state == standing {
		c.rest = append(c.rest, p[used:n]...)
	}
	return true
}

func (c *conn) receive(p []byte, discard bool) (n int, err error) {
	if err := c.fd.PrepareRead(c.spec.Options, len(p)); err != nil {
		return 0, err
	}
	if discard {
		n, err = c.fd.Discard(p)
	} else {
		n, err = c.fd.ReceiveNow(p)
	}
	c.traffic.read += uint64(n)
	c.total.read += uint64(n)
	return n, err
}

// readToEnd throws away what still comes, once, and reports whether to go on.
func (c *conn) readToEnd() bool {
	n, err := c.receive(c.waste, true)
	switch {
	case err == nil && n == 0:
		c.readable, c.eof = false, true
		c.settle()
		return false
	case errors.Is(err, unix.EAGAIN):
		c.readable = false
		return false
	case err != nil:
		c.fail(err)
		return false
	}
	c.wait()
	return true
}

// send writes what is to be written, now or as soon as it can be.
func (c *conn) send() {
	if c.spec.Options.GetCork() && !c.corked {
		// An error would be the connection's, which the write meets too.
		c.corked = c.fd.SetCork(true) == nil
	}
	c.flush()
}

func (c *conn) flush() {
	if c.state != standing || c.out.empty() {
		return
	}
	before := c.traffic
	done, err := c.out.flush(c.fd, c.blocks, &c.written, &c.body)
	c.total.written += c.written - before.written
	c.total.body += c.body - before.body
	switch {
	case err != nil:
		// What the peer had sent before may still be read, and then its end.
		c.meetReset(err)
		c.out.drop()
		c.readable, c.last = true, true
	case done:
		if c.corked {
			c.corked = c.fd.SetCork(false) != nil
		}
		c.owner.flushed()
	}
}

// meetReset counts a reset once.
func (c *conn) meetReset(err error) {
	if c.reset || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		return
	}
	c.reset = true
	c.resets++
}

// fail gives a broken connection up.
func (c *conn) fail(err error) {
	c.meetReset(err)
	tell := c.state != draining
	c.shut()
	if tell {
		c.owner.ended(err)
	}
	c.owner.closed()
	c.gone()
}

// drain ends this side of the connection, reads on to the peer's end, and closes when
// that is there. Its output should be written.
func (c *conn) drain() {
	if c.state != standing {
		return
	}
	c.stopWatch()
	c.rest = nil
	if linger := c.spec.Options; linger != nil && linger.Linger != nil && linger.GetLinger().AsDuration() == 0 && !c.eof {
		c.abort()
		return
	}
	if err := c.fd.FinishWriting(); err != nil {
		c.meetReset(err)
		c.abort()
		return
	}
	c.state = draining
	c.wait()
	c.readable = !c.eof
	if c.eof {
		c.settle()
	}
}

// finishWriting ends this side, and the owner reads on.
func (c *conn) finishWriting() {
	if err := c.fd.FinishWriting(); err != nil {
		c.meetReset(err)
	}
}

// wait sets how long the peer may be silent.
func (c *conn) wait() {
	patience := patienceBase
	if o := c.spec.Options; o != nil && o.GetLinger().AsDuration() > 0 {
		patience = o.GetLinger().AsDuration()
	} else if info, err := observe.ReadInfo(int(c.fd)); err == nil {
		patience += patienceRoundTrips * info.RTT
	}
	c.loop.Set(&c.patience, time.Now().Add(patience))
}

func (c *conn) outOfPatience() {
	c.log.Warn("connection reset, as it did not end in order", "flow", c.flow, "end", c.name, "connection", c.number)
	c.abort()
}

// settle closes the connection if it has ended at both sides; else the last ACK
// will tell.
func (c *conn) settle() {
	if c.fd.HasEnded() {
		c.abort()
	}
}

// abort closes the connection now: with a reset, unless it has ended.
func (c *conn) abort() {
	if c.state == closed {
		return
	}
	c.shut()
	c.owner.closed()
	c.gone()
}

// letGo closes both sides at once and leaves the rest to the kernel.
func (c *conn) letGo() {
	if c.state == closed {
		return
	}
	if err := c.fd.LetGo(patienceBase); err != nil {
		c.log.Warn("connection reset instead of closed", "flow", c.flow, "end", c.name, "error", err)
	}
	c.abort()
}

// shut closes the descriptor.
func (c *conn) shut() {
	c.stopWatch()
	c.loop.Stop(&c.patience)
	c.state = closed
	c.out.drop()
	c.rest = nil
	delete(c.conns, c)
	if err := c.loop.Close(int(c.fd)); err != nil {
		c.log.Error("close a socket", "flow", c.flow, "end", c.name, "error", err)
	}
}

func (c *conn) gone() {
	if c.afterClose != nil {
		c.afterClose()
	}
}

// stopWatch takes the last sample.
func (c *conn) stopWatch() {
	if c.watch == nil {
		return
	}
	series := c.watch.Stop()
	c.watch = nil
	c.sampled += series.Count
	if c.number == 1 {
		c.first.series = series
		c.first.congestion = c.fd.Congestion()
		c.first.options = c.fd.ReadOptions(&c.spec)
	}
}

func number(n int) string { return strconv.Itoa(n) }
