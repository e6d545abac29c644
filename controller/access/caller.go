package access

import (
	"context"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// local is what root of the controller's machine is called, who comes by the socket.
const local = "local"

// Caller is who makes a call.
type Caller struct {
	Principal *tcplabv1.Principal // nil: anyone
	Address   netip.Addr          // zero by the socket
	Expires   time.Time           // its certificate; zero without one
	identity  identity.Identity   // zero without a certificate
}

// String names the caller as the audit log does.
func (c Caller) String() string {
	switch {
	case c.Principal == nil:
		return "anyone"
	case c.identity.Kind == "":
		return local
	default:
		return c.identity.String()
	}
}

// callerKey is the context's key of the caller.
type callerKey struct{}

// CallerOf is who makes the call of a context. Without [Access] in between it is anyone.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// PermitExec is nil where the caller may have labs run programs, beside what they otherwise may.
func PermitExec(ctx context.Context) error {
	c := CallerOf(ctx)
	if c.Principal.GetExec() {
		return nil
	}
	return notExec(c)
}

func notExec(c Caller) error {
	return rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "ask an admin: tcplab user update "+c.Principal.GetName()+" --role "+roleWord(c.Principal.GetRole())+" --exec",
		"%s may not run programs in nodes", c)
}

// caller finds out who calls, or why that is nobody.
func (a *Access) caller(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, rpcerr.New(codes.Internal, "", "", "a call without a connection")
	}
	info, ok := p.AuthInfo.(connInfo)
	if !ok {
		return Caller{}, rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "", "the connection proves nobody")
	}
	c := Caller{Address: addressOf(p.Addr), Expires: info.expires}
	switch {
	case info.local:
		c.Principal = &tcplabv1.Principal{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, Name: local, Role: admin, Exec: true}
		return c, nil
	case info.err != nil:
		return c, info.err
	case info.identity.Kind == "":
		return c, nil
	case time.Now().After(info.expires):
		// Connections are not cut when a certificate ends: who renews goes on. Who does not is out with the next call.
		return c, rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "connect again with the renewed certificate", "the certificate of %s has expired", info.identity)
	}
	principal, err := a.Principal(info.identity)
	if err != nil {
		return c, err
	}
	c.Principal, c.identity = principal, info.identity
	return c, nil
}

func addressOf(address net.Addr) netip.Addr {
	if tcp, ok := address.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// permit holds a caller against the rule of a method.
func (a *Access) permit(c Caller, method string) error {
	rule, ok := a.rules[method]
	if !ok {
		return rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "", "%s may not be called", method)
	}
	p := c.Principal
	switch {
	case rule.Anyone:
		return nil
	case p == nil:
		return rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "join with a token first: tcplab context add", "%s needs a certificate of this controller's", short(method))
	case rule.Known:
		return nil
	case p.GetKind() != tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER:
		return rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "", "%s is for users, and %s is none", short(method), c)
	case p.GetRole() < rule.Role:
		return rpcerr.New(codes.PermissionDenied, rpcerr.AccessDenied, "ask an admin: tcplab user update "+p.GetName()+" --role "+roleWord(rule.Role),
			"%s needs the role %s, and %s is %s", short(method), roleWord(rule.Role), c, roleWord(p.GetRole()))
	case rule.Exec && !p.GetExec():
		return notExec(c)
	}
	return nil
}
