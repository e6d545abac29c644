package web

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/http1"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// backlog is how many connections may wait for a server or proxy to accept them; the kernel takes
// no more than its net.core.somaxconn.
const backlog = 4096

// listening is what waits for connections: the server, or a proxy.
type listening struct {
	side
	listener socket.FD
	address  netip.AddrPort
	accepted func(socket.FD) error
	deaf     bool // nobody accepts what the kernel has made
}

// listen opens the port, before the loop runs.
func (s *listening) listen() error {
	flags := unix.SOCK_NONBLOCK
	if s.plan.two {
		flags = 0
	}
	fd, err := s.spec.Listen(backlog, flags)
	if err != nil {
		return err
	}
	s.listener, s.address = fd, fd.Local()
	return nil
}

// start hands the listener to the loop.
func (s *listening) start(l *loop.Loop) error {
	s.begin(l)
	s.afterClose = s.endIfDone
	if s.deaf {
		return nil
	}
	fd := s.listener
	s.listener = -1
	if err := l.Add(int(fd), unix.EPOLLIN, acceptor{s, fd}); err != nil {
		fd.Close()
		return err
	}
	return nil
}

// finish is called when no further connection will come: the loop ends with the last that is
// left.
func (s *listening) finish() {
	s.finishing = true
	s.endIfDone()
}

func (s *listening) endIfDone() {
	if s.finishing && len(s.conns) == 0 {
		s.loop.End(nil)
	}
}

// unlisten closes a port that no loop has taken over.
func (s *listening) unlisten() error {
	if s.listener < 0 {
		return nil
	}
	fd := s.listener
	s.listener = -1
	return fd.Close()
}

// acceptor takes connections.
type acceptor struct {
	*listening
	fd socket.FD
}

// Ready takes all that wait.
func (a acceptor) Ready(uint32) {
	for {
		fd, err := a.fd.Accept(unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err == nil {
			err = a.accepted(fd)
		}
		if err != nil {
			a.loop.End(fmt.Errorf("accept a connection: %w", err))
			return
		}
	}
}

// server answers.
type server struct {
	listening
	fault tcplabv1.FlowFault
	cuts  []int // how often each object was cut
	seen  serverSeen
}

// serverSeen is what the server has counted.
type serverSeen struct {
	executed map[string]uint32 // by method
	received uint64            // bytes of requests' bodies
}

func newServer(s side) *server {
	v := &server{listening: listening{side: s, listener: -1}, cuts: make([]int, len(s.plan.objects)), seen: serverSeen{executed: make(map[string]uint32)}}
	v.accepted = v.accept
	return v
}

// listen is listening.listen, and what the fault makes of it.
func (s *server) listen() error {
	if s.fault != tcplabv1.FlowFault_FLOW_FAULT_REFUSE {
		s.deaf = s.fault == tcplabv1.FlowFault_FLOW_FAULT_DEAF
		return s.listening.listen()
	}
	s.deaf = true
	fd, err := s.spec.Reserve()
	if err == nil {
		s.listener, s.address = fd, fd.Local()
	}
	return err
}

func (s *server) accept(fd socket.FD) error {
	c := &serverConn{server: s, parser: http1.NewRequests(), at: reading}
	conn, err := s.adopt(fd, c, standing)
	if err != nil {
		return err
	}
	c.conn = conn
	c.pause.Func = c.answer
	c.idle.Func = c.wasIdle
	c.watchIdle()
	return nil
}

// finish is listening.finish; nobody waits for an answer any more.
func (s *server) finish() {
	for c := range s.conns {
		switch o, ok := c.owner.(*serverConn); {
		case c.state != standing:
		case ok && o.at == reading:
			c.wait() // the client's FIN is on its way
		default:
			c.abort()
		}
	}
	s.listening.finish()
}

// serverConn is a connection of the server.
type serverConn struct {
	*conn
	server *server
	parser *http1.Parser

	at       stage
	object   int // of the request under way; -1: of none
	method   string
	version  http1.Version
	persists bool // the client wants the connection to stay open
	served   int  // requests before this one
	last     bool // the connection ends after this answer
	pause    loop.Timer
	idle     loop.Timer
}

// stage is what a server's connection is at.
type stage int

const (
	reading   stage = iota // a request comes, or is waited for
	thinking               // the server's time
	answering              // the answer is written
	over
)

func (c *serverConn) connected() {}

// wants: one request after another, and none of what comes behind an early answer.
func (c *serverConn) wants() bool { return c.at == reading }

func (c *serverConn) skippable() uint64 { return c.parser.Skippable() }

func (c *serverConn) skipped(n uint64) {
	c.server.seen.received += n
	c.parser.Skip(n)
	c.input(nil)
}

func (c *serverConn) input(in []byte) (used int) {
	if c.server.fault == tcplabv1.FlowFault_FLOW_FAULT_RESET {
		c.abort()
		return len(in)
	}
	for c.at == reading && c.state == standing {
		event, n, data, err := c.parser.Parse(in[used:])
		used += n
		if err != nil {
			c.refuse()
			return len(in)
		}
		switch event {
		case http1.More:
			return used
		case http1.GotHead:
			c.loop.Stop(&c.idle)
			c.head(c.parser.Head())
			if c.object >= 0 && c.server.plan.objects[c.object].early {
				c.carryOut()
			}
		case http1.GotData:
			c.server.seen.received += uint64(len(data))
		case http1.GotEnd:
			c.carryOut()
		}
	}
	return used
}

// head takes note of what is asked for.
func (c *serverConn) head(h *http1.Head) {
	c.object = c.server.plan.find(h.Target)
	c.method = methodOf(h.Method)
	c.version = min(h.Version, c.server.plan.version)
	c.persists = h.Persists()
}

// methodOf is a method as text, without memory for those that there are.
func methodOf(b []byte) string {
	for _, m := range [...]string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
		if string(b) == m {
			return m
		}
	}
	return string(b)
}

