// Package rtnl asks the kernel for many changes of a namespace's network at
// once. A lab of a hundred nodes has some ten thousand neighbours and routes:
// asked for one by one, each is a request, an answer and two system calls; here
// a few hundred go in one write and are answered by one read.
//
// It knows no kind of request: a [Message] holds what its caller encodes (kernel:
// include/uapi/linux/rtnetlink.h). It refuses to leave open which request failed.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Message is one request: its header, then the body as the kernel reads it.
type Message []byte

// NewMessage begins a request of a kind (RTM_NEWROUTE, …) with its flags beside
// NLM_F_REQUEST, and the struct that stands before the attributes.
func NewMessage(kind uint16, flags uint16, head []byte) Message {
	m := make(Message, unix.SizeofNlMsghdr, 128)
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	return append(m, head...).align()
}

// Attr appends an attribute.
func (m Message) Attr(kind uint16, value []byte) Message {
	m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	return append(m, value...).align()
}

// Uint32 appends an attribute that is a number.
func (m Message) Uint32(kind uint16, value uint32) Message {
	return m.Attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// String appends an attribute that is a text.
func (m Message) String(kind uint16, value string) Message {
	return m.Attr(kind, append([]byte(value), 0))
}

func (m Message) align() Message {
	for len(m)%unix.NLMSG_ALIGNTO != 0 {
		m = append(m, 0)
	}
	return m
}

// Conn is a socket to one namespace's kernel side. It carries one call at a
// time, and outlives none of its namespace's interfaces: whoever dials closes it.
type Conn struct {
	socket   int
	sequence uint32
	buffer   []byte
}

const (
	// most is how many bytes of requests go in one write: well below what a socket
	// may send by default (net.core.wmem_default, 208 KiB).
	most = 32 << 10
	// longest is how long an answer may be: an interface's has 2 KB.
	longest = 16 << 10
	// patience bounds the wait for an answer, which is there when the write returns.
	patience = 10
)

// Dial opens a Conn in a namespace.
func Dial(ns *netns.Handle) (*Conn, error) {
	c := &Conn{socket: -1}
	err := ns.Do(func() (err error) {
		c.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		err = unix.SetsockoptTimeval(c.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience})
	}
	if err == nil {
		// An answer need not repeat the request (kernel 4.3).
		_ = unix.SetsockoptInt(c.socket, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
		return c, nil
	}
	err = fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	if c.socket >= 0 {
		err = errors.Join(err, c.Close())
	}
	return nil, err
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.socket) }

// Apply makes the kernel do what the messages ask, in their order, many at a
// time. Where one fails it returns that message's number, and those after it may have
// been done as well.
func (c *Conn) Apply(messages iter.Seq[Message]) (failed int, err error) {
	next, stop := iter.Pull(messages)
	defer stop()
	var batch []byte
	for done, more := 0, true; more; {
		batch = batch[:0]
		count, last := 0, 0
		for len(batch) < most {
			var m Message
			if m, more = next(); !more {
				break
			}
			last = len(batch)
			batch = append(batch, m...)
			binary.NativeEndian.PutUint32(batch[last:], uint32(len(m)))
			binary.NativeEndian.PutUint32(batch[last+8:], c.sequence+1+uint32(count))
			count++
		}
		if count == 0 {
			break
		}
		// Errors are told unasked; that all is done, by the last alone.
		flags := binary.NativeEndian.Uint16(batch[last+6:])
		binary.NativeEndian.PutUint16(batch[last+6:], flags|unix.NLM_F_ACK)
		if i, err := c.exchange(batch, count); err != nil {
			return done + i, err
		}
		done += count
	}
	return 0, nil
}

// exchange sends messages and waits for the answer to the last.
func (c *Conn) exchange(batch []byte, count int) (failed int, err error) {
	first := c.sequence + 1
	c.sequence += uint32(count)
	if err := unix.Sendto(c.socket, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("send requests: %w", err)
	}
	for {
		h, body, e := c.receive()
		if e != nil {
			return failed, errors.Join(err, e)
		}
		i := int(h.Seq - first)
		if h.Type != unix.NLMSG_ERROR || i < 0 || i >= count || len(body) < 4 {
			continue // of an earlier call that was given up
		}
		if number := int32(binary.NativeEndian.Uint32(body)); number != 0 && err == nil {
			failed, err = i, unix.Errno(-number)
		}
		if i == count-1 {
			return failed, err
		}
	}
}

// Do makes the kernel do one thing.
func (c *Conn) Do(m Message) error {
	_, err := c.Apply(func(yield func(Message) bool) { yield(m) })
	return err
}

// Get is the body of the one answer to a request.
func (c *Conn) Get(m Message) ([]byte, error) {
	c.sequence++
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[8:], c.sequence)
	if err := unix.Sendto(c.socket, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send a request: %w", err)
	}
	for {
		h, body, err := c.receive()
		switch {
		case err != nil:
			return nil, err
		case h.Seq != c.sequence:
		case h.Type != unix.NLMSG_ERROR:
			return body, nil
		case len(body) >= 4:
			return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		}
	}
}

// receive is the next message; its body is valid until the next call.
func (c *Conn) receive() (unix.NlMsghdr, []byte, error) {
	if c.buffer == nil {
		c.buffer = make([]byte, longest)
	}
	for {
		n, _, flags, _, err := unix.Recvmsg(c.socket, c.buffer, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return unix.NlMsghdr{}, nil, fmt.Errorf("read the kernel's answer: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return unix.NlMsghdr{}, nil, fmt.Errorf("the kernel's answer is longer than %d bytes", longest)
		}
		if h, body, ok := split(c.buffer[:n]); ok {
			return h, body, nil
		}
		return unix.NlMsghdr{}, nil, fmt.Errorf("the kernel's answer of %d bytes is no message", n)
	}
}

// split reads a message's header. The kernel sends one message a read to
// requests that are no dumps.
func split(b []byte) (h unix.NlMsghdr, body []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return h, nil, false
	}
	h = unix.NlMsghdr{
		Len: binary.NativeEndian.Uint32(b), Type: binary.NativeEndian.Uint16(b[4:]),
		Flags: binary.NativeEndian.Uint16(b[6:]), Seq: binary.NativeEndian.Uint32(b[8:]),
	}
	if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
		return h, nil, false
	}
	return h, b[unix.SizeofNlMsghdr:h.Len], true
}

// Attributes reads attributes by their kinds; of two of one kind the last counts.
// What is cut off is left out.
func Attributes(b []byte) map[uint16][]byte {
	attrs := make(map[uint16][]byte)
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		attrs[kind] = b[unix.SizeofRtAttr:length]
		b = b[min((length+3)&^3, len(b)):]
	}
	return attrs
}
