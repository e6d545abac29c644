package controller_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

// stranger makes a credential that another authority signed.
func stranger(t *testing.T, kind identity.Kind, name string) *identity.Credential {
	t.Helper()
	authority, err := access.OpenAuthority(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, authority, identity.Identity{Kind: kind, Name: name, Enrolment: "e"})
}

func signed(t *testing.T, authority *access.Authority, whom identity.Identity) *identity.Credential {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := authority.Sign(whom, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredential(key, der, authority.Certificate().Raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// enrolment asks for a certificate as anybody may.
func (h *fleetHarness) enrol(t *testing.T, token, name string) error {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tcplabv1.NewAccessServiceClient(h.dial(t, nil)).Enrol(t.Context(), &tcplabv1.EnrolRequest{Token: token, Name: name, CertificateRequest: request})
	return err
}

// A token works once, in its time, for its name and at its controller.
func TestTokens(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	agent := &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: "host-a"}
	token := h.token(t, agent)
	wants(t, "for another name", h.enrol(t, token.String(), "host-b"), codes.PermissionDenied)
	if err := h.enrol(t, token.String(), ""); err != nil {
		t.Fatal(err)
	}
	wants(t, "used", h.enrol(t, token.String(), ""), codes.Unauthenticated)
	deleted := h.token(t, agent)
	access := tcplabv1.NewAccessServiceClient(h.admin)
	if _, err := access.DeleteToken(t.Context(), &tcplabv1.DeleteTokenRequest{Id: deleted.ID}); err != nil {
		t.Fatal(err)
	}
	wants(t, "deleted", h.enrol(t, deleted.String(), ""), codes.Unauthenticated)
	anyName := h.token(t, &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT})
	wants(t, "a name that is in", h.enrol(t, anyName.String(), "host-a"), codes.AlreadyExists)
	wants(t, "a name with a slash", h.enrol(t, anyName.String(), "../x"), codes.InvalidArgument)
	other, err := identity.NewToken([]byte("another authority"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "another controller's", h.enrol(t, other.String(), ""), codes.Unauthenticated)
	if err := h.enrol(t, anyName.String(), "host-b"); err != nil {
		t.Errorf("a token that was refused for its name is used up: %v", err)
	}
	// A controller that is not the token's gets nothing: the client hangs up.
	impostor := startFleet(t, t.TempDir(), "")
	fresh := h.token(t, agent)
	if _, _, err := identity.Join(t.Context(), impostor.address, fresh, ""); err == nil || !strings.Contains(err.Error(), "not the controller that made the token") {
		t.Errorf("joining another controller: %v", err)
	}
	if list, err := access.ListTokens(t.Context(), &tcplabv1.ListTokensRequest{}); err != nil || len(list.GetTokens()) != 1 || list.GetTokens()[0].GetId() != fresh.ID {
		t.Errorf("tokens left: %v, error %v", list, err)
	}
}

// A token that has expired does not work. Its life is at least a second, which has to pass.
func TestTokenExpires(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	made, err := tcplabv1.NewAccessServiceClient(h.admin).CreateToken(t.Context(), &tcplabv1.CreateTokenRequest{
		Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Ttl: seconds(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(made.GetToken().GetExpireTime().AsTime()) + 10*time.Millisecond)
	wants(t, "expired", h.enrol(t, made.GetSecret(), "host-a"), codes.Unauthenticated)
}

// Whoever guesses at tokens is slowed down, and those at other addresses are not.
func TestBruteForce(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	token := h.token(t, &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: "host-a"})
	wrong := token
	wrong.Secret = append([]byte(nil), token.Secret...)
	wrong.Secret[0] ^= 1
	var err error
	for range 20 {
		if err = h.enrol(t, wrong.String(), ""); err == nil {
			t.Fatal("a wrong secret lets in")
		}
	}
	wants(t, "the 20th guess", err, codes.ResourceExhausted)
	wants(t, "a right token from there", h.enrol(t, token.String(), ""), codes.ResourceExhausted)
	elsewhere := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn := dialTLS(t, h.address, nil, identity.Controller, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return elsewhere.DialContext(ctx, "tcp", address)
	}))
	key, keyErr := identity.NewKey()
	request, requestErr := identity.Request(key)
	if err := errors.Join(keyErr, requestErr); err != nil {
		t.Fatal(err)
	}
	if _, err := tcplabv1.NewAccessServiceClient(conn).Enrol(t.Context(), &tcplabv1.EnrolRequest{Token: token.String(), CertificateRequest: request}); err != nil {
		t.Errorf("a right token from another address: %v", err)
	}
}

// Certificates that are none of the controller's, or of the wrong kind or role, call nothing, and are told why.
func TestWrongCallers(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	host := h.host(t, "host-a", newScriptedAgent())
	viewer := h.user(t, "victor", tcplabv1.Role_ROLE_VIEWER, false)
	operator := h.user(t, "olga", tcplabv1.Role_ROLE_OPERATOR, false)
	for _, c := range []struct {
		name string
		who  *identity.Credential
		call func(*grpc.ClientConn) error
		want codes.Code
	}{
		{"nobody lists runs", nil, listRuns, codes.Unauthenticated},
		{"nobody asks for health", nil, checkHealth, codes.OK},
		{"an agent lists runs", host.credential, listRuns, codes.PermissionDenied},
		{"a viewer lists runs", viewer, listRuns, codes.OK},
		{"a viewer cancels a run", viewer, cancelRun, codes.PermissionDenied},
		{"an operator cancels a run", operator, cancelRun, codes.NotFound},
		{"an operator without the right runs a program", operator, runProgram, codes.PermissionDenied},
		{"an operator lists users", operator, listUsers, codes.PermissionDenied},
		{"an operator reflects", operator, reflectOn, codes.PermissionDenied},
		{"a method that there is not", viewer, unknownMethod, codes.PermissionDenied},
		{"an agent renews", host.credential, renew, codes.OK},
		{"an operator wants a huge page", operator, hugePage, codes.InvalidArgument},
	} {
		if err := c.call(h.dial(t, c.who)); c.want == codes.OK && err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if c.want != codes.OK {
			wants(t, c.name, err, c.want)
		}
	}
	// Another authority's: the controller says so; the client would rather not even begin, so that it is made to.
	for _, kind := range []identity.Kind{identity.User, identity.Agent, identity.Controller} {
		foreign := stranger(t, kind, "mallory")
		config := foreign.Client(identity.Controller, identity.HTTP2)
		config.VerifyConnection = nil
		wants(t, "another authority's "+string(kind), listRuns(dialConfig(t, h.address, config)), codes.Unauthenticated)
	}
	audit, err := tcplabv1.NewAccessServiceClient(h.admin).ListAuditEntries(t.Context(), &tcplabv1.ListAuditEntriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range audit.GetEntries() {
		found = found || e.GetWho() == "user/victor" && e.GetMethod() == "RunService/CancelRun" && e.GetOutcome() == "PERMISSION_DENIED"
	}
	if !found {
		t.Errorf("what a viewer was refused is not in the audit log: %v", audit)
	}
}

func listRuns(c *grpc.ClientConn) error {
	_, err := tcplabv1.NewRunServiceClient(c).ListRuns(context.Background(), &tcplabv1.ListRunsRequest{})
	return err
}

func hugePage(c *grpc.ClientConn) error {
	_, err := tcplabv1.NewRunServiceClient(c).ListRuns(context.Background(), &tcplabv1.ListRunsRequest{PageSize: 1 << 30})
	return err
}

func checkHealth(c *grpc.ClientConn) error {
	_, err := healthv1.NewHealthClient(c).Check(context.Background(), &healthv1.HealthCheckRequest{})
	return err
}

func cancelRun(c *grpc.ClientConn) error {
	_, err := tcplabv1.NewRunServiceClient(c).CancelRun(context.Background(), &tcplabv1.CancelRunRequest{RunId: "x"})
	return err
}

func runProgram(c *grpc.ClientConn) error {
	stream, err := tcplabv1.NewLabServiceClient(c).Exec(context.Background())
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func listUsers(c *grpc.ClientConn) error {
	_, err := tcplabv1.NewAccessServiceClient(c).ListUsers(context.Background(), &tcplabv1.ListUsersRequest{})
	return err
}

func reflectOn(c *grpc.ClientConn) error {
	stream, err := reflectionv1.NewServerReflectionClient(c).ServerReflectionInfo(context.Background())
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func unknownMethod(c *grpc.ClientConn) error {
	return c.Invoke(context.Background(), "/tcplab.v1.RunService/Anything", &tcplabv1.ListRunsRequest{}, &tcplabv1.ListRunsResponse{})
}

func renew(c *grpc.ClientConn) error {
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	request, err := identity.Request(key)
	if err != nil {
		return err
	}
	_, err = tcplabv1.NewAccessServiceClient(c).RenewCertificate(context.Background(), &tcplabv1.RenewCertificateRequest{CertificateRequest: request})
	return err
}

// Who is let out hears so in the middle of a stream, and calls nothing any more, under the same name neither.
func TestRevocation(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	agent := newScriptedAgent()
	agent.block, agent.release = "WatchTrial", make(chan struct{})
	h.host(t, "host-a", agent)
	alice, bob := h.user(t, "alice", tcplabv1.Role_ROLE_OPERATOR, false), h.user(t, "bob", tcplabv1.Role_ROLE_VIEWER, false)
	conn := h.dial(t, alice)
	created, err := tcplabv1.NewRunServiceClient(conn).CreateRun(t.Context(), &tcplabv1.CreateRunRequest{
		LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "lab.yaml", Content: []byte(labFile)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-agent.reached
	follow := func(c *grpc.ClientConn) (ended chan error) {
		stream, err := tcplabv1.NewRunServiceClient(c).WatchRun(t.Context(), &tcplabv1.WatchRunRequest{RunId: created.GetRun().GetId()})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		ended = make(chan error, 1)
		go func() {
			for err == nil {
				_, err = stream.Recv()
			}
			ended <- err
		}()
		return ended
	}
	hers, his := follow(conn), follow(h.dial(t, bob))
	access := tcplabv1.NewAccessServiceClient(h.admin)
	if _, err := access.RemoveUser(t.Context(), &tcplabv1.RemoveUserRequest{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	wants(t, "her stream", <-hers, codes.Unavailable)
	wants(t, "her next call", listRuns(h.dial(t, alice)), codes.Unauthenticated)
	h.user(t, "alice", tcplabv1.Role_ROLE_ADMIN, true)
	wants(t, "her old certificate", listRuns(h.dial(t, alice)), codes.Unauthenticated)
	close(agent.release)
	if err := <-his; !errors.Is(err, io.EOF) {
		t.Errorf("another user's stream was disturbed: %v", err)
	}
	// A right that is taken ends what it permitted; the rest goes on after the next connection.
	if _, err := access.UpdateUser(t.Context(), &tcplabv1.UpdateUserRequest{Name: "alice", Role: tcplabv1.Role_ROLE_VIEWER}); err != nil {
		t.Fatal(err)
	}
}

// Connections that say nothing, and those that say too much, end soon, and nobody else is disturbed.
func TestSilentConnections(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	alice := h.dial(t, h.user(t, "alice", tcplabv1.Role_ROLE_VIEWER, false))
	var silent []net.Conn
	for range 1000 {
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	if err := listRuns(alice); err != nil {
		t.Errorf("beside silent connections: %v", err)
	}
	if err := listRuns(h.dial(t, nil)); err == nil {
		t.Error("nobody may list runs")
	}
	for _, conn := range silent {
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
			t.Fatalf("a silent connection is kept: %v", err)
		}
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset by peer") }

// Messages over their size, and compressed ones, are refused with a code of their own.
func TestBigMessages(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	runs := tcplabv1.NewRunServiceClient(h.dial(t, h.user(t, "alice", tcplabv1.Role_ROLE_OPERATOR, false)))
	big := &tcplabv1.CreateRunRequest{LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "x", Content: make([]byte, 2<<20)}}}
	_, err := runs.CreateRun(t.Context(), big)
	wants(t, "a lab file of 2 MiB", err, codes.InvalidArgument)
	big.GetSource().Content = make([]byte, 65<<20)
	_, err = runs.CreateRun(t.Context(), big)
	wants(t, "a message of 65 MiB", err, codes.ResourceExhausted)
	// What could be small here and large there is not unpacked at all.
	zipped := dialTLS(t, h.address, h.user(t, "carol", tcplabv1.Role_ROLE_VIEWER, false), identity.Controller,
		grpc.WithCompressor(grpc.NewGZIPCompressor())) //nolint:staticcheck // the newer way would teach the server too, which is in this process
	wants(t, "a compressed message", listRuns(zipped), codes.Unimplemented)
	// Without a certificate not even a large message is read to its end.
	err = h.enrol(t, strings.Repeat("x", 1<<20), "")
	wants(t, "a large message of nobody", err, codes.Unavailable)
	if err := listRuns(h.dial(t, h.user(t, "bob", tcplabv1.Role_ROLE_VIEWER, false))); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// An agent is what its certificate says, and nothing else.
func TestWrongAgents(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	alice := h.user(t, "alice", tcplabv1.Role_ROLE_ADMIN, true)
	authority, err := access.OpenAuthority(h.dir+"/authority", 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]*identity.Credential{
		"a user":                      alice,
		"an agent that nobody let in": signed(t, authority, identity.Identity{Kind: identity.Agent, Name: "host-x", Enrolment: "e"}),
		"another authority's":         stranger(t, identity.Agent, "host-a"),
	} {
		config := who.Client(identity.Controller, tunnel.Protocol)
		config.VerifyConnection = nil
		conn, err := tls.Dial("tcp", h.address, config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = tunnel.Greet(conn, &tcplabv1.TunnelHello{Lane: tcplabv1.TunnelLane_TUNNEL_LANE_CONTROL, Incarnation: 1, Session: 1})
		if err == nil {
			t.Errorf("%s is served as an agent", name)
			continue
		}
		want := codes.Unauthenticated
		if name == "a user" {
			want = codes.PermissionDenied
		}
		wants(t, name, err, want)
	}
	if list, err := tcplabv1.NewHostServiceClient(h.admin).ListHosts(t.Context(), &tcplabv1.ListHostsRequest{}); err != nil || len(list.GetHosts()) > 0 {
		t.Errorf("hosts: %v, error %v", list, err)
	}
}

// A certificate that the authority signed for a controller is no client's.
func TestForeignController(t *testing.T) {
	h := startFleet(t, t.TempDir(), "")
	authority, err := access.OpenAuthority(h.dir+"/authority", 0)
	if err != nil {
		t.Fatal(err)
	}
	other := signed(t, authority, identity.Identity{Kind: identity.Controller, Name: "lab2"})
	wants(t, "another controller", listRuns(h.dial(t, other)), codes.Unauthenticated)
}
