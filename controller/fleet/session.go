package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// pairWithin bounds how long one connection of a session waits for the other.
const pairWithin = 10 * time.Second

// probeWithin bounds what an agent takes to say what its host can do, which it tries out.
const probeWithin = time.Minute

// maxResult bounds a message from an agent, in bytes: a lab of 1000 flows whose windows changed 512 times at
// both ends has a result of 20 MB.
const maxResult = 64 << 20

// session is two connections to an agent, and lasts as long as both.
type session struct {
	mark    mark
	address string
	control *grpc.ClientConn
	bulk    *grpc.ClientConn
	ended   chan struct{} // closed when either connection has ended, or the session was closed
	clock   *clock

	once sync.Once
	why  error // set before ended is closed
}

// close ends the session.
func (s *session) close(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.ended)
		// Their connections close with them.
		_ = s.control.Close()
		_ = s.bulk.Close()
	})
}

// half is a connection that waits for the other one of its session.
type half struct {
	conn  net.Conn
	lane  tcplabv1.TunnelLane
	timer *time.Timer
}

// Take takes over a connection on which an agent will greet, and returns at once. The error is
// why its certificate is not good; the agent is told.
func (f *Fleet) Take(conn net.Conn, who identity.Identity, err error) {
	if !f.start(func() {
		if err := f.greeted(conn, who, err); err != nil {
			f.cfg.Log.Warn("an agent is not served", "agent", who.Name, "address", conn.RemoteAddr(), "error", err)
		}
	}) {
		_ = conn.Close() // the fleet is ending
	}
}

// greeted greets an agent, and begins its session when both connections are there.
func (f *Fleet) greeted(conn net.Conn, who identity.Identity, refused error) error {
	// The end of the fleet ends the greeting.
	release := context.AfterFunc(f.life, func() { _ = conn.Close() })
	defer release()
	hello, err := tunnel.Hear(conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	at := mark{hello.GetIncarnation(), hello.GetSession()}
	h, err := f.admit(who, hello, refused, at)
	if err != nil {
		return errors.Join(err, tunnel.Refuse(conn, err))
	}
	if err := tunnel.Welcome(conn, &tcplabv1.TunnelWelcome{Term: f.cfg.Term, ControllerVersion: f.cfg.Version}); err != nil {
		return errors.Join(err, conn.Close())
	}
	control, bulk := f.pair(h, conn, hello.GetLane(), at)
	if control == nil {
		return nil
	}
	return f.begin(who.Name, h, control, bulk, at)
}

// admit finds the host of an agent, or says why the agent is not served.
func (f *Fleet) admit(who identity.Identity, hello *tcplabv1.TunnelHello, refused error, at mark) (*host, error) {
	if refused != nil {
		return nil, refused
	}
	if who.Kind != identity.Agent {
		return nil, rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "", "a tunnel is for agents, and the certificate is of %q", who)
	}
	member, err := f.cfg.Member(who)
	if err != nil {
		return nil, err
	}
	if err := tunnel.Skew("agent "+who.Name, hello.GetAgentVersion(), hello.GetContractMajor(), hello.GetContractMinor()); err != nil {
		return nil, err
	}
	if lane := hello.GetLane(); lane != tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL && lane != tcplabv1.TunnelLane_TUNNEL_LANE_BULK {
		return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "a connection for %v is unknown", lane)
	}
	h, err := f.meet(who.Name, member, at)
	if err != nil {
		return nil, err
	}
	// One that is new is on disk before it is commanded.
	if _, err := f.keep(f.life, who.Name, func(*tcplabv1.FleetHost) (*tcplabv1.FleetHost, error) { return nil, nil }); err != nil {
		return nil, err
	}
	return h, nil
}

// meet finds the host of an agent, or makes it known, and notes its newest session.
func (f *Fleet) meet(name string, member *tcplabv1.Principal, at mark) (*host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[name]
	if !ok {
		kept := &tcplabv1.FleetHost{Name: name, CreateTime: member.GetCreateTime()}
		if kept.GetCreateTime() == nil {
			kept.CreateTime = timestamppb.Now()
		}
		h = f.enter(kept)
	}
	if at.older(h.newest) {
		return nil, rpcerr.New(codes.Aborted, rpcerr.Stale, "end the other agent of this name, or have this one join under a name of its own",
			"a newer session of host %s is here: start %d, session %d", name, h.newest.incarnation, h.newest.session)
	}
	h.newest = at
	return h, nil
}

