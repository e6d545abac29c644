package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// dialWithin bounds the dialing of an agent that listens, and dialEvery is how long is waited, up to, between two tries.
const (
	dialWithin = 5 * time.Second
	dialEvery  = 5 * time.Second
)

// redial begins to dial a host that listens, where it is told to now, and ends to dial where it was before. The
// caller holds the mutex.
func (f *Fleet) redial(h *host) {
	if h.dialer != nil {
		h.dialer()
		h.dialer = nil
	}
	address, name := h.kept.GetListenAddress(), h.kept.GetName()
	if address == "" || f.ending {
		return
	}
	ctx, cancel := context.WithCancel(f.life)
	h.dialer = cancel
	f.tasks.Go(func() { f.dial(ctx, name, address) })
}

// dial keeps a session with an agent that listens, until ctx ends.
func (f *Fleet) dial(ctx context.Context, name, address string) {
	for told := false; ctx.Err() == nil; {
		err := f.dialOnce(ctx, name, address)
		if err != nil && ctx.Err() == nil && !told {
			f.cfg.Log.Warn("an agent that listens cannot be reached", "host", name, "address", address, "error", err)
		}
		told = err != nil
		timer := time.NewTimer(rand.N(dialEvery))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// dialOnce is one session with an agent that listens.
func (f *Fleet) dialOnce(ctx context.Context, name, address string) error {
	lanes := []tcplabv1.TunnelLane{tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL, tcplabv1.TunnelLane_TUNNEL_LANE_BULK}
	conns, hellos := make([]net.Conn, len(lanes)), make([]*tcplabv1.TunnelHello, len(lanes))
	var who identity.Identity
	var dialing errgroup.Group
	for i, lane := range lanes {
		dialing.Go(func() error {
			conn, found, err := f.reach(ctx, address)
			if err != nil {
				return err
			}
			conns[i] = conn
			if found.Name != name {
				return fmt.Errorf("%s answers at %s, where host %s was expected", found, address, name)
			}
			if i == 0 {
				who = found
			}
			if hellos[i], err = tunnel.Hear(conn); err == nil {
				hellos[i].Lane = lane // who dials knows
			}
			return err
		})
	}
	err := dialing.Wait()
	var h *host
	at := mark{}
	if err == nil {
		at = mark{hellos[0].GetIncarnation(), max(hellos[0].GetSession(), hellos[1].GetSession())}
		h, err = f.admit(who, hellos[0], nil, at)
	}
	for _, conn := range conns {
		switch {
		case conn == nil:
		case err != nil:
			err = errors.Join(err, tunnel.Refuse(conn, err))
		default:
			err = tunnel.Welcome(conn, &tcplabv1.TunnelWelcome{Term: f.cfg.Term, ControllerVersion: f.cfg.Version})
		}
	}
	if err != nil {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
		return err
	}
	release := context.AfterFunc(ctx, func() { _, _ = conns[0].Close(), conns[1].Close() })
	defer release()
	return f.begin(name, h, conns[0], conns[1], at)
}

// reach dials, and returns who answers.
func (f *Fleet) reach(ctx context.Context, address string) (net.Conn, identity.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	raw, err := (&net.Dialer{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnel.Control}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, identity.Identity{}, err
	}
	secure := tls.Client(raw, f.cfg.Credential.Client(identity.Agent, tunnel.Protocol))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, identity.Identity{}, errors.Join(err, raw.Close())
	}
	who, err := identity.Verify(secure.ConnectionState().PeerCertificates, f.cfg.Credential.Authority(), x509.ExtKeyUsageServerAuth, time.Now())
	if err == nil {
		_, err = f.cfg.Member(who)
	}
	if err != nil {
		return nil, who, errors.Join(err, secure.Close())
	}
	return secure, who, nil
}
