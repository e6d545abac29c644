package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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

// The roles, as samples name the ends.
const (
	clientRole = "client"
	serverRole = "server"
)

// half is what client and server have in common: one end of a flow.
type half struct {
	flow     string // the flow's name
	role     string // clientRole or serverRole
	end      End
	kind     kind
	options  *tcplabv1.SocketOptions
	interval time.Duration
	samples  observe.Sink
	log      *slog.Logger
}

// measured is what one end has measured by itself.
type measured struct {
	address       netip.AddrPort
	started       time.Time     // the client: when it called connect(2)
	connect       time.Duration // the client: until the connection stood; 0 if it never did
	written, read uint64
	lastRead      time.Time
	latencies     latencies
	uncorrected   latencies // of an open loop: from when each in fact began
	wrote         []span    // a burst's client: when each write was called and returned
	arrived       []span    // a burst's server: when each write's first and last byte was read
	series        observe.Series
	congestion    string
	socket        *tcplabv1.SocketOptions // read back
	err           error
}

// client is the end that connects.
type client struct{ half }

// run connects to the server and does the client's part. It returns when the
// connection has ended or, at the latest, when ctx has; whatever was measured by then
// is in what it returns.
func (c *client) run(ctx context.Context, server netip.AddrPort) (m measured) {
	s, err := c.dial(ctx, server, &m)
	if s == nil {
		m.err = err
		return m
	}
	defer s.close()
	release := s.guard(ctx)
	defer release()
	if err != nil || ctx.Err() != nil {
		m.series.Last, _ = s.info()
		m.err = explain(ctx, fmt.Sprintf("connecting from %s to %s", c.end.Addr, server), err)
		return m
	}
	c.converse(ctx, s, &m, c.kind.client)
	return m
}

// dial opens a socket and connects it. Where that fails after connect(2) it
// returns the socket with the error.
//
// The kernel does not choose every port of a small range: older ones leave out the
// last of an odd number (__inet_hash_connect in net/ipv4/inet_hashtables.c). Where it
// finds none all are tried.
func (c *client) dial(ctx context.Context, server netip.AddrPort, m *measured) (*socket, error) {
	s, err := open(c.end, clientRole, c.options, 0)
	if err == nil {
		err = c.connect(ctx, s, server, m)
		if c.options.GetLocalPorts() == nil || !errors.Is(err, unix.EADDRNOTAVAIL) {
			return s, err
		}
		s.close()
	} else if !errors.Is(err, errPortByPort) {
		return nil, err
	}
	return c.dialPortByPort(ctx, server, m)
}

// dialPortByPort takes the first of the local ports from which the server can be
// reached.
func (c *client) dialPortByPort(ctx context.Context, server netip.AddrPort, m *measured) (*socket, error) {
	ports := c.options.GetLocalPorts()
	for port := ports.GetFirst(); ; port++ {
		s, err := open(c.end, clientRole, c.options, uint16(port))
		if err == nil {
			err = c.connect(ctx, s, server, m)
		}
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return s, err
		}
		if s != nil {
			s.close()
		}
		if port == ports.GetLast() {
			return nil, fmt.Errorf("each port of %d-%d has a connection to %s: %w", ports.GetFirst(), port, server, unix.EADDRNOTAVAIL)
		}
	}
}

func (c *client) connect(ctx context.Context, s *socket, server netip.AddrPort, m *measured) error {
	release := s.guard(ctx)
	defer release()
	m.started = time.Now()
	err := s.connect(server)
	took := time.Since(m.started)
	m.address = s.local()
	if err == nil && ctx.Err() == nil {
		m.connect = took
	}
	return err
}

// server is the end that listens, for one connection.
type server struct {
	half
	listener *socket
}