// pair keeps a connection until the other one of its session is there; then it returns both.
func (f *Fleet) pair(h *host, conn net.Conn, lane tcplabv1.TunnelLane, at mark) (control, bulk net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := h.halves[at.session]
	if first == nil || first.lane == lane {
		if first != nil {
			first.timer.Stop()
			_ = first.conn.Close()
		}
		waiting := &half{conn: conn, lane: lane}
		waiting.timer = time.AfterFunc(pairWithin, func() { f.giveUp(h, at, waiting) })
		h.halves[at.session] = waiting
		if f.ending {
			waiting.timer.Reset(0)
		}
		return nil, nil
	}
	delete(h.halves, at.session)
	if !first.timer.Stop() {
		_ = conn.Close() // the first was given up just now
		return nil, nil
	}
	if lane == tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL {
		return conn, first.conn
	}
	return first.conn, conn
}

// giveUp closes a connection that stayed alone.
func (f *Fleet) giveUp(h *host, at mark, alone *half) {
	f.mu.Lock()
	if h.halves[at.session] == alone {
		delete(h.halves, at.session)
	}
	f.mu.Unlock()
	_ = alone.conn.Close()
}

var (
	errFenced = errors.New("a newer session of the host began")
	errEnding = errors.New("the controller is stopping")
	errLost   = errors.New("the connection to the agent was lost")
	errSilent = errors.New("the agent does not answer")
)

// begin makes a session the host's, in place of an older one, and keeps it until it ends.
func (f *Fleet) begin(name string, h *host, control, bulk net.Conn, at mark) error {
	s := &session{mark: at, address: control.RemoteAddr().String(), ended: make(chan struct{}), clock: newClock()}
	limits := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResult), grpc.MaxCallSendMsgSize(maxResult))
	var controlEnded, bulkEnded <-chan struct{}
	var err error
	if s.control, controlEnded, err = tunnel.Call(control, false, limits); err != nil {
		return errors.Join(err, bulk.Close())
	}
	if s.bulk, bulkEnded, err = tunnel.Call(bulk, true, limits); err != nil {
		return errors.Join(err, s.control.Close(), control.Close())
	}
	// Closing a client closes its connection only once it was dialed.
	defer control.Close()
	defer bulk.Close()
	f.mu.Lock()
	if f.ending || f.hosts[name] != h || at.older(h.newest) {
		f.mu.Unlock()
		s.close(errFenced)
		return nil
	}
	if h.session != nil {
		h.session.close(errFenced)
	}
	h.session, h.since = s, time.Now()
	h.wake()
	f.mu.Unlock()
	f.cfg.Log.Info("a host is connected", "host", name, "address", s.address, "start", at.incarnation, "session", at.session)

	ctx, cancel := context.WithCancel(f.life)
	var beside sync.WaitGroup
	beside.Go(func() { f.ask(ctx, name, s) })
	beside.Go(func() { s.clock.follow(ctx, tcplabv1.NewAgentServiceClient(s.control), func() { s.close(errSilent) }) })
	select {
	case <-controlEnded:
		s.close(errLost)
	case <-bulkEnded:
		s.close(errLost)
	case <-f.life.Done():
		s.close(errEnding)
	case <-s.ended:
	}
	cancel()
	beside.Wait()
	f.mu.Lock()
	if h.session == s {
		h.session, h.since = nil, time.Now()
		h.wake()
	}
	f.mu.Unlock()
	f.cfg.Log.Info("a host is not connected any more", "host", name, "why", s.why)
	return nil
}

// wake tells all who wait for the host. The caller holds the mutex.
func (h *host) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// ask learns what the host can do.
func (f *Fleet) ask(ctx context.Context, name string, s *session) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	got, err := tcplabv1.NewAgentServiceClient(s.control).GetHost(ctx, &tcplabv1.GetHostRequest{})
	if err == nil {
		err = f.learn(ctx, name, got.GetHost())
	}
	if err != nil && ctx.Err() == nil {
		f.cfg.Log.Warn("what a host can do is not known", "host", name, "error", fmt.Errorf("ask host %s: %w", name, err))
	}
}
