package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// FD is the descriptor of a TCP socket. Its calls are the kernel's, taken up again after a signal: on a
// non-blocking descriptor what would wait is EAGAIN, or EINPROGRESS of Connect.
type FD int

// Connect starts a connection; a blocking descriptor waits until it stands.
func (fd FD) Connect(to netip.AddrPort) error {
	err := unix.Connect(int(fd), sockaddr(to))
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	// A signal came between; the handshake goes on by itself.
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		return fd.Err()
	}
}

// Err takes the error that the connection has met (SO_ERROR), and nil where it has none.
func (fd FD) Err() error {
	code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// Accept takes a connection. It has the listener's options, SO_LINGER{1,0} among
// them. The flags may be SOCK_NONBLOCK.
func (fd FD) Accept(flags int) (FD, error) {
	for {
		// Who connects is not asked: the library's call would, and allocate.
		n, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, uintptr(unix.SOCK_CLOEXEC|flags), 0, 0)
		switch errno {
		case 0:
			return FD(n), nil
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return -1, errno
		}
	}
}

// Send is one write(2), without a signal where the connection is gone.
func (fd FD) Send(p []byte) (int, error) {
	for {
		n, err := fd.send(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// send is send(2). The library's calls would build a message and an address around it, which a round
// trip of 14 bytes feels.
func (fd FD) send(p []byte, flags int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		uintptr(flags|unix.MSG_NOSIGNAL), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// small is what the kernel takes whole but where the buffer is all but full.
const small = 512

// sendAtOnce is send(2) of something small without waiting, and EAGAIN where it would have to wait,
// or is not small. Go's scheduler need not hear of a call that does not wait. Where the
// kernel takes a part, what is left is for a second call, as after a signal.
func (fd FD) sendAtOnce(p []byte) (int, error) {
	if len(p) > small {
		return 0, unix.EAGAIN
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// SendNow is Send on a non-blocking descriptor. Go's scheduler hears of it only where there is much to copy.
func (fd FD) SendNow(p []byte) (int, error) {
	n, err := fd.sendAtOnce(p)
	if err != nil {
		return fd.Send(p) // it says what the matter is, if anything still is
	}
	return n, nil
}

// ReceiveNow is Receive of what is there, or EAGAIN, and Go's scheduler does not hear of it. A read of much
// should be a Receive.
func (fd FD) ReceiveNow(p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// recv is recv(2).
func (fd FD) recv(p []byte, flags int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// SendVectors is Send for bytes that lie apart.
func (fd FD) SendVectors(p [][]byte) (int, error) {
	for {
		n, err := unix.SendmsgBuffers(int(fd), p, nil, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// Unread is how many bytes came and were not read (SIOCINQ, Recv-Q of ss).
func (fd FD) Unread() (int, error) {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("ask for unread bytes: %w", err)
	}
	return n, nil
}

// Receive is one read; 0 without an error is the end of the stream.
func (fd FD) Receive(p []byte) (int, error) { return fd.receive(p, 0) }

// Discard is Receive that throws the bytes away inside the kernel (MSG_TRUNC, tcp(7)): p is
// never touched and only says how many.
func (fd FD) Discard(p []byte) (int, error) { return fd.receive(p, unix.MSG_TRUNC) }

func (fd FD) receive(p []byte, flags int) (int, error) {
	for {
		n, err := fd.recv(p, flags)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// PrepareRead sets, of the options asked for, those that hold for one read: of so many bytes of a
// message. Without any it does nothing.
func (fd FD) PrepareRead(asked *tcplabv1.SocketOptions, size int) error {
	if asked == nil {
		return nil
	}
	if asked.QuickAck != nil {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, flag(asked.GetQuickAck())); err != nil {
			return fmt.Errorf("set TCP_QUICKACK: %w", err)
		}
	}
	if asked.GetRcvlowat() == 0 {
		return nil
	}
	// The end of a message may be less than the mark, which would then never be
	// reached.
	mark := min(int(asked.GetRcvlowat()), size)
	if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, mark); err != nil {
		return fmt.Errorf("set SO_RCVLOWAT to %d: %w", mark, err)
	}
	return nil
}

// FinishWriting sends a FIN behind what is still to be sent. A connection that both sides have
// ended already is no error.
func (fd FD) FinishWriting() error {
	err := unix.Shutdown(int(fd), unix.SHUT_WR)
	if errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// Unsent is how many bytes the peer has not acknowledged, a FIN being one (SIOCOUTQ).
func (fd FD) Unsent() (int, error) {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0, fmt.Errorf("ask for unsent bytes: %w", err)
	}
	return n, nil
}

// State is the connection's (include/net/tcp_states.h; observe.StateEstablished, …).
func (fd FD) State() (uint32, error) {
	// The state is the first byte of TCP_INFO.
	var raw [1]byte
	size := uint32(len(raw))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("read the state of a socket: %w", errno)
	}
	return uint32(raw[0]), nil
}

// HasEnded reports whether nothing is left of the connection but TIME_WAIT, which
// needs no socket: then closing sends no reset.
func (fd FD) HasEnded() bool {
	state, err := fd.State()
	return err != nil || state == observe.StateClose
}

// SetCork keeps back a last segment that is not full, until it is taken off.
func (fd FD) SetCork(on bool) error {
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, flag(on)); err != nil {
		return fmt.Errorf("set TCP_CORK: %w", err)
	}
	return nil
}

// LetGo makes the next Close an ordinary one, both sides at once: what is to be sent still is, by
// the kernel alone, and where data is unread, or comes afterwards, the peer is told by a
// reset (tcp_close in net/ipv4/tcp.c). The kernel's patience with such an orphan is bounded, as
// long as it has one the connection keeps its namespace.
func (fd FD) LetGo(patience time.Duration) error {
	linger := &unix.Linger{}
	if err := unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, linger); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	for _, o := range []struct {
		name          string
		option, value int
	}{
		// In FIN_WAIT2 and, for data without an answer, before it (tcp(7)).
		{"TCP_LINGER2", unix.TCP_LINGER2, int(max(1, patience/time.Second))},
		{"TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, int(patience / time.Millisecond)},
	} {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, o.option, o.value); err != nil {
			return fmt.Errorf("set %s to %d: %w", o.name, o.value, err)
		}
	}
	return nil
}

// Close closes the descriptor, and resets its connection unless that has ended.
func (fd FD) Close() error { return unix.Close(int(fd)) }

// Local is the socket's own address.
func (fd FD) Local() netip.AddrPort {
	address, err := unix.Getsockname(int(fd))
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

// Congestion is the congestion control in use.
func (fd FD) Congestion() string {
	name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
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
