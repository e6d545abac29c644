package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Defaults of a resolver (resolv.conf(5): timeout, attempts).
const (
	DefaultTimeout  = 5 * time.Second
	DefaultAttempts = 2
)

// Query is one question to a name server.
type Query struct {
	Node     *netns.Handle // from which it is asked
	Server   netip.Addr    // the name server's address; its port is 53
	Name     string
	IPv6     bool          // ask for AAAA records, not for A
	Timeout  time.Duration // of an attempt; 0: DefaultTimeout
	Attempts int           // 0: DefaultAttempts
	TCP      bool          // ask over TCP at once

	port uint16 // other than 53, for tests
}

// Answer is what came of a Query.
type Answer struct {
	Addresses []netip.Addr  // in the server's order; none where there was an error
	Code      string        // the answer's code ("NOERROR", "NXDOMAIN"); empty: there was no answer
	Took      time.Duration // from before the first question was sent
	Sent      int           // questions over UDP
	Truncated bool          // an answer was too long for UDP, and asked for again over TCP
}

// Lookup asks a name server. Its calls wait on a thread that has entered the node, and all in all
// for Timeout times Attempts at the most; over TCP, which sends again by itself, for as long
// too. A name without such an address is a [*net.DNSError] that is IsNotFound, no answer in time one that
// is IsTimeout; what the kernel says of the way there is its error number.
func Lookup(ctx context.Context, q Query) (a Answer, err error) {
	if q.Timeout == 0 {
		q.Timeout = DefaultTimeout
	}
	if q.Attempts == 0 {
		q.Attempts = DefaultAttempts
	}
	if q.port == 0 {
		q.port = port
	}
	kind := mdns.TypeA
	if q.IPv6 {
		kind = mdns.TypeAAAA
	}
	if _, ok := mdns.IsDomainName(q.Name); !ok || q.Name == "" {
		return a, &net.DNSError{Err: "it is no domain name", Name: q.Name, IsNotFound: true}
	}
	question := new(mdns.Msg).SetQuestion(mdns.Fqdn(q.Name), kind)
	packed, err := question.Pack()
	if err != nil {
		return a, &net.DNSError{Err: err.Error(), Name: q.Name, IsNotFound: true}
	}
	wake, err := newWaker(ctx)
	if err != nil {
		return a, err
	}
	defer wake.close()
	l := &lookup{Query: q, question: question, packed: packed, wake: wake}
	err = q.Node.Do(func() error {
		l.begin = time.Now()
		defer func() { l.answer.Took = time.Since(l.begin) }()
		return l.run()
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return l.answer, err
}

// lookup is a Query under way, on a thread in its node.
type lookup struct {
	Query
	question *mdns.Msg
	packed   []byte
	wake     *waker
	begin    time.Time
	answer   Answer
}

func (l *lookup) run() error {
	if !l.TCP {
		answer, err := l.overUDP()
		if err != nil {
			return err
		}
		if !answer.Truncated {
			return l.take(answer)
		}
		l.answer.Truncated = true
	}
	answer, err := l.overTCP()
	if err != nil {
		return err
	}
	return l.take(answer)
}

// maxDatagram is more than any answer over UDP has.
const maxDatagram = 65535

// overUDP sends the question until an answer comes.
func (l *lookup) overUDP() (*mdns.Msg, error) {
	fd, err := l.open(unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buffer := make([]byte, maxDatagram)
	for l.answer.Sent < l.Attempts {
		if err := unix.Send(fd, l.packed, unix.MSG_NOSIGNAL); err != nil {
			return nil, l.failed("ask", err)
		}
		l.answer.Sent++
		for deadline := time.Now().Add(l.Timeout); ; {
			ready, err := l.wake.await(fd, unix.POLLIN, deadline)
			if err != nil {
				return nil, l.failed("wait for an answer", err)
			}
			if !ready {
				break // it is sent again
			}
			n, _, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue // a damaged datagram wakes, and is not there
			}
			if err != nil {
				return nil, l.failed("read the answer", err)
			}
			if answer, ok := l.parse(buffer[:n]); ok {
				return answer, nil
			}
		}
	}
	return nil, l.late()
}

// overTCP asks on a connection of its own (RFC 7766).
func (l *lookup) overTCP() (*mdns.Msg, error) {
	fd, err := l.open(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(l.Timeout * time.Duration(l.Attempts))
	message := binary.BigEndian.AppendUint16(nil, uint16(len(l.packed)))
	if err := l.each(fd, unix.POLLOUT, deadline, append(message, l.packed...), func(p []byte) (int, error) {
		return unix.SendmsgN(fd, p, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}); err != nil {
		return nil, err
	}
	read := func(size int) ([]byte, error) {
		p := make([]byte, size)
		err := l.each(fd, unix.POLLIN, deadline, p, func(p []byte) (int, error) {
			n, _, err := unix.Recvfrom(fd, p, unix.MSG_DONTWAIT)
			if err == nil && n == 0 {
				err = unix.ECONNRESET // the server ended it before its answer
			}
			return n, err
		})
		return p, err
	}
	for {
		length, err := read(2)
		if err != nil {
			return nil, err
		}
		content, err := read(int(binary.BigEndian.Uint16(length)))
		if err != nil {
			return nil, err
		}
		if answer, ok := l.parse(content); ok {
			return answer, nil
		}
	}
}

// each calls step with what is left of p until nothing is.
func (l *lookup) each(fd int, events int16, deadline time.Time, p []byte, step func([]byte) (int, error)) error {
	for len(p) > 0 {
		ready, err := l.wake.await(fd, events, deadline)
		if err != nil {
			return l.failed("ask over TCP", err)
		}
		if !ready {
			return l.late()
		}
		n, err := step(p)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return l.failed("ask over TCP", err)
		default:
			p = p[n:]
		}
	}
	return nil
}

// open makes a socket that leads to the server.
func (l *lookup) open(kind int) (fd int, err error) {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{}, Port: int(l.port)})
	if l.Server.Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: l.Server.As16(), Port: int(l.port)}
	} else {
		to.(*unix.SockaddrInet4).Addr = l.Server.As4()
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, l.failed("open a socket", err)
	}
	if kind == unix.SOCK_STREAM {
		// What was killed leaves no connection behind.
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
	}
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, l.failed("connect", err)
	}
	return fd, nil
}

