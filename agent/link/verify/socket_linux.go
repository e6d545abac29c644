package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	// buffer holds the largest burst that may wait for a busy host, in bytes of
	// the kernel's accounting.
	buffer = 16 << 20
	// sight is how many bytes of a frame the receiver sees: all of every probe that is in no train.
	sight = 160
	// wakeup is how often a receiver that waits looks whether it is done.
	wakeup = 2 * time.Millisecond
)

// socket is an AF_PACKET socket on one interface.
type socket struct {
	fd      int
	address net.HardwareAddr // of the interface
}

// newSender opens a socket that sends frames out of the interface.
func newSender(end link.Port) (*socket, error) {
	return open(end, 0, func(fd int) error { return setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF) })
}

// newReceiver opens a socket that receives the probes that come in on the
// interface, with the kernel's time of arrival. It takes them before a bridge does
// that the interface may belong to.
func newReceiver(end link.Port) (*socket, error) {
	return open(end, unix.ETH_P_ALL, func(fd int) error {
		if err := setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return fmt.Errorf("ask for times of arrival: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return fmt.Errorf("leave out what is sent: %w", err)
		}
		timeout := unix.NsecToTimeval(wakeup.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return fmt.Errorf("bound the wait: %w", err)
		}
		// Everything, for a damaged probe may look like anything: ret #sight
		filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: sight}}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
			return fmt.Errorf("cut frames short: %w", err)
		}
		return nil
	})
}

// open makes the socket in the interface's namespace, prepares it and binds it.
func open(end link.Port, protocol uint16, prepare func(fd int) error) (s *socket, err error) {
	err = end.Node.Do(func() error {
		device, err := net.InterfaceByName(end.Name)
		if err != nil {
			return err
		}
		// Protocol 0 until it is bound: nothing comes in before the filter stands.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		if err = prepare(fd); err == nil {
			// The protocol is in network order.
			order := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: order, Ifindex: device.Index})
		}
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		s = &socket{fd: fd, address: device.HardwareAddr}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("probe at %s in %s: %w", end.Name, end.Node.Name(), err)
	}
	return s, nil
}

// setBuffer sets a socket's buffer beyond the system's limit, or up to it where
// that takes a privilege that is not there.
func setBuffer(fd, force, ask int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, buffer) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, buffer); err != nil {
		return fmt.Errorf("set the socket's buffer: %w", err)
	}
	return nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// send sends one frame.
func (s *socket) send(frame []byte) error {
	for {
		_, err := unix.Write(s.fd, frame)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("send a probe: %w", err)
		}
	}
}

// receive waits for a frame, for wakeup at most; n = 0: none came. The
// time of arrival is counted from the epoch. control is for its use.
func (s *socket) receive(frame, control []byte) (n int, arrived time.Duration, err error) {
	n, controlled, _, _, err := unix.Recvmsg(s.fd, frame, control, 0)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("receive a probe: %w", err)
	}
	arrived, ok := timestamp(control[:controlled])
	if !ok {
		return 0, 0, errors.New("the kernel gives no time of arrival")
	}
	return n, arrived, nil
}

// controlLen is the room for one control message with a struct timespec.
func controlLen() int { return unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))) }

// timestamp finds SCM_TIMESTAMPNS among control messages.
func timestamp(control []byte) (time.Duration, bool) {
	const header = unix.SizeofCmsghdr
	if len(control) < header+16 {
		return 0, false
	}
	message := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if message.Level != unix.SOL_SOCKET || message.Type != unix.SCM_TIMESTAMPNS {
		return 0, false
	}
	seconds := binary.NativeEndian.Uint64(control[header:])
	nanoseconds := binary.NativeEndian.Uint64(control[header+8:])
	return time.Duration(seconds)*time.Second + time.Duration(nanoseconds), true
}

// overrun reports whether the socket has lost frames for want of room.
func (s *socket) overrun() (bool, error) {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return false, fmt.Errorf("ask for lost probes: %w", err)
	}
	return stats.Drops > 0, nil
}