// carryOut is the server's work on a request that has come.
func (c *serverConn) carryOut() {
	c.server.seen.executed[c.method]++
	c.at = thinking
	var takes time.Duration
	if c.object >= 0 {
		takes = c.server.plan.objects[c.object].serverTime
	}
	if takes == 0 {
		c.answer()
		return
	}
	c.loop.Set(&c.pause, time.Now().Add(takes))
}

// answer writes the answer, or what the lab wants of it.
func (c *serverConn) answer() {
	c.at = answering
	plan := c.server.plan
	c.served++
	missing := object{method: c.method}
	o, status := &missing, 404
	if c.object >= 0 {
		o, status = &plan.objects[c.object], 200
	}
	framing := plan.server.framing
	if framing == http1.Chunked && c.version < http1.HTTP11 || c.object < 0 {
		framing = http1.Length
	}
	body := o.answerBytes()
	cut := o.cut && c.object >= 0 && (o.cutTimes == 0 || c.server.cuts[c.object] < o.cutTimes)
	c.last = !c.persists || !plan.server.keepAlive || framing == http1.UntilClose && c.method != "HEAD" ||
		plan.server.maxRequests > 0 && c.served >= plan.server.maxRequests || o.early
	var head [512]byte
	if cut {
		c.server.cuts[c.object]++
		if o.cutAfter == 0 {
			c.end()
			return
		}
	}
	c.out.text(c.appendAnswer(head[:0], status, framing, o.size))
	if cut {
		c.last, body = true, o.cutAfter
	}
	if framing == http1.Chunked && c.method != "HEAD" {
		c.out.chunks(c.blocks, body, !cut)
	} else {
		c.out.zeros(c.blocks, body)
	}
	c.send()
}

// appendAnswer appends the head of an answer.
func (c *serverConn) appendAnswer(dst []byte, status int, framing http1.Framing, size uint64) []byte {
	begin := len(dst)
	dst = http1.AppendStatusLine(dst, c.server.plan.version, status)
	switch framing {
	case http1.Length:
		dst = http1.AppendLength(dst, size)
	case http1.Chunked:
		dst = http1.AppendField(dst, http1.FieldTransferEncoding, "chunked")
	}
	switch old := c.server.plan.version == http1.HTTP10; {
	case c.last && !old:
		dst = http1.AppendField(dst, http1.FieldConnection, "close")
	case !c.last && old:
		dst = http1.AppendField(dst, http1.FieldConnection, "keep-alive")
	}
	if !c.last {
		dst = c.appendKeepAlive(dst)
	}
	dst = appendFiller(dst, begin, c.server.plan.server.head)
	return http1.AppendEnd(dst)
}

// appendKeepAlive appends the limits of a persistent connection, if it has any (RFC 2068,
// 19.7.1.1).
func (c *serverConn) appendKeepAlive(dst []byte) []byte {
	s := c.server.plan.server
	var value []byte
	if s.idle >= time.Second {
		value = fmt.Appendf(value, "timeout=%d", int(s.idle/time.Second))
	}
	if s.maxRequests > 0 {
		if len(value) > 0 {
			value = append(value, ", "...)
		}
		value = fmt.Appendf(value, "max=%d", s.maxRequests-c.served)
	}
	if len(value) == 0 {
		return dst
	}
	return http1.AppendField(dst, http1.FieldKeepAlive, string(value))
}

// flushed is the end of an answer.
func (c *serverConn) flushed() {
	if c.at != answering {
		return
	}
	if c.last {
		c.end()
		return
	}
	c.at = reading
	c.watchIdle()
	c.pump() // what has come meanwhile
}

// end ends the connection as the lab has it.
func (c *serverConn) end() {
	c.at = over
	c.loop.Stop(&c.idle)
	switch c.server.plan.server.close {
	case tcplabv1.HttpClose_HTTP_CLOSE_RESET:
		c.abort()
	case tcplabv1.HttpClose_HTTP_CLOSE_FULL:
		c.letGo()
	default:
		c.drain()
	}
}

// refuse answers what is no request.
func (c *serverConn) refuse() {
	c.at, c.last, c.object = answering, true, -1
	c.out.text(c.appendAnswer(nil, 400, http1.Length, 0))
	c.send()
}

// ended: the client sends no more.
func (c *serverConn) ended(err error) {
	if err != nil {
		c.at = over
		return
	}
	// What it has asked for is still answered.
	if c.at == reading {
		c.at = over
		c.loop.Stop(&c.idle)
		c.drain()
	}
}

func (c *serverConn) closed() {
	c.at = over
	c.loop.Stop(&c.idle)
	c.loop.Stop(&c.pause)
}

func (c *serverConn) watchIdle() {
	if idle := c.server.plan.server.idle; idle > 0 {
		c.loop.Set(&c.idle, time.Now().Add(idle))
	}
}

// wasIdle ends a connection on which no request came in time.
func (c *serverConn) wasIdle() { c.end() }