// parse reads a message; what is no answer to the question is passed over (RFC 5452).
func (l *lookup) parse(b []byte) (*mdns.Msg, bool) {
	m := new(mdns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, false
	}
	ok := m.Response && m.Id == l.question.Id && len(m.Question) == 1 &&
		strings.EqualFold(m.Question[0].Name, l.question.Question[0].Name) && m.Question[0].Qtype == l.question.Question[0].Qtype
	return m, ok
}

// take keeps what an answer says.
func (l *lookup) take(m *mdns.Msg) error {
	l.answer.Code = mdns.RcodeToString[m.Rcode]
	if l.answer.Code == "" {
		l.answer.Code = fmt.Sprintf("RCODE%d", m.Rcode)
	}
	for _, record := range m.Answer {
		var ip net.IP
		switch r := record.(type) {
		case *mdns.A:
			ip = r.A
		case *mdns.AAAA:
			ip = r.AAAA
		}
		if address, ok := netip.AddrFromSlice(ip); ok && (record.Header().Rrtype == l.question.Question[0].Qtype) {
			if !l.IPv6 {
				address = address.Unmap()
			}
			l.answer.Addresses = append(l.answer.Addresses, address)
		}
	}
	switch {
	case m.Rcode == mdns.RcodeNameError:
		return l.error("there is no such name", func(e *net.DNSError) { e.IsNotFound = true })
	case m.Rcode != mdns.RcodeSuccess:
		return l.error("the server answers "+l.answer.Code, func(*net.DNSError) {})
	case len(l.answer.Addresses) == 0:
		return l.error("the name has no such address", func(e *net.DNSError) { e.IsNotFound = true })
	}
	return nil
}

func (l *lookup) late() error {
	return l.error(fmt.Sprintf("no answer within %v, sent %d times", time.Since(l.begin).Round(time.Millisecond), max(1, l.answer.Sent)),
		func(e *net.DNSError) { e.IsTimeout = true })
}

func (l *lookup) error(text string, mark func(*net.DNSError)) error {
	e := &net.DNSError{Err: text, Name: l.Name, Server: l.Server.String()}
	mark(e)
	return e
}

func (l *lookup) failed(doing string, err error) error {
	return fmt.Errorf("look up %s at %s: %s: %w", l.Name, l.Server, doing, err)
}

// waker ends waits at the end of a context.
type waker struct {
	fd   int // an eventfd
	stop func() bool
	done chan struct{}
}

func newWaker(ctx context.Context) (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	w := &waker{fd: fd, done: make(chan struct{})}
	w.stop = context.AfterFunc(ctx, func() {
		defer close(w.done)
		_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it is full where it was written before
	})
	return w, nil
}

var errWoken = errors.New("it was stopped")

// await waits until the descriptor is ready, or the deadline has passed. The end of the context is
// an error.
func (w *waker) await(fd int, events int16, deadline time.Time) (ready bool, err error) {
	for {
		left := time.Until(deadline)
		if left < 0 {
			return false, nil
		}
		timeout := unix.NsecToTimespec(min(left.Nanoseconds(), math.MaxInt32*int64(time.Second)))
		polled := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(w.fd), Events: unix.POLLIN}}
		_, err := unix.Ppoll(polled, &timeout, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, err
		case polled[1].Revents != 0:
			return false, errWoken
		case polled[0].Revents != 0:
			return true, nil
		}
	}
}

func (w *waker) close() {
	if !w.stop() {
		<-w.done
	}
	unix.Close(w.fd)
}
