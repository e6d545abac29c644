package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Agent is a host's agent. Its calls wait for the host where it is not connected, for the fleet's patience, and
// calls whose session ends under them are made again in the next one: commands are idempotent by the ID they
// name. Streams are not: whoever reads them goes on where it was.
func (f *Fleet) Agent(name string) tcplabv1.AgentServiceClient {
	return tcplabv1.NewAgentServiceClient(&hostConn{fleet: f, host: name})
}

// hostConn is grpc.ClientConnInterface over whatever session a host has.
type hostConn struct {
	fleet *Fleet
	host  string
}

// Invoke is grpc.ClientConnInterface's.
func (c *hostConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	limit := time.Now().Add(c.fleet.cfg.Patience)
	for {
		s, err := c.fleet.await(ctx, c.host, limit)
		if err != nil {
			return err
		}
		err = broken(ctx, s.control.Invoke(ctx, method, args, reply, opts...))
		if err == nil || rpcerr.From(err).Code != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		if again, failed := c.fleet.awaitEnd(ctx, s, limit); !again {
			return errors.Join(err, failed)
		}
	}
}

// NewStream is grpc.ClientConnInterface's.
func (c *hostConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	limit := time.Now().Add(c.fleet.cfg.Patience)
	for {
		s, err := c.fleet.await(ctx, c.host, limit)
		if err != nil {
			return nil, err
		}
		// All streams of AgentService carry results or programs' output.
		stream, err := s.bulk.NewStream(ctx, desc, method, opts...)
		if err == nil {
			return hostStream{stream, ctx}, nil
		}
		if err = broken(ctx, err); rpcerr.From(err).Code != codes.Unavailable || ctx.Err() != nil {
			return nil, err
		}
		if again, failed := c.fleet.awaitEnd(ctx, s, limit); !again {
			return nil, errors.Join(err, failed)
		}
	}
}

// broken tells a session that was closed under a call, which gRPC calls cancelled, from a call that was cancelled.
func broken(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || rpcerr.From(err).Code != codes.Canceled {
		return err
	}
	return rpcerr.New(codes.Unavailable, "", "", "the session with the agent has ended: %w", err)
}

// hostStream is a stream over one session. Its own context ends with it, so that the caller's says who ended it.
type hostStream struct {
	grpc.ClientStream
	caller context.Context
}

// RecvMsg is grpc.ClientStream's.
func (s hostStream) RecvMsg(m any) error {
	return broken(s.caller, s.ClientStream.RecvMsg(m))
}

// await is the session of a host, once it has one.
func (f *Fleet) await(ctx context.Context, name string, limit time.Time) (*session, error) {
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	for {
		f.mu.Lock()
		h, ok := f.hosts[name]
		if !ok {
			f.mu.Unlock()
			return nil, unknown(name)
		}
		s, changed, since := h.session, h.changed, h.since
		f.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("reach host %s: %w", name, ctx.Err())
		case <-f.life.Done():
			return nil, rpcerr.New(codes.Unavailable, rpcerr.NotConnected, "", "reach host %s: %w", name, errEnding)
		case <-timer.C:
			return nil, rpcerr.New(codes.Unavailable, rpcerr.NotConnected, "see that its agent runs and reaches the controller: systemctl status tcplab-agent",
				"host %s has not been connected since %s", name, since.Format(time.DateTime))
		}
	}
}

// awaitEnd waits until a session in which a call failed has ended, and reports whether the call can be made again. A session that
// goes on is not at fault.
func (f *Fleet) awaitEnd(ctx context.Context, s *session, limit time.Time) (again bool, err error) {
	timer := time.NewTimer(min(time.Second, time.Until(limit)))
	defer timer.Stop()
	select {
	case <-s.ended:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-f.life.Done():
		return false, errEnding
	}
}
