package connect

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// conn is one end of one connection.
type conn struct {
	*end
	fd        socket.FD
	phase     phase
	watched   uint32 // events for which the loop watches fd; 0: not yet
	broken    bool   // the loop said that there is an error
	finished  bool   // the loop said that the peer has ended: nothing comes behind what is there
	left      int    // bytes of the message under way
	exchanges uint32 // still to be done
	deferred  bool   // the SYN goes with the first write (Fast Open)
	released  bool   // this end's work on it is done: what is left is the kernel's
	due       time.Time
	began     time.Time // when connect(2) was called
	asked     time.Time // when the request under way was begun
	timer     loop.Timer
	pause     time.Duration // of a server that waits until its reply is acknowledged
}

// phase is what a connection is at.
type phase uint8

const (
	dialing   phase = iota // the handshake
	sending                // a request or a reply
	receiving              // a request or a reply
	holding                // idle, until this end ends it
	parting                // this end is to end it, or the peer to do so
	ending                 // this end's FIN is sent: until nothing is left
	gone                   // the descriptor is closed
)

// again says that there is nothing to do until the loop calls.
const again = unix.EAGAIN

// Ready is the loop's call.
func (c *conn) Ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		c.broken = true
	}
	if events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		c.finished = true
	}
	c.advance()
}

// advance does what can be done now.
func (c *conn) advance() {
	for c.phase != gone {
		err := c.turn()
		if err == nil {
			continue
		}
		if isAgain(err) {
			err = c.watch()
			if err == nil {
				return
			}
		}
		c.fail(err)
	}
}

func isAgain(err error) bool {
	return errors.Is(err, again) || errors.Is(err, unix.EINPROGRESS) // the latter of a Fast Open without a cookie
}

func (c *conn) turn() error {
	switch c.phase {
	case dialing:
		return c.stand()
	case sending:
		return c.send()
	case receiving:
		return c.receive()
	case holding:
		return c.expectSilence()
	case parting:
		return c.part()
	default:
		return c.vanish()
	}
}

// watch has the loop call for what the phase waits for.
func (c *conn) watch() error {
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
	if c.phase == dialing || c.phase == sending {
		events |= unix.EPOLLOUT
	}
	var err error
	switch {
	case c.watched == 0:
		err = c.loop.Add(int(c.fd), events, c)
	case c.watched&events != events:
		err = c.loop.Rearm(int(c.fd), events)
	default:
		return nil
	}
	c.watched = events
	return err
}

// stand looks whether the handshake is over. Over an unshaped veth it is, before connect(2) returns.
func (c *conn) stand() error {
	state, err := c.fd.State()
	if err != nil {
		return err
	}
	switch state {
	case observe.StateSynSent, observe.StateSynReceived:
		if !c.deferred {
			return again
		}
	case observe.StateClose:
		// What is reset has stood: a handshake is refused.
		if err = c.fd.Err(); err != nil && !errors.Is(err, unix.ECONNRESET) {
			return err
		}
	}
	c.loop.Stop(&c.timer)
	c.stood(c)
	c.exchange()
	if err != nil && c.phase == parting && c.abort && !c.first {
		c.done()
		return nil
	}
	return err
}

// exchange begins the next exchange, or what comes behind the last.
func (c *conn) exchange() {
	switch {
	case c.exchanges == 0:
		c.rest()
	case c.asks:
		c.phase, c.left, c.asked = sending, c.plan.request, time.Now()
	default:
		c.phase, c.left = receiving, c.plan.request
	}
}

func (c *conn) send() error {
	for c.left > 0 {
		n, err := c.fd.Send(c.zeros[:min(c.left, len(c.zeros))])
		c.left -= n
		c.written += uint64(n)
		if err != nil {
			return err
		}
	}
	if c.asks {
		c.phase, c.left = receiving, c.plan.reply
		if c.watched == 0 {
			return again // the reply is not there yet, and if it is the loop says so at once
		}
		return nil
	}
	c.exchanges--
	c.exchange()
	return nil
}

