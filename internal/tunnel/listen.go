package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/tap"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxProving bounds the connections to an agent that have not yet proven to be its controller's. More wait in
// the kernel's queue.
const maxProving = 64

// Listen takes connections of the controller from open, and hands them to lis to be served, until ctx ends; it
// closes open. Whoever is no controller is told so in gRPC.
func (a *Agent) Listen(ctx context.Context, open net.Listener, lis *Listener) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	refuser := newRefuser(&tasks)
	defer refuser.server.Stop()
	release := context.AfterFunc(ctx, func() { _ = open.Close() })
	defer release()
	places := make(chan struct{}, maxProving)
	for {
		conn, err := open.Accept()
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Error("the agent listens no more", "error", err)
			}
			return
		}
		places <- struct{}{}
		tasks.Go(func() {
			if err := a.prove(ctx, conn, lis, refuser, func() { <-places }); err != nil && ctx.Err() == nil {
				a.Log.Warn("a connection is not served", "from", conn.RemoteAddr(), "error", err)
			}
		})
	}
}

// prove has a connection prove to be the controller's, and hands it over. It calls proven when that is settled.
func (a *Agent) prove(ctx context.Context, raw net.Conn, lis *Listener, refuser *refuser, proven func()) error {
	settled := sync.OnceFunc(proven)
	defer settled()
	release := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer release()
	shake, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	secure := tls.Server(raw, a.Credential.Server(Protocol, identity.HTTP2))
	if err := secure.HandshakeContext(shake); err != nil {
		return errors.Join(err, raw.Close())
	}
	state := secure.ConnectionState()
	who, err := identity.Verify(state.PeerCertificates, a.Credential.Authority(), x509.ExtKeyUsageClientAuth, time.Now())
	if err == nil && who.Kind != identity.Controller {
		err = fmt.Errorf("%s is no controller", who)
	}
	if err != nil {
		refusal := rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "ask the controller to command this host", "an agent takes commands from its controller alone: %w", err)
		if state.NegotiatedProtocol == identity.HTTP2 {
			return errors.Join(err, refuser.refuse(ctx, secure))
		}
		return errors.Join(refusal, secure.Close())
	}
	if state.NegotiatedProtocol != Protocol {
		return errors.Join(fmt.Errorf("the controller speaks %q", state.NegotiatedProtocol), secure.Close())
	}
	welcome, err := Greet(secure, &tcplabv1.TunnelHello{Incarnation: a.Incarnation, Session: a.session.Add(1), AgentVersion: a.Version})
	if err != nil {
		return errors.Join(err, secure.Close())
	}
	if a.Connected != nil {
		a.Connected(welcome.GetTerm())
	}
	served := newWatched(secure)
	if !lis.deliver(ctx, served) {
		return served.Close()
	}
	settled()
	select {
	case <-served.ended:
	case <-ctx.Done():
	}
	return nil
}

// refuser speaks gRPC to those who are no controller, and says no to everything.
type refuser struct {
	server *grpc.Server
	lis    *Listener
}

func newRefuser(tasks *sync.WaitGroup) *refuser {
	r := &refuser{lis: NewListener()}
	r.server = grpc.NewServer(grpc.ConnectionTimeout(greetWithin), grpc.MaxConcurrentStreams(1), grpc.InTapHandle(
		func(ctx context.Context, _ *tap.Info) (context.Context, error) {
			return ctx, rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "ask the controller to command this host", "an agent takes commands from its controller alone")
		}))
	tasks.Go(func() { _ = r.server.Serve(r.lis) }) // until it is stopped
	return r
}

// refuse lets a connection hear its refusal, for a short while.
func (r *refuser) refuse(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	heard := newWatched(conn)
	if r.lis.deliver(ctx, heard) {
		select {
		case <-heard.ended:
		case <-ctx.Done():
		}
	}
	return heard.Close()
}
