package cli

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxAnswer bounds a message of a controller, in bytes (controller.MaxMessage).
const maxAnswer = 64 << 20

// controllerSocket is the socket in the state directory of a controller.
const controllerSocket = "controller.sock"

// connection is a controller elsewhere, or that of this machine by its socket.
type connection struct {
	conn   *grpc.ClientConn
	runs   tcplabv1.RunServiceClient
	labs   tcplabv1.LabServiceClient
	hosts  tcplabv1.HostServiceClient
	access tcplabv1.AccessServiceClient
}

func newConnection(conn *grpc.ClientConn) *connection {
	return &connection{
		conn: conn, runs: tcplabv1.NewRunServiceClient(conn), labs: tcplabv1.NewLabServiceClient(conn),
		hosts: tcplabv1.NewHostServiceClient(conn), access: tcplabv1.NewAccessServiceClient(conn),
	}
}

func (c *connection) closeQuietly() { _ = c.conn.Close() }

// openContext connects to the controller of the context that was chosen; nil: none was, and labs
// stand on this machine. The caller closes it.
func (a *app) openContext(ctx context.Context) (*connection, error) {
	contexts, err := a.contexts()
	if err != nil {
		return nil, err
	}
	name, err := contexts.current(a.context)
	if err != nil || name == embeddedContext {
		return nil, err
	}
	return a.openNamed(ctx, contexts, name)
}

// openFleet connects as openContext does, and where no context was chosen to the controller on this machine.
func (a *app) openFleet(ctx context.Context) (*connection, error) {
	c, err := a.openContext(ctx)
	if c != nil || err != nil {
		return c, err
	}
	return a.dialControllerSocket()
}

// withFleet calls fn with the controller of a fleet.
func (a *app) withFleet(ctx context.Context, fn func(*connection) error) error {
	c, err := a.openFleet(ctx)
	if err != nil {
		return err
	}
	defer c.closeQuietly()
	return fn(c)
}

// renewWithin bounds what a renewal may hold up a command.
const renewWithin = 10 * time.Second

func (a *app) openNamed(ctx context.Context, contexts *contexts, name string) (*connection, error) {
	if name == socketContext {
		return a.dialControllerSocket()
	}
	credential, address, err := contexts.load(name)
	if err != nil {
		return nil, err
	}
	c, err := dialController(address, credential)
	if err != nil {
		return nil, err
	}
	if leaf := credential.Leaf(); time.Now().After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
		ctx, cancel := context.WithTimeout(ctx, renewWithin)
		defer cancel()
		if err := renewContext(ctx, c.access, contexts.path(name), credential); err != nil {
			a.log.Warn("the certificate is not renewed", "context", name, "expires", leaf.NotAfter, "error", err)
		}
	}
	return c, nil
}

// renewContext replaces a certificate that is past half of its life.
func renewContext(ctx context.Context, access tcplabv1.AccessServiceClient, dir string, credential *identity.Credential) error {
	request, err := identity.Request(credential.Key())
	if err != nil {
		return err
	}
	renewed, err := access.RenewCertificate(ctx, &tcplabv1.RenewCertificateRequest{CertificateRequest: request})
	if err != nil {
		return err
	}
	if err := credential.Replace(renewed.GetCertificate()); err != nil {
		return err
	}
	return identity.SaveCertificate(dir, credential)
}

// dialController connects with a certificate. Nothing is dialed before the first call.
func dialController(address string, credential *identity.Credential) (*connection, error) {
	config := credential.Client(identity.Controller, identity.HTTP2)
	return dialWith(address, credentials.NewTLS(config))
}

func dialWith(address string, proof credentials.TransportCredentials) (*connection, error) {
	dialer := &net.Dialer{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnel.Control}
	options := append(tunnel.DialOptions(),
		grpc.WithTransportCredentials(proof),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(maxAnswer)))
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("reach the controller %s: %w", address, err)
	}
	return newConnection(conn), nil
}

// dialControllerSocket connects to the controller on this machine, which knows root by the socket.
func (a *app) dialControllerSocket() (*connection, error) {
	dir, err := a.controllerDirectory()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+filepath.Join(dir, controllerSocket),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := dialOnce(ctx, dir)
			if err != nil {
				return nil, &rpcerr.Error{
					Reason: rpcerr.NotConnected, Cause: err, Message: fmt.Sprintf("no controller answers at %s: %v", filepath.Join(dir, controllerSocket), err),
				}
			}
			return conn, nil
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("reach the controller on this machine: %w", err)
	}
	return newConnection(conn), nil
}

// controllerDirectory is where the controller on this machine keeps its state: the flag, the variable, and
// a folder of its own in what is otherwise the state directory.
func (a *app) controllerDirectory() (string, error) {
	if a.stateDir != "" || a.Getenv(stateDirVar) != "" {
		return a.stateDirectory()
	}
	dir, err := a.stateDirectory()
	return filepath.Join(dir, "controller"), err
}

// agentDirectory is where the agent on this machine keeps its own.
func (a *app) agentDirectory() (string, error) {
	if a.stateDir != "" || a.Getenv(stateDirVar) != "" {
		return a.stateDirectory()
	}
	dir, err := a.stateDirectory()
	return filepath.Join(dir, "agent"), err
}
