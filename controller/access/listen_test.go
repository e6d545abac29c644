package access_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// clocked is an agent that knows the time.
type clocked struct {
	tcplabv1.UnimplementedAgentServiceServer
}

func (clocked) ReadClock(context.Context, *tcplabv1.ReadClockRequest) (*tcplabv1.ReadClockResponse, error) {
	return &tcplabv1.ReadClockResponse{}, nil
}

func credential(t *testing.T, a *access.Authority, kind identity.Kind) *identity.Credential {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.Sign(identity.Identity{Kind: kind, Name: "a-name", Enrolment: "e"}, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredential(key, der, a.Certificate().Raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An agent that listens takes commands from its controller, and tells all others so in their own protocol.
func TestListen(t *testing.T) {
	ours, err := access.OpenAuthority(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := access.OpenAuthority(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	open, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(tunnel.ServerOptions()...)
	tcplabv1.RegisterAgentServiceServer(server, clocked{})
	lis := tunnel.NewListener()
	agent := &tunnel.Agent{Credential: credential(t, ours, identity.Agent), Incarnation: 3, Version: "v1", Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(lis) })
	tasks.Go(func() { agent.Listen(ctx, open, lis) })
	defer tasks.Wait()
	defer server.Stop()
	defer cancel()
	address := open.Addr().String()

	// The controller greets, and commands.
	conn, err := tls.Dial("tcp", address, credential(t, ours, identity.Controller).Client(identity.Agent, tunnel.Protocol))
	if err != nil {
		t.Fatal(err)
	}
	hello, err := tunnel.Hear(conn)
	if err != nil || hello.GetIncarnation() != 3 || hello.GetContractMajor() != tunnel.ContractMajor {
		t.Fatalf("the agent greets with %v, error %v", hello, err)
	}
	if err := tunnel.Welcome(conn, &tcplabv1.TunnelWelcome{Term: 7}); err != nil {
		t.Fatal(err)
	}
	client, ended, err := tunnel.Call(conn, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tcplabv1.NewAgentServiceClient(client).ReadClock(t.Context(), &tcplabv1.ReadClockRequest{}); err != nil {
		t.Errorf("the controller's command: %v", err)
	}

	// Others do not.
	for name, who := range map[string]*identity.Credential{
		"a user":                         credential(t, ours, identity.User),
		"another agent":                  credential(t, ours, identity.Agent),
		"another authority's controller": credential(t, theirs, identity.Controller),
		"nobody":                         nil,
	} {
		config := &tls.Config{}
		if who != nil {
			config = who.Client(identity.Agent, identity.HTTP2)
		}
		config.InsecureSkipVerify, config.VerifyConnection = true, nil
		posing, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tcplabv1.NewAgentServiceClient(posing).ReadClock(t.Context(), &tcplabv1.ReadClockRequest{})
		if e := rpcerr.From(err); e == nil || e.Code != codes.PermissionDenied || e.Reason != rpcerr.AccessDenied {
			t.Errorf("%s commands: %v", name, err)
		}
		_ = posing.Close()
		// Nor by the tunnel's own protocol.
		raw, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tunnel.Protocol}, GetClientCertificate: config.GetClientCertificate})
		if err == nil {
			if content, err := io.ReadAll(raw); len(content) > 0 {
				t.Errorf("%s is greeted: %d bytes, error %v", name, len(content), err)
			}
			_ = raw.Close()
		}
	}
	if _, err := tcplabv1.NewAgentServiceClient(client).ReadClock(t.Context(), &tcplabv1.ReadClockRequest{}); err != nil {
		t.Errorf("the controller is disturbed: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
