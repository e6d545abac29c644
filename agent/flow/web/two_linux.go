package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// two is a flow of HTTP/2: one connection, a stream for each object, by the client and the server
// of the standard library on blocking sockets.
type two struct {
	*Flow
	listener  *socket.Socket
	answering sync.WaitGroup // requests at the server

	mu sync.Mutex // of what client and server have seen
}

// runTwo is Run for HTTP/2.
func (f *Flow) runTwo(ctx context.Context) *tcplabv1.FlowResult {
	t := &two{Flow: f, listener: socket.New(f.server.listener, f.spec.GetSocket())}
	f.server.listener = -1
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan error, 1)
	go func() {
		err := t.serve(within)
		if err != nil {
			cancel(err)
		}
		served <- err
	}()
	err := t.fetch(within)
	if f.client.number == 0 {
		cancel(err) // nobody will come
	}
	serveErr := <-served
	switch {
	case ctx.Err() != nil:
		err = &flow.Stopped{Doing: "fetching", Cause: context.Cause(ctx)}
	case serveErr != nil && f.client.number > 0:
		err = fmt.Errorf("server: %w", serveErr)
	}
	return f.result(err)
}

// serve accepts the connection and answers on it until the client has ended it.
func (t *two) serve(ctx context.Context) error {
	defer t.listener.Close()
	release := t.listener.Guard(ctx)
	s, err := t.listener.Accept()
	release()
	if err != nil {
		return flow.Explain(ctx, "waiting for the client", err)
	}
	c := t.server.blocking(s)
	defer c.abandon()
	ended := c.Guard(ctx)
	defer ended()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           http.HandlerFunc(t.answer),
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: t.plan.client.pipeline},
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(t.cfg.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: time.Hour,
	}
	// It returns at once: there is one connection.
	if err := server.Serve(&single{conn: c}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("serve HTTP/2: %w", err)
	}
	<-c.eof // where ctx ends, too, as it interrupts the socket
	t.answering.Wait()
	return c.finish(ctx)
}

