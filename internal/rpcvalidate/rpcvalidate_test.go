package rpcvalidate

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rude answers what is right and panics at a deployment called "panic".
type rude struct {
	tcplabv1.UnimplementedAgentServiceServer
}

func (rude) Apply(_ context.Context, r *tcplabv1.ApplyRequest) (*tcplabv1.ApplyResponse, error) {
	if r.GetDeploymentId() == "panic" {
		panic("as asked")
	}
	return &tcplabv1.ApplyResponse{}, nil
}

func (rude) WatchTrial(r *tcplabv1.WatchTrialRequest, _ grpc.ServerStreamingServer[tcplabv1.WatchTrialResponse]) error {
	if r.GetTrialId() == "panic" {
		panic("as asked")
	}
	return nil
}

func client(t *testing.T) (tcplabv1.AgentServiceClient, *strings.Builder) {
	t.Helper()
	var logged strings.Builder
	options, err := ServerOptions(slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	tcplabv1.RegisterAgentServiceServer(server, rude{})
	listener := bufconn.Listen(1 << 16)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:agent",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})
	return tcplabv1.NewAgentServiceClient(conn), &logged
}

func TestUnary(t *testing.T) {
	lab := &tcplabv1.Lab{Name: "lab", Nodes: []*tcplabv1.Node{{Name: "a"}}}
	for name, test := range map[string]struct {
		request *tcplabv1.ApplyRequest
		code    codes.Code
		fields  []string
	}{
		"right":          {&tcplabv1.ApplyRequest{DeploymentId: "d", Lab: lab}, codes.OK, nil},
		"no lab":         {&tcplabv1.ApplyRequest{DeploymentId: "d"}, codes.InvalidArgument, []string{"lab"}},
		"no ID, no name": {&tcplabv1.ApplyRequest{Lab: &tcplabv1.Lab{Nodes: lab.GetNodes()}}, codes.InvalidArgument, []string{"deployment_id", "lab.name"}},
		"panic":          {&tcplabv1.ApplyRequest{DeploymentId: "panic", Lab: lab}, codes.Internal, nil},
	} {
		t.Run(name, func(t *testing.T) {
			agent, logged := client(t)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := agent.Apply(ctx, test.request)
			if test.code == codes.OK {
				if err != nil {
					t.Fatalf("Apply: %v", err)
				}
				return
			}
			got := rpcerr.From(err)
			if got == nil || got.Code != test.code {
				t.Fatalf("Apply: %v, want %v", err, test.code)
			}
			if test.code == codes.InvalidArgument && got.Reason != rpcerr.RequestInvalid {
				t.Errorf("the reason is %q", got.Reason)
			}
			var fields []string
			for _, v := range got.Violations {
				fields = append(fields, v.Field)
				if !strings.Contains(got.Message, v.Field) || v.Description == "" {
					t.Errorf("violation %+v of message %q", v, got.Message)
				}
			}
			if strings.Join(fields, " ") != strings.Join(test.fields, " ") {
				t.Errorf("violations of %q, want %q", fields, test.fields)
			}
			if panicked := strings.Contains(logged.String(), "as asked"); panicked != (test.code == codes.Internal) {
				t.Errorf("logged %q", logged)
			}
		})
	}
}

func TestStream(t *testing.T) {
	for id, want := range map[string]codes.Code{"": codes.InvalidArgument, "panic": codes.Internal, "right": codes.OK} {
		t.Run(id, func(t *testing.T) {
			agent, _ := client(t)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			stream, err := agent.WatchTrial(ctx, &tcplabv1.WatchTrialRequest{TrialId: id})
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			if want == codes.OK {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the stream ended with %v", err)
				}
				return
			}
			if got := rpcerr.From(err); got.Code != want {
				t.Errorf("the stream ended with %v, want %v", err, want)
			}
		})
	}
}
