package socket

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Role is which end of a flow a socket serves, as samples name the ends.
type Role string

// The roles.
const (
	Client Role = "client" // connects
	Server Role = "server" // listens
)

// End is where one end of a flow is.
type End struct {
	Node string        // the node's name
	NS   *netns.Handle // its namespace, which must stay open as long as the end is used
	Addr netip.Addr    // its address, without a zone

	Flow   string          // the flow's name, which the node's observer knows its sockets by
	Owners *observe.Owners // is told of each socket; may be nil
}

// Spec is how one end's sockets are made.
type Spec struct {
	End
	Role    Role
	Options *tcplabv1.SocketOptions // nil: the kernel's, and TCP_NODELAY
}

// ErrPortByPort says that this kernel cannot choose of the lab's range of ports: a Dialer tries them.
var ErrPortByPort = errors.New("ports are to be tried one by one")

// Open makes a socket on the calling thread, which must be in the end's namespace, with the
// options set and bound to the end's address and to the port, or with 0 to one that the kernel
// chooses when it connects. The flags may be SOCK_NONBLOCK.
func (s *Spec) Open(port uint16, flags int) (_ FD, err error) {
	family := unix.AF_INET
	if s.Addr.Is6() {
		family = unix.AF_INET6
	}
	raw, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open a TCP socket: %w", err)
	}
	fd := FD(raw)
	defer func() {
		if err != nil {
			fd.Close()
		}
	}()
	if err := setOptions(raw, s.Role, s.Options); err != nil {
		return -1, err
	}
	if err := setCodePoint(raw, s.Addr.Is6(), s.Options); err != nil {
		return -1, err
	}
	if port == 0 {
		// The port is chosen at connect(2) or listen(2): knowing the peer, the
		// kernel can use one local port for many.
		err = unix.SetsockoptInt(raw, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	} else {
		err = unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return -1, fmt.Errorf("set how the port is bound: %w", err)
	}
	if ports := s.Options.GetLocalPorts(); ports != nil && s.Role == Client && port == 0 {
		limited, err := setLocalPorts(raw, ports)
		if err != nil {
			return -1, err
		}
		if !limited {
			return -1, ErrPortByPort
		}
	}
	if err := unix.Bind(raw, sockaddr(netip.AddrPortFrom(s.Addr, port))); err != nil {
		return -1, fmt.Errorf("bind to %s: %w", netip.AddrPortFrom(s.Addr, port), err)
	}
	if s.Owners != nil {
		cookie, err := observe.Cookie(raw)
		if err != nil {
			return -1, err
		}
		s.Owners.Opened(cookie, s.owner())
	}
	return fd, nil
}

func (s *Spec) owner() observe.Owner { return observe.Owner{Flow: s.Flow, End: string(s.Role)} }

// Listen makes a socket that listens, from any thread, on a port of the kernel's choice.
// The backlog is listen(2)'s; the flags may be SOCK_NONBLOCK.
func (s *Spec) Listen(backlog, flags int) (FD, error) {
	fd := FD(-1)
	err := s.NS.Do(func() (err error) {
		fd, err = s.Open(0, flags)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(int(fd), backlog); err != nil {
		fd.Close()
		return -1, fmt.Errorf("listen on %s: %w", s.Addr, err)
	}
	s.Owners.Listens(fd.Local(), s.owner())
	return fd, nil
}

// Reserve makes a socket, from any thread, that has a port of the kernel's choice and does not
// listen: whoever connects to it is refused.
func (s *Spec) Reserve() (FD, error) {
	fd := FD(-1)
	err := s.NS.Do(func() (err error) {
		fd, err = s.Open(0, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	// Bound to no port yet, the socket may be bound once more.
	err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 0)
	if err == nil {
		err = unix.Bind(int(fd), sockaddr(netip.AddrPortFrom(s.Addr, 0)))
	}
	if err != nil {
		fd.Close()
		return -1, fmt.Errorf("reserve a port of %s: %w", s.Addr, err)
	}
	return fd, nil
}

// Dialer finds the port from which a client connects. Unlike Go's, it makes no attempt
// that the lab did not ask for: an error of the connection is the caller's to count.
type Dialer struct {
	Spec Spec
	last uint16 // the port tried last, where ports are tried one by one
}

// Dial calls attempt with the port for a connection, which is mostly 0, the kernel's choice,
// and returns what it does. An attempt opens a socket with that port (Spec.Open) and connects it;
// where it fails for want of the port (EADDRINUSE, EADDRNOTAVAIL), there may be others in
// the lab's range, and the next is tried; an attempt that fails so closes its socket. After
// EADDRNOTAVAIL there is none left.
//
// A kernel before 6.3 cannot choose of a range; and one that can may leave out the first
// or the last of an odd number (__inet_hash_connect in net/ipv4/inet_hashtables.c).
func (d *Dialer) Dial(attempt func(port uint16) error) error {
	err := attempt(0)
	ports := d.Spec.Options.GetLocalPorts()
	first, last := uint16(ports.GetFirst()), uint16(ports.GetLast())
	switch {
	case ports == nil:
		return err
	case errors.Is(err, ErrPortByPort):
		return d.search(first, last, attempt)
	}
	for _, port := range []uint16{first, last} {
		if !wantsPort(err) {
			return err
		}
		err = attempt(port)
	}
	return noneLeft(err, first, last)
}

// search tries each port of a range, from the one behind the last that was tried.
func (d *Dialer) search(first, last uint16, attempt func(port uint16) error) (err error) {
	for range int(last) - int(first) + 1 {
		if d.last < first || d.last >= last {
			d.last = first
		} else {
			d.last++
		}
		if err = attempt(d.last); !wantsPort(err) {
			return err
		}
	}
	return noneLeft(err, first, last)
}

func wantsPort(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func noneLeft(err error, first, last uint16) error {
	if !wantsPort(err) {
		return err
	}
	return fmt.Errorf("each port of %d-%d has a connection to the server: %w", first, last, unix.EADDRNOTAVAIL)
}