// listen opens the server's port.
func (s *server) listen() (netip.AddrPort, error) {
	listener, err := open(s.end, serverRole, s.options, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if err := unix.Listen(listener.fd, 1); err != nil {
		listener.close()
		return netip.AddrPort{}, fmt.Errorf("listen on %s: %w", s.end.Addr, err)
	}
	s.listener = listener
	return listener.local(), nil
}

// serve waits for the client and does the server's part, under the same
// terms as client.run. It closes the listener.
func (s *server) serve(ctx context.Context) (m measured) {
	m.address = s.listener.local()
	conn, err := s.accept(ctx)
	if err != nil {
		m.err = err
		return m
	}
	defer conn.close()
	release := conn.guard(ctx)
	defer release()
	s.converse(ctx, conn, &m, s.kind.server)
	return m
}

func (s *server) accept(ctx context.Context) (*socket, error) {
	defer s.listener.close()
	release := s.listener.guard(ctx)
	defer release()
	conn, err := s.listener.accept()
	if err != nil {
		return nil, explain(ctx, fmt.Sprintf("waiting for the client on %s", s.listener.local()), err)
	}
	return conn, nil
}

// converse does one side's part on a connection that stands, sampled
// meanwhile, and ends the connection in order.
func (h *half) converse(ctx context.Context, s *socket, m *measured, part func(context.Context, *stream) error) {
	watch := observe.NewWatch(observe.Watched{Flow: h.flow, End: h.role, Interval: h.interval, Read: s.info, Sink: h.samples})
	c := &stream{socket: s, measured: m}
	err := part(ctx, c)
	m.series = watch.Stop()
	m.congestion = s.congestion()
	m.socket = s.readOptions(h.end, h.options)
	if err != nil {
		m.err = explain(ctx, "exchanging data", err)
		return
	}
	// Everything is measured: a connection that then ends badly does not undo it.
	if err := s.finish(ctx, h.role == clientRole, m.series.Last.RTT); err != nil {
		h.log.Warn("connection reset, as it did not end in order", "flow", h.flow, "end", h.role, "error", err)
	}
}

// explain says what an end was doing when it failed. An interrupted call fails
// with whatever its socket then says; the reason is the context's.
func explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return &Stopped{Doing: doing, Cause: context.Cause(ctx)}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// How long an end waits for its connection to end in order: for a lost FIN to be sent
// again a few times, RTO being at least 200 ms and at first 1 s (RFC 6298).
const (
	finishBase       = 3 * time.Second
	finishRoundTrips = 8
)

// finish ends the connection in order: this end's FIN and the peer's are sent and
// acknowledged. Closed before that, the socket would be an orphan, or with
// SO_LINGER{1,0} reset the connection under the peer's last bytes. Where it
// fails, close resets. One end goes first, for two FINs that cross leave both
// ends in TIME_WAIT.
func (s *socket) finish(ctx context.Context, first bool, rtt time.Duration) error {
	patience := finishBase + finishRoundTrips*rtt
	if s.asked != nil && s.asked.Linger != nil {
		if asked := s.asked.GetLinger().AsDuration(); asked > 0 {
			patience = asked
		} else if first {
			return nil // close resets
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	release := s.guard(ctx)
	defer release()
	steps := []func() error{s.receiveFIN, s.finishWriting}
	if first {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		err := step()
		if s.resetIsTheEnd(err) {
			return nil
		}
		if err != nil {
			return explain(ctx, "exchanging FINs", err)
		}
	}
	// No call waits for the last ACK: the state is looked at, ever more rarely.
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		info, err := s.info()
		if err != nil {
			return err
		}
		if info.State == observe.StateClose {
			return nil
		}
		if err := wait(ctx, pause); err != nil {
			return explain(ctx, "waiting for the last ACK", err)
		}
	}
}

// resetIsTheEnd tells whether an error is the reset with which the lab wants the peer to
// end.
func (s *socket) resetIsTheEnd(err error) bool {
	return errors.Is(err, unix.ECONNRESET) && s.asked != nil && s.asked.Linger != nil && s.asked.GetLinger().AsDuration() == 0
}

// receiveFIN reads the end of the stream, and nothing before it.
func (s *socket) receiveFIN() error {
	switch n, err := s.discard(make([]byte, 1)); {
	case n > 0:
		return errTooMuch
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
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