// answer answers a request.
func (t *two) answer(w http.ResponseWriter, r *http.Request) {
	t.answering.Add(1)
	defer t.answering.Done()
	received, err := io.Copy(io.Discard, r.Body)
	t.mu.Lock()
	t.server.seen.received += uint64(received)
	t.server.seen.executed[methodOf([]byte(r.Method))]++
	t.mu.Unlock()
	if err != nil {
		return // the client is gone
	}
	i := t.plan.find([]byte(r.URL.Path))
	if i < 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	o := &t.plan.objects[i]
	if o.serverTime > 0 {
		select {
		case <-time.After(o.serverTime):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Length", strconv.FormatUint(o.size, 10))
	p := make([]byte, min(o.answerBytes(), 64<<10))
	for left := o.answerBytes(); left > 0; {
		n, err := w.Write(p[:min(left, uint64(len(p)))])
		left -= uint64(n)
		t.mu.Lock()
		t.server.total.body += uint64(n)
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// fetch connects and asks for the objects: the document alone, the others as many at a time as there may
// be streams, begun in their order.
func (t *two) fetch(ctx context.Context) error {
	seen := &t.client.seen
	seen.exchanges = make([]exchange, len(t.plan.objects))
	c, err := t.dial(ctx)
	if err != nil {
		t.client.ended = time.Now()
		return err
	}
	defer c.abandon()
	ended := c.Guard(ctx)
	defer ended()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	library := &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	conn, err := library.NewClientConn(ctx, "http", net.JoinHostPort(t.client.host, strconv.Itoa(int(t.client.to.Port()))))
	if err != nil {
		return flow.Explain(ctx, "beginning HTTP/2", err)
	}
	var asking sync.WaitGroup
	streams := make(chan struct{}, t.plan.client.pipeline)
	var over atomic.Bool
	if t.client.lasts > 0 {
		timer := time.AfterFunc(t.client.lasts, func() { over.Store(true) })
		defer timer.Stop()
	}
	for i := range t.plan.objects {
		streams <- struct{}{}
		if over.Load() || ctx.Err() != nil {
			break
		}
		begun := make(chan struct{})
		asking.Go(func() {
			defer func() { <-streams }()
			t.ask(ctx, conn, i, sync.OnceFunc(func() { close(begun) }))
		})
		<-begun
		if i == 0 && t.plan.leading {
			asking.Wait()
			seen.documentDone = seen.exchanges[0].done
		}
	}
	asking.Wait()
	t.client.timeUp = over.Load()
	t.client.ended = time.Now()
	seen.overtaken = overtaken(seen.exchanges)
	if err := conn.Close(); err != nil && seen.failure == nil {
		t.cfg.Log.Warn("end HTTP/2", "flow", t.client.flow, "error", err)
	}
	if err := c.finish(ctx); err != nil {
		t.cfg.Log.Warn("connection reset, as it did not end in order", "flow", t.client.flow, "end", "client", "error", err)
	}
	return seen.failure
}

// dial connects.
func (t *two) dial(ctx context.Context) (*twoConn, error) {
	dialer := socket.Dialer{Spec: t.client.spec}
	var s *socket.Socket
	var stood time.Time
	err := dialer.Dial(func(port uint16) (err error) {
		if s, err = dialer.Spec.Socket(port); err != nil {
			return err
		}
		release := s.Guard(ctx)
		t.client.begun = time.Now()
		err = s.Connect(t.client.to)
		stood = time.Now()
		release()
		if err != nil {
			s.Close()
		}
		return err
	})
	if err != nil {
		return nil, flow.Explain(ctx, fmt.Sprintf("connecting from %s to %s", t.client.spec.Addr, t.client.to), err)
	}
	took := stood.Sub(t.client.begun)
	t.client.seen.connect.Add(took)
	t.client.seen.phases.connect = took
	t.client.seen.connections, t.client.seen.peak = 1, 1
	return t.client.blocking(s), nil
}

// ask asks for an object; begun is called once its request is on its way, or nothing will be.
func (t *two) ask(ctx context.Context, conn *http.ClientConn, i int, begun func()) {
	defer begun()
	o, e := &t.plan.objects[i], &t.client.seen.exchanges[i]
	e.connection = 1
	trace := &httptrace.ClientTrace{
		WroteHeaders:         begun,
		GotFirstResponseByte: func() { e.task.arrived = time.Now() },
	}
	var body io.Reader
	if o.body > 0 {
		body = io.LimitReader(zeros{}, int64(o.body))
	}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), o.method, "http://"+t.client.host+o.target, body)
	if err != nil {
		t.done(i, 0, err)
		return
	}
	request.ContentLength = int64(o.body)
	t.mu.Lock()
	t.client.seen.requests++
	t.client.seen.asked += o.answerBytes()
	if i > 0 {
		t.client.seen.reused++
	}
	t.mu.Unlock()
	e.task.asked = time.Now()
	e.task.first, e.task.tries, e.task.object = e.task.asked, 1, i
	response, err := conn.RoundTrip(request)
	if err != nil {
		t.done(i, 0, err)
		return
	}
	defer response.Body.Close()
	e.status = response.StatusCode
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil && e.status >= 400 {
		err = fmt.Errorf("the answer is %d", e.status)
	}
	t.done(i, uint64(n), err)
}

// done takes note of what became of an object.
func (t *two) done(i int, bytes uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &t.client.seen.exchanges[i]
	if err != nil && bytes > 0 {
		t.client.seen.cutShort++
	}
	t.client.seen.bodies += bytes
	e.place = int(t.client.seen.answers) + 1
	t.client.finish(e.task, nil, bytes, err)
	t.client.seen.lastRead = e.done
	if p := &t.client.seen.phases; i == 0 && err == nil {
		p.firstByte, p.body = e.task.arrived.Sub(e.task.asked), e.done.Sub(e.task.arrived)
		p.total = e.done.Sub(t.client.begun)
	}
}

// overtaken counts answers that ended before one to an earlier request.
func overtaken(all []exchange) (n uint32) {
	for i := range all {
		earlier := slices.ContainsFunc(all[:i], func(e exchange) bool { return e.done.After(all[i].done) })
		if earlier && all[i].err == nil {
			n++
		}
	}
	return n
}

// zeros is a body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// twoConn is a blocking socket as the library wants its connection. Its Close ends the side
// alone: finish does the rest.
type twoConn struct {
	*socket.Socket
	side *side
	c    *conn // for its watch
	eof  chan struct{}
	once sync.Once

	written, read atomic.Uint64
}

func (s *side) blocking(sock *socket.Socket) *twoConn {
	s.number++
	c := &conn{side: s, fd: sock.FD, number: s.number}
	s.watched(c)
	return &twoConn{Socket: sock, side: s, c: c, eof: make(chan struct{})}
}

// abandon closes the connection, and resets it unless it has ended. It may be called again.
func (c *twoConn) abandon() {
	c.c.stopWatch()
	if err := c.Socket.Close(); err != nil {
		c.side.log.Error("close a socket", "flow", c.side.flow, "end", c.side.name, "error", err)
	}
}

// single is a listener with one connection.
type single struct {
	conn *twoConn
}

// Accept gives the connection, and then says that there is no other.
func (s *single) Accept() (net.Conn, error) {
	if c := s.conn; c != nil {
		s.conn = nil
		return c, nil
	}
	return nil, io.EOF
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

// finish ends the connection in order, once the library has ended its side, and closes it.
func (c *twoConn) finish(ctx context.Context) error {
	info, err := c.Info()
	c.c.stopWatch()
	// The library still acknowledges what comes until the peer's end.
	defer func() { c.side.total.written, c.side.total.read = c.written.Load(), c.read.Load() }()
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, patienceBase+patienceRoundTrips*info.RTT)
	defer cancel()
	select {
	case <-c.eof:
	case <-within.Done():
		return flow.Explain(within, "waiting for the peer's end", within.Err())
	}
	return c.Finish(within, true, info.RTT)
}

func (c *twoConn) Read(p []byte) (int, error) {
	n, err := c.Receive(p)
	c.read.Add(uint64(n))
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		c.once.Do(func() { close(c.eof) })
	}
	return n, err
}

func (c *twoConn) Write(p []byte) (int, error) {
	n, err := c.Socket.Write(p)
	c.written.Add(uint64(n))
	return n, err
}

// Close ends this side.
func (c *twoConn) Close() error { return c.FinishWriting() }

func (c *twoConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.Local()) }
func (c *twoConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.Local()) }

// A flow's deadlines are its context's.
func (c *twoConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *twoConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *twoConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
