package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Diag asks the kernel about the TCP sockets of one namespace, by sock_diag. It belongs to one
// goroutine at a time, and its owner closes it.
type Diag struct {
	fd       int
	name     string // of the node, for errors
	sequence uint32
	buffer   []byte
}

// The messages' types, which the library does not have (include/uapi/linux/inet_diag.h, sock_diag.h).
const (
	getSockets = 18 // TCPDIAG_GETSOCK
	byFamily   = 20 // SOCK_DIAG_BY_FAMILY
)

// diagPatience bounds the wait for an answer, which the kernel has ready when the request returns.
const diagPatience = 5 * time.Second

// NewDiag opens sock_diag in a namespace.
func NewDiag(ns *netns.Handle) (*Diag, error) {
	d := &Diag{fd: -1, name: ns.Name(), buffer: make([]byte, 64<<10)}
	err := ns.Do(func() (err error) {
		d.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		patience := unix.NsecToTimeval(int64(diagPatience))
		return unix.SetsockoptTimeval(d.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sock_diag in %s: %w", ns.Name(), err), d.Close())
	}
	return d, nil
}

// Close closes the socket. It may be called again.
func (d *Diag) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Dump calls visit for each TCP socket of the namespace, of both families, in every state but CLOSE.
// The kernel goes through the tables of all namespaces for it, which takes some 100 µs where they are
// large. A socket that changes meanwhile may be missed, or come twice.
func (d *Diag) Dump(visit func(*Socket)) error {
	return d.ask(getSockets, unix.NLM_F_DUMP, dumpRequest(), visit)
}

// errNoSocket is the kernel's word that there is no such socket any more.
var errNoSocket = errors.New("there is no such socket")

// Lookup asks for the socket that s was, as its addresses and its cookie say, and reads s anew. Where it
// is gone ok is false.
func (d *Diag) Lookup(s *Socket) (ok bool, err error) {
	request := socketRequest(s)
	err = d.ask(byFamily, 0, request, func(found *Socket) { *s, ok = *found, true })
	if errors.Is(err, errNoSocket) {
		return false, nil
	}
	return ok, err
}

// ask sends one request and calls visit for each socket of the answer.
func (d *Diag) ask(kind, flags uint16, request []byte, visit func(*Socket)) error {
	d.sequence++
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(request))
	binary.NativeEndian.PutUint32(message, uint32(cap(message)))
	binary.NativeEndian.PutUint16(message[4:], kind)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(message[8:], d.sequence)
	if err := unix.Sendto(d.fd, append(message, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask sock_diag in %s: %w", d.name, err)
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil {
			var done bool
			if done, err = d.answer(d.buffer[:n], flags&unix.NLM_F_DUMP == 0, visit); done && err == nil {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("sock_diag in %s: %w", d.name, err)
		}
	}
}

// answer reads one datagram, and reports whether it ends the answer.
func (d *Diag) answer(raw []byte, single bool, visit func(*Socket)) (done bool, err error) {
	for len(raw) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(raw))
		if size < unix.NLMSG_HDRLEN || size > len(raw) {
			return true, errShortDiag
		}
		payload := raw[unix.NLMSG_HDRLEN:size]
		kind, sequence := binary.NativeEndian.Uint16(raw[4:]), binary.NativeEndian.Uint32(raw[8:])
		raw = raw[min(len(raw), (size+3)&^3):]
		switch {
		case sequence != d.sequence: // of a request that was given up
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR:
			if len(payload) < 4 {
				return true, errShortDiag
			}
			switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload))); errno {
			case 0:
				return true, nil
			case unix.ENOENT, unix.ESTALE:
				return true, errNoSocket
			default:
				return true, errno
			}
		default:
			s, err := parseSocket(payload)
			if err != nil {
				return true, err
			}
			visit(&s)
			if single {
				return true, nil
			}
		}
	}
	return false, nil
}
