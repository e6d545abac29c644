package flow

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// kind is what a flow does with its connection. Each side returns when its part
// is done, or as soon as the connection fails; ctx is for what it waits for
// beside the socket, whose calls are interrupted when ctx ends.
type kind interface {
	name() string
	client(context.Context, *stream) error
	server(context.Context, *stream) error
	// forward says whether the flow exists for the bytes from client to server.
	forward() bool
}

// half is what client and server have in common: one end of a flow.
type half struct {
	flow      string // the flow's name
	samplesOf string // its name in samples: that of the stream, where there are several
	role      socket.Role
	end       End
	kind      kind
	options   *tcplabv1.SocketOptions
	duration  time.Duration // after which it ends in order; 0: when all is done
	interval  time.Duration
	samples   observe.Sink
	sampler   *observe.Sampler
	detailed  bool // each sample says what the congestion control does
	log       *slog.Logger
}

func (h *half) spec() socket.Spec {
	return socket.Spec{End: h.end, Role: h.role, Options: h.options}
}

// measured is what one end has measured by itself.
type measured struct {
	address        netip.AddrPort
	begun          time.Time     // when this end began
	started        time.Time     // the client: when it called connect(2)
	connect        time.Duration // the client: until the connection stood; 0 if it never did
	written, read  uint64
	lastRead       time.Time
	latencies      latency.Set
	uncorrected    latency.Set // of an open loop: from when each in fact began
	wrote          []span      // a burst's client: when each write was called and returned
	arrived        []span      // a burst's server: when each write's first and last byte was read
	zerocopySends  uint64      // writes without a copy that the kernel has completed
	zerocopyCopied uint64      // those that it copied all the same
	series         observe.Series
	congestion     string
	control        observe.Congestion
	socket         *tcplabv1.SocketOptions // read back
	err            error
}

// client is the end that connects.
type client struct{ half }

// run connects to the server and does the client's part. It returns when the
// connection has ended or, at the latest, when ctx has; whatever was measured by then
// is in what it returns.
func (c *client) run(ctx context.Context, server netip.AddrPort) (m measured) {
	m.begun = time.Now()
	s, err := c.dial(ctx, server, &m)
	if s == nil {
		m.err = err
		return m
	}
	defer s.Close()
	release := s.Guard(ctx)
	defer release()
	if err != nil || ctx.Err() != nil {
		m.series.Last, _ = s.Info()
		m.err = Explain(ctx, fmt.Sprintf("connecting from %s to %s", c.end.Addr, server), err)
		return m
	}
	c.converse(ctx, s, &m, m.begun, c.kind.client)
	return m
}

// dial opens a socket and connects it. Where that fails after connect(2) it
// returns the socket with the error.
func (c *client) dial(ctx context.Context, server netip.AddrPort, m *measured) (s *socket.Socket, err error) {
	dialer := socket.Dialer{Spec: c.spec()}
	err = dialer.Dial(func(port uint16) (err error) {
		if s != nil {
			s.Close() // of an attempt that found its port taken
		}
		if s, err = dialer.Spec.Socket(port); err != nil {
			return err
		}
		return c.connect(ctx, s, server, m)
	})
	return s, err
}

func (c *client) connect(ctx context.Context, s *socket.Socket, server netip.AddrPort, m *measured) error {
	release := s.Guard(ctx)
	defer release()
	m.started = time.Now()
	err := s.Connect(server)
	took := time.Since(m.started)
	m.address = s.Local()
	if err == nil && ctx.Err() == nil {
		m.connect = took
	}
	return err
}

// server is the end that listens, for one connection.
type server struct {
	half
	listener *socket.Socket
}

// listen opens the server's port.
func (s *server) listen() (netip.AddrPort, error) {
	spec := s.spec()
	fd, err := spec.Listen(1, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.listener = socket.New(fd, s.options)
	return fd.Local(), nil
}

// close closes the port, if it is open.
func (s *server) close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// serve waits for the client and does the server's part, under the same
// terms as client.run. It closes the listener.
func (s *server) serve(ctx context.Context) (m measured) {
	m.address = s.listener.Local()
	conn, err := s.accept(ctx)
	if err != nil {
		m.err = err
		return m
	}
	defer conn.Close()
	release := conn.Guard(ctx)
	defer release()
	s.converse(ctx, conn, &m, time.Now(), s.kind.server)
	return m
}

func (s *server) accept(ctx context.Context) (*socket.Socket, error) {
	defer s.listener.Close()
	release := s.listener.Guard(ctx)
	defer release()
	conn, err := s.listener.Accept()
	if err != nil {
		return nil, Explain(ctx, fmt.Sprintf("waiting for the client on %s", s.listener.Local()), err)
	}
	return conn, nil
}

// converse does one side's part on a connection that stands, sampled
// meanwhile, and ends the connection in order. What the lab gives it for its duration counts from begun.
func (h *half) converse(ctx context.Context, s *socket.Socket, m *measured, begun time.Time, part func(context.Context, *stream) error) {
	watched := observe.Watched{
		Flow: h.samplesOf, End: string(h.role), Interval: h.interval, FD: int(s.FD), Last: s.Info, Sink: h.samples, Sampler: h.sampler,
	}
	if h.detailed {
		watched.Control = s.Congestion()
	}
	watch := observe.NewWatch(watched)
	c := &stream{Socket: s, measured: m, limited: h.duration > 0}
	if c.limited {
		c.until = begun.Add(h.duration)
	}
	// A thread of its own: a wakeup then takes no turn of Go's scheduler to find one.
	runtime.LockOSThread()
	err := part(ctx, c)
	runtime.UnlockOSThread()
	m.series = watch.Stop()
	m.congestion = s.Congestion()
	// A socket that says nothing leaves it empty.
	m.control, _ = s.CongestionInfo(m.congestion)
	spec := h.spec()
	m.socket = s.ReadOptions(&spec)
	if err != nil {
		m.err = Explain(ctx, "exchanging data", err)
		return
	}
	// Everything is measured: a connection that then ends badly does not undo it.
	if err := s.Finish(ctx, h.role == socket.Client, m.series.Last.RTT); err != nil {
		h.log.Warn("connection reset, as it did not end in order", "flow", h.flow, "end", h.role, "error", err)
	}
}

// Explain says what an end was doing when it failed. An interrupted call fails
// with whatever its socket then says; the reason is the context's.
func Explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return &Stopped{Doing: doing, Cause: context.Cause(ctx)}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// wait waits for d, or returns the reason why ctx ended before.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
