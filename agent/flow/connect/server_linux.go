package connect

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// server accepts the connections.
type server struct {
	end
	listener socket.FD
	started  chan *loop.Loop // gets the loop once it runs
	accepted uint64
	closing  bool // no connection is to come any more
	retry    loop.Timer
}

// acceptPause is how long a server without a descriptor to spare lets connections wait.
const acceptPause = 10 * time.Millisecond

func newServer(p *plan, spec socket.Spec, listener socket.FD) *server {
	s := &server{end: newEnd(p, spec), listener: listener, started: make(chan *loop.Loop, 1)}
	s.retry.Func = s.accept
	s.idle = func() {
		if s.closing {
			s.loop.End(nil)
		}
	}
	return s
}

// begin starts the server on its loop, which takes the listener over. One that is to be deaf, or to
// refuse, never looks at it.
func (s *server) begin(l *loop.Loop) error {
	s.loop = l
	events := uint32(unix.EPOLLIN)
	if !s.accepts() {
		events = 0
	}
	if err := l.Add(int(s.listener), events, s); err != nil {
		return err
	}
	s.started <- l
	return nil
}

func (s *server) accepts() bool {
	return s.plan.fault == tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED || s.plan.fault == tcplabv1.FlowFault_FLOW_FAULT_RESET
}

// Ready is the loop's call: there are connections. Of a port that does not listen it says that there is no
// connection.
func (s *server) Ready(uint32) { s.accept() }

func (s *server) accept() {
	if !s.accepts() {
		return
	}
	for range batch {
		fd, err := s.listener.Accept(unix.SOCK_NONBLOCK)
		if isAgain(err) {
			return
		}
		if err != nil {
			s.failed(fmt.Errorf("accepting: %w", err))
			s.loop.Set(&s.retry, time.Now().Add(acceptPause))
			return
		}
		c := &conn{end: &s.end, fd: fd, exchanges: s.plan.requests}
		s.accepted++
		s.open++
		s.readBack(c)
		c.exchange()
		c.advance()
	}
	// Whoever is open gets a turn before the next.
	s.loop.Set(&s.retry, time.Now())
}

// last ends the loop once no connection is left. The client has ended all of its own: what is
// still to come is in the queue, or a retransmission away.
func (s *server) last() {
	s.accept()
	s.closing = true
	if s.open == 0 {
		s.loop.End(nil)
		return
	}
	patience := &loop.Timer{Func: func() {
		for range s.open {
			s.failed(fmt.Errorf("waiting for the client's end: %w", unix.ETIMEDOUT))
		}
		s.loop.End(nil)
	}}
	s.loop.Set(patience, time.Now().Add(2*s.spec.Patience(0)))
}
