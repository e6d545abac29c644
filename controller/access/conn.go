package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
)

// What a connection without a certificate may take: to enrol is a matter of two messages.
const (
	strangerLife  = 30 * time.Second
	strangerBytes = 64 << 10
)

// connInfo is what a connection proves of its other end.
type connInfo struct {
	local    bool              // root of this machine, or the controller's own user
	identity identity.Identity // zero: none
	expires  time.Time
	err      error // what is wrong with its certificate
}

// AuthType is credentials.AuthInfo's.
func (connInfo) AuthType() string { return "tcplab" }

// Dispatch takes over a connection that speaks another protocol than gRPC. It must not wait.
type Dispatch func(conn net.Conn, who identity.Identity, err error)

// Handshake makes connections prove whom they are of: by TLS, or for a Unix socket by the credentials that the
// kernel knows of the peer. A TLS connection that agrees on another protocol than HTTP/2 is handed over.
func (a *Access) Handshake(own *identity.Credential, others map[string]Dispatch) credentials.TransportCredentials {
	protocols := []string{identity.HTTP2}
	for protocol := range others {
		protocols = append(protocols, protocol)
	}
	return &handshake{access: a, config: own.Server(protocols...), others: others}
}

type handshake struct {
	access *Access
	config *tls.Config
	others map[string]Dispatch
}

// ServerHandshake is credentials.TransportCredentials'. The server bounds its time.
func (h *handshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if unix, ok := raw.(*net.UnixConn); ok {
		if err := ownPeer(unix); err != nil {
			return nil, nil, err
		}
		return raw, connInfo{local: true}, nil
	}
	secure := tls.Server(raw, h.config)
	if err := secure.HandshakeContext(context.Background()); err != nil { // the server has set a deadline
		return nil, nil, err
	}
	state := secure.ConnectionState()
	info := h.read(state)
	if dispatch := h.others[state.NegotiatedProtocol]; dispatch != nil {
		c := h.access.admit(secure, info)
		// gRPC bounds the time of handshakes by a deadline, and this one is over.
		if err := c.SetDeadline(time.Time{}); err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
		dispatch(c, info.identity, info.err)
		return nil, nil, credentials.ErrConnDispatched
	}
	if state.NegotiatedProtocol != identity.HTTP2 {
		return nil, nil, errors.Join(errors.New("the client speaks no protocol that is served here"), secure.Close())
	}
	return h.access.admit(secure, info), info, nil
}

// read finds whom the peer's certificate names, and what is wrong with it: the call is told, which TLS
// could only hang up on.
func (h *handshake) read(state tls.ConnectionState) connInfo {
	if len(state.PeerCertificates) == 0 {
		return connInfo{}
	}
	i, err := identity.Verify(state.PeerCertificates, h.access.cfg.Authority.Certificate(), x509.ExtKeyUsageClientAuth, time.Now())
	if err != nil {
		return connInfo{err: rpcerr.New(codes.Unauthenticated, rpcerr.AccessDenied, "join this controller with a token", "%w", err)}
	}
	return connInfo{identity: i, expires: state.PeerCertificates[0].NotAfter}
}

// ClientHandshake is credentials.TransportCredentials'; nobody dials with these.
func (h *handshake) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// Info is credentials.TransportCredentials'.
func (h *handshake) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone is credentials.TransportCredentials'.
func (h *handshake) Clone() credentials.TransportCredentials { return h }

// OverrideServerName is credentials.TransportCredentials'.
func (h *handshake) OverrideServerName(string) error { return nil }

// conn is a connection that ends with its owner's being in. One of a stranger may only take so much.
type conn struct {
	net.Conn
	left  func(*conn) // called once, at its end
	timer *time.Timer // of a stranger
	once  sync.Once
	bytes int // that a stranger may still send; used by the one who reads
}

// admit enters a connection. Without anybody known behind it, it is a stranger's.
func (a *Access) admit(raw net.Conn, info connInfo) *conn {
	c := &conn{Conn: raw, left: func(*conn) {}}
	a.mu.Lock() // over both steps: who is let out in between is found
	defer a.mu.Unlock()
	who := memberOf(info.identity)
	m, ok := a.members[who]
	if info.err != nil || !ok || m.Enrolment != info.identity.Enrolment {
		c.bytes = strangerBytes
		c.timer = time.AfterFunc(strangerLife, func() { _ = raw.Close() })
		return c
	}
	c.left = func(c *conn) {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.conns[who], c)
		if len(a.conns[who]) == 0 {
			delete(a.conns, who)
		}
	}
	if a.conns[who] == nil {
		a.conns[who] = make(map[*conn]bool)
	}
	a.conns[who][c] = true
	return c
}

var errStranger = errors.New("too much was sent without a certificate")

// Read is net.Conn's.
func (c *conn) Read(p []byte) (int, error) {
	if c.timer == nil {
		return c.Conn.Read(p)
	}
	if c.bytes <= 0 {
		return 0, errStranger
	}
	n, err := c.Conn.Read(p[:min(len(p), c.bytes)])
	c.bytes -= n
	return n, err
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.once.Do(func() {
		if c.timer != nil {
			c.timer.Stop()
		}
		c.left(c)
	})
	return c.Conn.Close()
}
