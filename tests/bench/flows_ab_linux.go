package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
)

// abRequest is what ab 2.3 sends to a server of IPv4, but for the length of its address.
const abRequest = "GET / HTTP/1.0\r\nHost: 10.99.0.2:40000\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n"

const abReply = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

// abServer answers ab as fast as tcplab's own server would: the same loop and the same system
// calls, and an end by the server.
type abServer struct {
	address netip.AddrPort
	stop    func() error // ends it
}

// errServed is why a server of ab ends.
var errServed = errors.New("ab has ended")

func serveAB(ctx context.Context, end flow.End) (*abServer, error) {
	spec := socket.Spec{End: end, Role: socket.Server}
	listener, err := spec.Listen(128, unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- loop.Run(ctx, end.NS, func(l *loop.Loop) error {
			return l.Add(int(listener), unix.EPOLLIN, &abListener{loop: l, fd: listener})
		})
	}()
	return &abServer{address: listener.Local(), stop: func() error {
		cancel(errServed)
		if err := <-ended; !errors.Is(err, errServed) {
			return fmt.Errorf("the server of ab: %w", err)
		}
		return nil
	}}, nil
}

type abListener struct {
	loop *loop.Loop
	fd   socket.FD
}

// Ready accepts.
func (s *abListener) Ready(uint32) {
	for {
		fd, err := s.fd.Accept(unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			s.loop.End(err)
			return
		}
		(&abConn{loop: s.loop, fd: fd}).advance()
	}
}

type abConn struct {
	loop    *loop.Loop
	fd      socket.FD
	watched bool
	got     int
	replied bool
	buffer  [512]byte
}

// Ready reads on.
func (c *abConn) Ready(uint32) { c.advance() }

// advance reads the request, answers it and ends the connection, and then waits for ab's end.
func (c *abConn) advance() {
	for {
		if c.replied && c.fd.HasEnded() {
			c.close()
			return
		}
		n, err := c.fd.Receive(c.buffer[c.got:])
		c.got += n
		switch {
		case errors.Is(err, unix.EAGAIN):
			if !c.watched {
				c.watched = c.loop.Add(int(c.fd), unix.EPOLLIN|unix.EPOLLRDHUP, c) == nil
			}
			return
		case err != nil:
			c.close()
			return
		case n == 0 && c.replied:
			if !c.fd.HasEnded() && c.watched {
				return // the last ACK is an event
			}
			c.close()
			return
		case n == 0:
			c.close()
			return
		}
		if !c.replied && c.got >= 4 && string(c.buffer[c.got-4:c.got]) == "\r\n\r\n" {
			c.replied = true
			if _, err := c.fd.Send([]byte(abReply)); err != nil {
				c.close()
				return
			}
			if err := c.fd.FinishWriting(); err != nil {
				c.close()
				return
			}
		}
	}
}

func (c *abConn) close() {
	if c.watched {
		c.loop.Close(int(c.fd))
	} else {
		c.fd.Close()
	}
}
