package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/internal/identity"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// How long an agent waits before it dials again: a time drawn evenly up to a bound that doubles from retryFirst
// to RetryMost with each failure (full jitter), so that a fleet whose controller restarts comes back spread out.
const (
	retryFirst = time.Second
	RetryMost  = 15 * time.Second
)

// steady is how long a session lasts for the next failure to count as the first.
const steady = 30 * time.Second

// Agent is what an agent keeps its tunnel with.
type Agent struct {
	// Controller is its address, host:port.
	Controller string
	// Credential is the agent's.
	Credential *identity.Credential
	// Incarnation counts the starts of this agent, from 1.
	Incarnation uint64
	// Version of this tcplab.
	Version string
	// Dial connects; nil: TCP with KeepAlive.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Connected is told of each session, with the controller's term; nil: nobody.
	Connected func(term uint64)
	// Log is told of sessions that end or cannot begin. Never nil.
	Log *slog.Logger

	session atomic.Uint64
}

// Run keeps a session with the controller until ctx ends, and hands its two connections to lis to be served.
// It returns when both have ended.
func (a *Agent) Run(ctx context.Context, lis *Listener) {
	for failures := 0; ; failures++ {
		began := time.Now()
		err := a.once(ctx, lis)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			failures = 0
		}
		bound := RetryMost
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			a.Log.Error("the controller does not have this agent", "controller", a.Controller, "error", refusal, "remedy", refusal.Reason.Remedy)
		} else {
			bound = min(RetryMost, retryFirst<<min(failures, 10))
			a.Log.Warn("there is no session with the controller", "controller", a.Controller, "error", err)
		}
		timer := time.NewTimer(rand.N(bound))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// once is one session, from dialing to its end.
func (a *Agent) once(ctx context.Context, lis *Listener) error {
	session := a.session.Add(1)
	lanes := []tcplabv1.TunnelLane{tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL, tcplabv1.TunnelLane_TUNNEL_LANE_BULK}
	conns := make([]net.Conn, len(lanes))
	terms := make([]uint64, len(lanes))
	var dialing errgroup.Group
	for i, lane := range lanes {
		dialing.Go(func() (err error) {
			conns[i], terms[i], err = a.connect(ctx, lane, session)
			return err
		})
	}
	if err := dialing.Wait(); err != nil {
		return errors.Join(err, closeAll(conns))
	}
	if a.Connected != nil {
		a.Connected(terms[0])
	}
	served := make([]*watched, len(conns))
	for i, conn := range conns {
		served[i] = newWatched(conn)
		if !lis.deliver(ctx, served[i]) {
			return errors.Join(context.Cause(ctx), closeAll(conns))
		}
	}
	// One without the other is no session.
	select {
	case <-served[0].ended:
	case <-served[1].ended:
	case <-ctx.Done():
	}
	_ = served[0].Close()
	_ = served[1].Close()
	return errors.New("the session has ended")
}

// connect makes one connection of a session.
func (a *Agent) connect(ctx context.Context, lane tcplabv1.TunnelLane, session uint64) (net.Conn, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	dial := a.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: KeepAlive(), Control: Control}).DialContext
	}
	raw, err := dial(ctx, "tcp", a.Controller)
	if err != nil {
		return nil, 0, fmt.Errorf("reach the controller: %w", err)
	}
	secure := tls.Client(raw, a.Credential.Client(identity.Controller, Protocol))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("reach the controller: %w", err), raw.Close())
	}
	welcome, err := Greet(secure, &tcplabv1.TunnelHello{
		Lane: lane, Incarnation: a.Incarnation, Session: session, AgentVersion: a.Version,
	})
	if err != nil {
		return nil, 0, errors.Join(err, secure.Close())
	}
	return secure, welcome.GetTerm(), nil
}

func closeAll(conns []net.Conn) error {
	var errs []error
	for _, conn := range conns {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// Listener is where an agent's server takes connections from that were made in another way than by accepting them.
type Listener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

// NewListener makes one. Its server closes it.
func NewListener() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// deliver hands a connection over, and reports whether the server took it.
func (l *Listener) deliver(ctx context.Context, conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.done:
	case <-ctx.Done():
	}
	return false
}

// Accept is net.Listener's.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is net.Listener's.
func (l *Listener) Addr() net.Addr { return tunnelAddr{} }

type tunnelAddr struct{}

// Network is net.Addr's.
func (tunnelAddr) Network() string { return "tcplab" }

// String is net.Addr's.
func (tunnelAddr) String() string { return "tunnel" }
