package socket

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Socket is a TCP socket with a blocking descriptor. One goroutine, its owner,
// makes the calls that wait and closes it; any other may interrupt it and read
// its state at any time.
type Socket struct {
	FD
	asked    *tcplabv1.SocketOptions // what is set anew at each call; may be nil
	zerocopy zerocopy
	stopped  atomic.Bool // interrupted: the owner is to make no further call

	mu   sync.Mutex
	open bool         // fd is this socket's and nobody else's
	last observe.Info // before it was interrupted; its state is 0 until then
}

var (
	errSocketClosed = errors.New("the socket is closed")
	errStopped      = errors.New("the socket was interrupted")
)

// New is a socket of a blocking descriptor, which it takes over; asked are the options that are
// set anew at each call, and may be nil.
func New(fd FD, asked *tcplabv1.SocketOptions) *Socket {
	return &Socket{FD: fd, open: true, asked: asked}
}

// Socket makes a blocking socket as Open does, from any thread.
func (s *Spec) Socket(port uint16) (*Socket, error) {
	fd := FD(-1)
	err := s.NS.Do(func() (err error) {
		fd, err = s.Open(port, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return New(fd, s.Options), nil
}

// Guard interrupts the socket when ctx ends, until it is released. The owner
// releases before it closes.
func (s *Socket) Guard(ctx context.Context) (release func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		// Shutting down the reading side wakes all but a write and sends no FIN,
		// which the peer would take for an orderly end: it is to see the reset of
		// close. What is left after that is a write, or a connect(2) that came
		// after the shutdown meant for it.
		how := unix.SHUT_RD
		for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
			s.Interrupt(how)
			how = unix.SHUT_RDWR
			select {
			case <-done:
				return
			case <-time.After(pause):
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// Interrupt shuts the socket down, which wakes calls that wait on it: with
// SHUT_RD reads, accept and connect, with SHUT_RDWR writes too.
func (s *Socket) Interrupt(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return
	}
	s.stopped.Store(true)
	if s.last.State == 0 {
		if info, err := observe.ReadInfo(int(s.FD)); err == nil {
			s.last = info
		}
	}
	// An error says that there is no connection to shut down any more.
	_ = unix.Shutdown(int(s.FD), how)
}

// Info is TCP_INFO now, or as it was before an interruption. Once the socket is
// closed it is an error.
func (s *Socket) Info() (observe.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return observe.Info{}, errSocketClosed
	}
	if s.last.State != 0 {
		return s.last, nil
	}
	return observe.ReadInfo(int(s.FD))
}

// CongestionInfo is what the congestion control of that name says of itself now. Once the socket is closed it is an
// error.
func (s *Socket) CongestionInfo(control string) (observe.Congestion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return observe.Congestion{}, errSocketClosed
	}
	return observe.ReadCongestion(int(s.FD), control)
}

// Close closes the socket, and resets its connection unless that has ended in
// order. It may be called again.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil
	}
	s.open = false
	return s.FD.Close()
}

// Accept waits for a connection.
func (s *Socket) Accept() (*Socket, error) {
	fd, err := s.FD.Accept(0)
	if err != nil {
		return nil, err
	}
	return New(fd, s.asked), nil
}

// Write sends all of p, in one call unless a signal cuts it short, and returns
// how much the kernel took.
func (s *Socket) Write(p []byte) (int, error) {
	for n := 0; ; {
		if s.stopped.Load() {
			return n, errStopped
		}
		m, err := s.sendAtOnce(p[n:])
		if errors.Is(err, unix.EAGAIN) {
			m, err = s.send(p[n:], 0)
		}
		n += m
		if n == len(p) || err != nil && !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// CorksMessages reports whether the lab wants a message of several writes corked.
func (s *Socket) CorksMessages() bool { return s.asked.GetCork() }

// Cork keeps back a last segment that is not full, until it is taken off. MSG_MORE
// would not do: it holds for its own call, and the next ACK to arrive sends what
// it kept back.
func (s *Socket) Cork(on bool) error {
	return s.SetCork(on)
}

// Discard reads as many bytes as p is long, or up to the end of the stream, and
// throws them away inside the kernel (MSG_TRUNC, tcp(7)): p is never touched.
func (s *Socket) Discard(p []byte) (int, error) {
	for n := 0; ; {
		if s.stopped.Load() {
			return n, errStopped // data may go on coming
		}
		all, err := s.prepareRead(len(p) - n)
		if err != nil {
			return n, err
		}
		m, err := s.recv(p[n:], all|unix.MSG_TRUNC)
		n += m
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case n == len(p):
			return n, nil
		case m == 0 && s.stopped.Load():
			return n, errStopped // the end of the stream is the interruption's
		case m == 0:
			return n, io.EOF
		}
	}
}

// DiscardSome is Discard for what is there, once there is something; 0 is the end of the
// stream.
func (s *Socket) DiscardSome(p []byte) (int, error) {
	if s.stopped.Load() {
		return 0, errStopped
	}
	if _, err := s.prepareRead(len(p)); err != nil {
		return 0, err
	}
	n, err := s.FD.Discard(p)
	if n == 0 && err == nil && s.stopped.Load() {
		err = errStopped // as in Discard
	}
	return n, err
}

// prepareRead sets what holds for one read of so many bytes and returns the flag with
// which to read. Within a call that waits for all the low-water mark could not follow.
func (s *Socket) prepareRead(size int) (all int, err error) {
	if s.asked.GetRcvlowat() == 0 {
		all = unix.MSG_WAITALL
	}
	return all, s.PrepareRead(s.asked, size)
}

// FinishWriting tells the peer that no more will come. It may be called while the
// owner writes: what the kernel has taken by then is still sent.
func (s *Socket) FinishWriting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return errSocketClosed
	}
	return s.FD.FinishWriting()
}
