package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// socket is a TCP socket with a blocking descriptor. One goroutine, its owner,
// makes the calls that wait and closes it; any other may interrupt it and read
// its state at any time.
type socket struct {
	fd      int
	asked   *tcplabv1.SocketOptions // what is set anew at each call; may be nil
	stopped atomic.Bool             // interrupted: the owner is to make no further call

	mu   sync.Mutex
	open bool         // fd is this socket's and nobody else's
	last observe.Info // before it was interrupted; its state is 0 until then
}

var (
	errSocketClosed = errors.New("the socket is closed")
	errStopped      = errors.New("the socket was interrupted")
)

// open makes a socket in the namespace of the end, with the lab's options, bound to
// the end's address and a port of the kernel's choice, or where it is not 0 to that port.
func open(end End, role string, options *tcplabv1.SocketOptions, port uint16) (*socket, error) {
	var s *socket
	err := end.NS.Do(func() (err error) {
		s, err = openHere(end, role, options, port)
		return err
	})
	return s, err
}

// openHere is open on a thread that is in the namespace already.
func openHere(end End, role string, options *tcplabv1.SocketOptions, port uint16) (_ *socket, err error) {
	family := unix.AF_INET
	if end.Addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("open a TCP socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := setOptions(fd, role, options); err != nil {
		return nil, err
	}
	if err := setCodePoint(fd, end.Addr.Is6(), options); err != nil {
		return nil, err
	}
	if port == 0 {
		// The port is chosen at connect(2) or listen(2): knowing the peer, the
		// kernel can use one local port for many.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return nil, fmt.Errorf("set how the port is bound: %w", err)
	}
	if ports := options.GetLocalPorts(); ports != nil && role == clientRole && port == 0 {
		limited, err := setLocalPorts(fd, ports)
		if err != nil {
			return nil, err
		}
		if !limited {
			return nil, errPortByPort
		}
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(end.Addr, port))); err != nil {
		return nil, fmt.Errorf("bind to %s: %w", netip.AddrPortFrom(end.Addr, port), err)
	}
	return &socket{fd: fd, open: true, asked: options}, nil
}

// errPortByPort says that this kernel cannot choose of a range of ports.
var errPortByPort = errors.New("ports are to be tried one by one")

// guard interrupts the socket when ctx ends, until it is released. The owner
// releases before it closes.
func (s *socket) guard(ctx context.Context) (release func()) {
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
			s.interrupt(how)
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

// interrupt shuts the socket down, which wakes calls that wait on it: with
// SHUT_RD reads, accept and connect, with SHUT_RDWR writes too.
func (s *socket) interrupt(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return
	}
	s.stopped.Store(true)
	if s.last.State == 0 {
		if info, err := observe.ReadInfo(s.fd); err == nil {
			s.last = info
		}
	}
	// An error says that there is no connection to shut down any more.
	_ = unix.Shutdown(s.fd, how)
}

// info is TCP_INFO now, or as it was before an interruption. Once the socket is
// closed it is an error.
func (s *socket) info() (observe.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return observe.Info{}, errSocketClosed
	}
	if s.last.State != 0 {
		return s.last, nil
	}
	return observe.ReadInfo(s.fd)
}

// close closes the socket, and resets its connection unless that has ended in
// order. It may be called again.
func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil
	}
	s.open = false
	return unix.Close(s.fd)
}

// connect waits until the connection stands.
func (s *socket) connect(to netip.AddrPort) error {
	err := unix.Connect(s.fd, sockaddr(to))
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	// A signal came between; the handshake goes on by itself.
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

// accept waits for a connection. The accepted socket has the listener's
// options, SO_LINGER{1,0} among them.
func (s *socket) accept() (*socket, error) {
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &socket{fd: fd, open: true, asked: s.asked}, nil
	}
}

// write sends all of p, in one call unless a signal cuts it short, and returns
// how much the kernel took.
func (s *socket) write(p []byte) (int, error) {
	for n := 0; ; {
		if s.stopped.Load() {
			return n, errStopped
		}
		m, err := unix.SendmsgN(s.fd, p[n:], nil, nil, unix.MSG_NOSIGNAL)
		n += max(m, 0)
		if n == len(p) || err != nil && !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// cork keeps back a last segment that is not full, until it is taken off. MSG_MORE
// would not do: it holds for its own call, and the next ACK to arrive sends what
// it kept back.
func (s *socket) cork(on bool) error {
	value := 0
	if on {
		value = 1
	}
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_CORK, value); err != nil {
		return fmt.Errorf("set TCP_CORK: %w", err)
	}
	return nil
}

// discard reads as many bytes as p is long, or up to the end of the stream, and
// throws them away inside the kernel (MSG_TRUNC, tcp(7)): p is never touched.
func (s *socket) discard(p []byte) (int, error) {
	for n := 0; ; {
		if s.stopped.Load() {
			return n, errStopped // data may go on coming
		}
		all, err := s.prepareRead(len(p) - n)
		if err != nil {
			return n, err
		}
		m, _, err := unix.Recvfrom(s.fd, p[n:], all|unix.MSG_TRUNC)
		n += max(m, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case n == len(p):
			return n, nil
		case m == 0:
			return n, io.EOF
		}
	}
}

// discardSome is discard for what is there, once there is something; 0 is the end of the
// stream.
func (s *socket) discardSome(p []byte) (int, error) {
	for {
		if s.stopped.Load() {
			return 0, errStopped
		}
		if _, err := s.prepareRead(len(p)); err != nil {
			return 0, err
		}
		n, _, err := unix.Recvfrom(s.fd, p, unix.MSG_TRUNC)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// prepareRead sets what holds for one read of so many bytes and returns the flag with
// which to read.
func (s *socket) prepareRead(size int) (all int, err error) {
	if s.asked == nil {
		return unix.MSG_WAITALL, nil
	}
	if s.asked.QuickAck != nil {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, flag(s.asked.GetQuickAck())); err != nil {
			return 0, fmt.Errorf("set TCP_QUICKACK: %w", err)
		}
	}
	if s.asked.GetRcvlowat() == 0 {
		return unix.MSG_WAITALL, nil
	}
	// The end of a message may be less than the mark, which would then never be
	// reached; and within a call that waits for all the mark could not follow.
	mark := min(int(s.asked.GetRcvlowat()), size)
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, mark); err != nil {
		return 0, fmt.Errorf("set SO_RCVLOWAT to %d: %w", mark, err)
	}
	return 0, nil
}

// finishWriting tells the peer that no more will come. It may be called while the
// owner writes: what the kernel has taken by then is still sent.
func (s *socket) finishWriting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return errSocketClosed
	}
	err := unix.Shutdown(s.fd, unix.SHUT_WR)
	if errors.Is(err, unix.ENOTCONN) {
		return nil // ended at both sides already
	}
	return err
}

// local is the socket's own address.
func (s *socket) local() netip.AddrPort {
	address, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// congestion is the congestion control in use.
func (s *socket) congestion() string {
	name, err := unix.GetsockoptString(s.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return ""
	}
	return name
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
