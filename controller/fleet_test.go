package controller_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// fleetHarness is a controller of a fleet that serves on TCP and a socket.
type fleetHarness struct {
	dir     string
	address string
	admin   *grpc.ClientConn // by the socket
	stop    func() error     // idempotent
}

// fleetPatience is short: what a test has wait is about to come, or never comes.
const fleetPatience = 5 * time.Second

// startFleet starts a controller on a state directory, at an address or any.
func startFleet(t *testing.T, dir, address string) *fleetHarness {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{Lasting: true, Wait: fleetPatience})
	if err != nil {
		t.Fatal(err)
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	var config net.ListenConfig
	tcp, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	unix, err := config.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &fleetHarness{dir: dir, address: tcp.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := controller.Run(ctx, controller.Config{
			Store: s, Lease: 10 * time.Second, Version: "v1", Fleet: &controller.Fleet{Name: "lab1", Patience: fleetPatience},
		}, tcp, unix)
		ended <- errors.Join(err, s.Close())
	}()
	h.admin, err = grpc.NewClient("passthrough:///socket", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		t.Fatal(err)
	}
	// Its authority is there when it serves.
	if _, err := tcplabv1.NewAccessServiceClient(h.admin).GetIdentity(t.Context(), &tcplabv1.GetIdentityRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	h.stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() {
		if err := errors.Join(h.admin.Close(), h.stop()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// token makes a join token.
func (h *fleetHarness) token(t *testing.T, req *tcplabv1.CreateTokenRequest) identity.Token {
	t.Helper()
	made, err := tcplabv1.NewAccessServiceClient(h.admin).CreateToken(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(made.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// user lets a user in, and returns its credential.
func (h *fleetHarness) user(t *testing.T, name string, role tcplabv1.Role, exec bool) *identity.Credential {
	t.Helper()
	token := h.token(t, &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, Name: name, Role: role, Exec: exec})
	c, _, err := identity.Join(t.Context(), h.address, token, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial connects with a credential; nil: without any.
func (h *fleetHarness) dial(t *testing.T, c *identity.Credential) *grpc.ClientConn {
	t.Helper()
	return dialTLS(t, h.address, c, identity.Controller)
}

func dialTLS(t *testing.T, address string, c *identity.Credential, peer identity.Kind, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.HTTP2}}
	if c != nil {
		config = c.Client(peer, identity.HTTP2)
	}
	return dialConfig(t, address, config, options...)
}

func dialConfig(t *testing.T, address string, config *tls.Config, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(128<<20)))
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// simulated is a host whose agent speaks the real protocol and does as the script says.
type simulated struct {
	credential *identity.Credential
	stop       func()
}

// host lets a host in and has its agent serve.
func (h *fleetHarness) host(t *testing.T, name string, agent tcplabv1.AgentServiceServer) *simulated {
	t.Helper()
	token := h.token(t, &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: name})
	c, _, err := identity.Join(t.Context(), h.address, token, "")
	if err != nil {
		t.Fatal(err)
	}
	s := h.connect(t, c, 1, agent)
	h.awaitHost(t, name, true)
	return s
}

// connect keeps a tunnel for an agent's start.
func (h *fleetHarness) connect(t *testing.T, c *identity.Credential, incarnation uint64, agent tcplabv1.AgentServiceServer) *simulated {
	t.Helper()
	server := grpc.NewServer(tunnel.ServerOptions()...)
	tcplabv1.RegisterAgentServiceServer(server, agent)
	lis := tunnel.NewListener()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(lis) })
	link := &tunnel.Agent{Controller: h.address, Credential: c, Incarnation: incarnation, Version: "v1", Log: slog.New(slog.DiscardHandler)}
	tasks.Go(func() { link.Run(ctx, lis) })
	s := &simulated{credential: c}
	s.stop = sync.OnceFunc(func() {
		cancel()
		server.Stop()
		tasks.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// awaitHost waits until a host is connected, or is not.
func (h *fleetHarness) awaitHost(t *testing.T, name string, connected bool) *tcplabv1.FleetHost {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		got, err := tcplabv1.NewHostServiceClient(h.admin).GetHost(t.Context(), &tcplabv1.HostServiceGetHostRequest{Name: name})
		if err == nil && got.GetHost().GetConnected() == connected {
			return got.GetHost()
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("host %s: %v, error %v; want connected: %v", name, got, err, connected)
		}
	}
}

// wants checks an error's code and reason.
func wants(t *testing.T, what string, err error, code codes.Code) {
	t.Helper()
	if e := rpcerr.From(err); e == nil || e.Code != code {
		t.Errorf("%s: got %v, want %v", what, err, code)
	}
}

// A run goes to the host that its nodes name, and comes back whole.
func TestFleetRun(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	agents := map[string]*scriptedAgent{"host-a": newScriptedAgent(), "host-b": newScriptedAgent()}
	for name, agent := range agents {
		h.host(t, name, agent)
	}
	runs := tcplabv1.NewRunServiceClient(h.dial(t, h.user(t, "alice", tcplabv1.Role_ROLE_OPERATOR, false)))
	placed := []byte(labOn("host-b"))
	created, err := runs.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: placed}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := awaitRun(t, runs, created.GetRun().GetId())
	if run.GetState() != succeeded || len(run.GetHosts()) != 1 || run.GetHosts()[0] != "host-b" {
		t.Errorf("the run: %v", run)
	}
	if n := agents["host-a"].count("Apply"); n > 0 {
		t.Errorf("host-a was asked %d times to build", n)
	}
	if left, results := agents["host-b"].left(); left+results > 0 {
		t.Errorf("left on host-b: %d deployments, %d results", left, results)
	}
}

// awaitRun follows a run to its end.
func awaitRun(t *testing.T, runs tcplabv1.RunServiceClient, id string) *tcplabv1.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := runs.WatchRun(ctx, &tcplabv1.WatchRunRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	got, err := runs.GetRun(ctx, &tcplabv1.GetRunRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetRun()
}

// labOn is the scripted lab with its nodes on a host.
func labOn(host string) string {
	return strings.Replace(labFile, "nodes: [client, server]", "nodes: {client: {on: "+host+"}, server: {on: "+host+"}}", 1)
}

// A controller that starts again takes up the run that the one before it drove, and the trial that its agent
// carries out meanwhile is not carried out again.
func TestRunsOutliveTheirController(t *testing.T) {
	dir := t.TempDir()
	h := startFleet(t, dir, "")
	agent := newScriptedAgent()
	agent.block, agent.release = "WatchTrial", make(chan struct{})
	h.host(t, "host-a", agent)
	alice := h.user(t, "alice", tcplabv1.Role_ROLE_OPERATOR, false)
	created, err := tcplabv1.NewRunServiceClient(h.dial(t, alice)).CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-agent.reached
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if left, _ := agent.left(); left != 1 {
		t.Errorf("%d labs stand while there is no controller, want the one under way", left)
	}
	close(agent.release)
	again := startFleet(t, dir, h.address)
	run := awaitRun(t, tcplabv1.NewRunServiceClient(again.dial(t, alice)), created.GetRun().GetId())
	if run.GetState() != succeeded || run.GetVerdict() == tcplabv1.Verdict_VERDICT_UNSPECIFIED {
		t.Errorf("the run: %v", run)
	}
	if n := agent.count("StartTrial"); n != int(run.GetTrialsCount()) {
		t.Errorf("trials were started %d times, want %d", n, run.GetTrialsCount())
	}
	if left, results := agent.left(); left+results > 0 {
		t.Errorf("left on the host: %d deployments, %d results", left, results)
	}
}

// A session that breaks while a trial is followed is made anew, and the trial goes on.
func TestSessionBreaks(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	agent := newScriptedAgent()
	agent.block, agent.release = "WatchTrial", make(chan struct{})
	first := h.host(t, "host-a", agent)
	runs := tcplabv1.NewRunServiceClient(h.admin)
	created, err := runs.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-agent.reached
	first.stop()
	close(agent.release)
	h.connect(t, first.credential, 2, agent)
	if run := awaitRun(t, runs, created.GetRun().GetId()); run.GetState() != succeeded {
		t.Errorf("the run: %v", run)
	}
}

// The newest session of a host wins; an older start of its agent is refused, and told why.
func TestFencing(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	first := h.host(t, "host-a", newScriptedAgent())
	before := h.awaitHost(t, "host-a", true)
	h.connect(t, first.credential, 2, newScriptedAgent())
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for h.awaitHost(t, "host-a", true).GetAddress() == before.GetAddress() {
		<-tick.C
	}
	raw, err := tls.Dial("tcp", h.address, first.credential.Client(identity.Controller, tunnel.Protocol))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, err = tunnel.Greet(raw, &tcplabv1.TunnelHello{Lane: tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL, Incarnation: 1, Session: 99})
	wants(t, "an older start", err, codes.Aborted)
}

// Hosts are listed, labelled, drained, and let out with what streams to them.
func TestHosts(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	a := h.host(t, "host-a", newScriptedAgent())
	h.host(t, "host-b", newScriptedAgent())
	hosts, labs := tcplabv1.NewHostServiceClient(h.admin), tcplabv1.NewRunServiceClient(h.admin)
	drained := true
	if _, err := hosts.UpdateHost(t.Context(), &tcplabv1.UpdateHostRequest{Name: "host-a", Drained: &drained, Labels: map[string]string{"zone": "a"}}); err != nil {
		t.Fatal(err)
	}
	create := func(on string) (*tcplabv1.Run, error) {
		created, err := labs.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
			LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labOn(on))}},
		})
		return created.GetRun(), err
	}
	_, err := create("zone=a")
	wants(t, "a lab for a drained host", err, codes.FailedPrecondition)
	_, err = create("host-c")
	wants(t, "a lab for a host that there is not", err, codes.FailedPrecondition)
	run, err := labs.CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	})
	if err != nil || run.GetRun().GetHosts()[0] != "host-b" {
		t.Errorf("a lab for any host: %v, error %v; want host-b, since host-a is drained", run, err)
	}
	awaitRun(t, labs, run.GetRun().GetId())
	list, err := hosts.ListHosts(t.Context(), &tcplabv1.ListHostsRequest{PageSize: 1})
	if err != nil || len(list.GetHosts()) != 1 || list.GetHosts()[0].GetName() != "host-a" || list.GetNextPageToken() == "" || list.GetHosts()[0].GetLabels()["zone"] != "a" {
		t.Errorf("the first page: %v, error %v", list, err)
	}
	if _, err := hosts.RemoveHost(t.Context(), &tcplabv1.RemoveHostRequest{Name: "host-a"}); err != nil {
		t.Fatal(err)
	}
	raw, err := tls.Dial("tcp", h.address, a.credential.Client(identity.Controller, tunnel.Protocol))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, err = tunnel.Greet(raw, &tcplabv1.TunnelHello{Lane: tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL, Incarnation: 9, Session: 1})
	wants(t, "a host that was removed", err, codes.Unauthenticated)
	_, err = hosts.GetHost(t.Context(), &tcplabv1.HostServiceGetHostRequest{Name: "host-a"})
	wants(t, "its name", err, codes.NotFound)
}