func (c *conn) receive() error {
	for c.left > 0 {
		if err := c.fd.PrepareRead(c.spec.Options, min(c.left, len(c.zeros))); err != nil {
			return err
		}
		// One byte more than there should be: nobody speaks out of turn.
		n, err := c.fd.Discard(c.zeros[:min(c.left+1, len(c.zeros))])
		switch {
		case err != nil:
			return err
		case n == 0:
			return flow.ErrEnded
		case n > c.left:
			c.read += uint64(n)
			return socket.ErrTooMuch
		}
		c.left -= n
		c.read += uint64(n)
		if !c.asks && c.plan.fault == tcplabv1.FlowFault_FLOW_FAULT_RESET {
			c.leave()
			return nil
		}
	}
	if !c.asks {
		c.phase, c.left = sending, c.plan.reply
		return nil
	}
	c.lastRead = time.Now()
	c.answered(c)
	c.exchanges--
	c.exchange()
	return nil
}

// rest is what comes behind the last exchange.
func (c *conn) rest() {
	c.served(c)
	c.phase = parting
	if c.first && c.plan.hold > 0 {
		c.phase = holding
		c.after(c.plan.hold, func() {
			c.phase = parting
			c.advance()
		})
	}
}

// after sets the connection's timer.
func (c *conn) after(d time.Duration, f func()) {
	c.timer.Func = f
	c.loop.Set(&c.timer, time.Now().Add(d))
}

// expectSilence reads what must not be there.
func (c *conn) expectSilence() error {
	switch n, err := c.fd.Discard(c.zeros[:1]); {
	case err != nil:
		return err
	case n == 0:
		return flow.ErrEnded
	default:
		return socket.ErrTooMuch
	}
}

// part ends the connection where this end goes first, and else waits until the peer does.
func (c *conn) part() error {
	switch {
	case c.first && c.abort:
		return c.reset()
	case !c.first && !c.finished:
		return again
	case !c.first:
		err := c.expectSilence()
		if c.abort && errors.Is(err, unix.ECONNRESET) {
			c.done()
			return nil
		}
		if !errors.Is(err, flow.ErrEnded) {
			return err
		}
	}
	if err := c.fd.FinishWriting(); err != nil {
		return err
	}
	c.phase = ending
	c.release()
	if err := c.vanish(); !isAgain(err) {
		return err
	}
	c.after(c.spec.Patience(0), c.giveUp)
	return again
}

// reset ends the connection with a reset, once the peer has all that was sent to it.
func (c *conn) reset() error {
	unsent, err := c.fd.Unsent()
	if err != nil {
		return err
	}
	if unsent == 0 {
		c.done()
		return nil
	}
	const longestPause = 20 * time.Millisecond
	c.pause = min(max(2*c.pause, 100*time.Microsecond), longestPause)
	c.after(c.pause, c.advance)
	return again
}

// vanish looks whether nothing is left of the connection. The last ACK is an event.
func (c *conn) vanish() error {
	if !c.fd.HasEnded() {
		return again
	}
	if c.broken {
		if err := c.fd.Err(); err != nil {
			return err
		}
	}
	c.done()
	return nil
}

// giveUp is for an exchange of FINs that takes too long: a round trip may be long too.
func (c *conn) giveUp() {
	if info, err := observe.ReadInfo(int(c.fd)); err == nil && c.pause == 0 {
		c.pause = c.spec.Patience(info.RTT) - c.spec.Patience(0)
		if c.pause > 0 {
			c.after(c.pause, c.giveUp)
			return
		}
	}
	c.disorderly++
	c.leave()
}

// done is the end of a connection that did all it should.
func (c *conn) done() {
	c.completed++
	c.leave()
}

func (c *conn) fail(err error) {
	c.failed(fmt.Errorf("%s: %w", c.doing(), err))
	c.leave()
}

// doing says what the connection was at, for a message.
func (c *conn) doing() string {
	switch c.phase {
	case dialing:
		return "connecting"
	case sending, receiving:
		return "exchanging data"
	case holding:
		return "idle"
	}
	return "ending the connection"
}

// leave closes the descriptor, which resets a connection that has not ended.
func (c *conn) leave() {
	c.phase = gone
	c.loop.Stop(&c.timer)
	if c.watched != 0 {
		c.loop.Close(int(c.fd))
	} else {
		c.fd.Close()
	}
	c.open--
	c.release()
	if c.open == 0 {
		c.idle()
	}
}

// release tells, once, that this end's work on the connection is done.
func (c *conn) release() {
	if !c.released {
		c.released = true
		c.freed()
	}
}
