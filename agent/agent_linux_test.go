package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when a call that should long have returned is given up.
const limit = 30 * time.Second

// running is an agent that serves until the test ends, or stop is called.
type running struct {
	tcplabv1.AgentServiceClient
	ctx   context.Context
	spool string
	stop  func() error // waits for Run
}

func start(t testing.TB, spool string) *running {
	t.Helper()
	need.NetNS(t)
	ctx, cancel := context.WithCancel(t.Context())
	listener := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			SpoolDir: spool, HostName: "here", Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}, listener)
	}()
	conn, err := grpc.NewClient("passthrough:agent",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	calls, cancelCalls := context.WithTimeout(t.Context(), limit)
	r := &running{AgentServiceClient: tcplabv1.NewAgentServiceClient(conn), ctx: calls, spool: spool}
	var ended bool
	r.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		err := <-done
		cancelCalls()
		conn.Close()
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// twoNodes is a lab of a client and a server, joined by a link with the shape both
// ways, with the flows in one experiment.
func twoNodes(t testing.TB, shape *tcplabv1.Shape, flows ...*tcplabv1.Flow) *tcplabv1.Lab {
	t.Helper()
	return complete(t, &tcplabv1.Lab{
		Name:  "two-nodes",
		Nodes: []*tcplabv1.Node{{Name: "client"}, {Name: "server"}},
		Links: []*tcplabv1.Link{{
			Name: "client-server", A: &tcplabv1.LinkEnd{Node: "client"}, B: &tcplabv1.LinkEnd{Node: "server"},
			Forward:  &tcplabv1.Direction{Shape: shape, Seed: 1},
			Backward: &tcplabv1.Direction{Shape: proto.CloneOf(shape), Seed: 2},
		}},
		Experiments: experimentsOf(flows),
	})
}

// experimentsOf is one experiment of the flows, or none.
func experimentsOf(flows []*tcplabv1.Flow) []*tcplabv1.Experiment {
	if len(flows) == 0 {
		return nil
	}
	return []*tcplabv1.Experiment{{Flows: flows}}
}

// complete does to a lab what a controller does.
func complete(t testing.TB, lab *tcplabv1.Lab) *tcplabv1.Lab {
	t.Helper()
	labs.Complete(lab)
	if err := errors.Join(labs.ValidateStanding(lab), labs.Assign(lab, nil)); err != nil {
		t.Fatal(err)
	}
	return lab
}

func bulk(name string, bytes uint64) *tcplabv1.Flow {
	return &tcplabv1.Flow{
		Name: name, Client: "client", Server: "server",
		Socket: &tcplabv1.SocketOptions{Congestion: "reno"},
		Kind:   &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: bytes}}},
	}
}

// endless sends for longer than any test lasts.
func endless(name string) *tcplabv1.Flow {
	f := bulk(name, 0)
	f.GetBulk().Amount = &tcplabv1.Bulk_Duration{Duration: durationpb.New(50 * time.Second)}
	return f
}

func (r *running) apply(t testing.TB, id string, lab *tcplabv1.Lab) *tcplabv1.ApplyResponse {
	t.Helper()
	response, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{DeploymentId: id, Lab: lab})
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (r *running) startTrial(t testing.TB, deployment, id string) {
	t.Helper()
	if _, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: deployment, TrialId: id}); err != nil {
		t.Fatal(err)
	}
}

// watch follows a trial and calls see for each event.
func (r *running) watch(t testing.TB, id string, see func(*tcplabv1.WatchTrialResponse)) *tcplabv1.TrialEnded {
	t.Helper()
	stream, err := r.WatchTrial(r.ctx, &tcplabv1.WatchTrialRequest{TrialId: id})
	if err != nil {
		t.Fatal(err)
	}
	var last *tcplabv1.TrialEnded
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if last == nil {
				t.Fatal("the stream ended before the trial")
			}
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		if last != nil {
			t.Errorf("after the trial's end came %v", event)
		}
		if see != nil {
			see(event)
		}
		last = event.GetTrialEnded()
	}
}

func (r *running) artifact(t testing.TB, trial, name string, offset uint64) ([]byte, error) {
	t.Helper()
	stream, err := r.ReadArtifact(r.ctx, &tcplabv1.ReadArtifactRequest{TrialId: trial, Name: name, Offset: offset})
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, piece.GetData()...)
	}
}

func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return rpcerr.From(err).Code
}

// The whole way of a trial: built, verified, run, read, acknowledged, removed.
func TestTrial(t *testing.T) {
	r := start(t, t.TempDir())
	const size = 1 << 20
	lab := twoNodes(t, &tcplabv1.Shape{RateBps: 1e8, Delay: durationpb.New(5 * time.Millisecond)}, bulk("down", size), bulk("other", 1))
	applied := r.apply(t, "d", lab)
	if len(applied.GetNodes()) != 2 || len(applied.GetLinks()) != 2 || len(applied.GetEngineReasons()) != 1 {
		t.Errorf("Apply answers %v", applied)
	}
	if _, err := os.Stat(applied.GetNodes()[0].GetNetnsPath()); err != nil {
		t.Errorf("the client's namespace: %v", err)
	}
	verified, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range verified.GetLinks() {
		if l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
			t.Errorf("link %s %s: %s", l.GetName(), l.GetDirection(), l.GetDetail())
		}
		if got := l.GetMeasured().GetDelay().AsDuration(); got < 5*time.Millisecond {
			t.Errorf("link %s %s: a delay of %v", l.GetName(), l.GetDirection(), got)
		}
	}
	r.startTrial(t, "d", "t.1")
	r.startTrial(t, "d", "t.1") // again: the same trial
	var told []string
	ended := r.watch(t, "t.1", func(e *tcplabv1.WatchTrialResponse) {
		switch {
		case e.GetExperimentStarted() != nil:
			told = append(told, "started")
		case e.GetFlowEnded() != nil:
			told = append(told, e.GetFlowEnded().GetFlow()+e.GetFlowEnded().GetError())
		case e.GetTrialEnded() != nil:
			told = append(told, "ended")
		}
	})
	slices.Sort(told[1 : len(told)-1])
	if diff := cmp.Diff([]string{"started", "down", "other", "ended"}, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if ended.GetFailure() != "" {
		t.Fatalf("the trial failed: %s", ended.GetFailure())
	}
	result := ended.GetResult()
	if f := result.GetFlows()[0]; f.GetName() != "down" || f.GetBytes() != size || f.GetServer().GetBytesRead() != size {
		t.Errorf("the flow is %v", f)
	}
	forward := result.GetLinks()[0]
	if c := forward.GetCounters(); c.GetReceived() < size/1448 || c.GetFailed() != 0 || c.GetDelivered()+c.GetLost()+c.GetOverflow() != c.GetReceived() {
		t.Errorf("forward went %v", c)
	}
	if forward.GetMeasured() == nil || forward.GetVerdict() == 0 {
		t.Errorf("the trial's link was not measured: %v", forward)
	}
	counters := result.GetCounters()
	if counters[0].GetNode() != "client" || counters[0].GetValues()["TcpActiveOpens"] != 2 || counters[1].GetValues()["TcpPassiveOpens"] != 2 {
		t.Errorf("counters %v", counters)
	}
	if result.GetKernel().GetHz() == 0 || result.GetElapsed().AsDuration() <= 0 || result.GetStartTime() == nil {
		t.Errorf("the result lacks kernel or time: %v, %v, %v", result.GetKernel(), result.GetElapsed(), result.GetStartTime())
	}

	content, err := r.artifact(t, "t.1", samplesName, 0)
	if err != nil {
		t.Fatal(err)
	}
	artifact := result.GetArtifacts()[0]
	if sum := sha256.Sum256(content); artifact.GetName() != samplesName || uint64(len(content)) != artifact.GetSize() || !slices.Equal(sum[:], artifact.GetSha256()) {
		t.Errorf("the artifact %v has %d bytes", artifact, len(content))
	}
	if tail, err := r.artifact(t, "t.1", samplesName, 10); err != nil || !slices.Equal(tail, content[10:]) {
		t.Errorf("from byte 10 on it has %d bytes, %v", len(tail), err)
	}
	if _, err := r.artifact(t, "t.1", samplesName, artifact.GetSize()+1); codeOf(err) != codes.OutOfRange {
		t.Errorf("past its end: %v", err)
	}
	if _, err := r.artifact(t, "t.1", "other", 0); codeOf(err) != codes.NotFound {
		t.Errorf("another artifact: %v", err)
	}

	// Who asks later sees the same, from the spool once the deployment is gone.
	if again := r.watch(t, "t.1", nil); !proto.Equal(ended, again) {
		t.Error("a second watcher sees another end")
	}
	for range 2 {
		if _, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
			t.Fatal(err)
		}
	}
	if again := r.watch(t, "t.1", nil); !proto.Equal(ended, again) {
		t.Error("after removal the trial has another end")
	}
	for range 2 {
		if _, err := r.AcknowledgeTrial(r.ctx, &tcplabv1.AcknowledgeTrialRequest{TrialId: "t.1"}); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := r.WatchTrial(r.ctx, &tcplabv1.WatchTrialRequest{TrialId: "t.1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); codeOf(err) != codes.NotFound {
		t.Errorf("an acknowledged trial: %v", err)
	}
}

// A second trial in the same deployment counts its own traffic alone.
func TestTrialsAreIndependent(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil, bulk("b", 100_000)))
	var seen []*tcplabv1.TrialEnded
	for _, id := range []string{"t.1", "t.2"} {
		r.startTrial(t, "d", id)
		seen = append(seen, r.watch(t, id, nil))
	}
	for _, e := range seen {
		if e.GetFailure() != "" {
			t.Fatal(e.GetFailure())
		}
		if got := e.GetResult().GetCounters()[0].GetValues()["TcpActiveOpens"]; got != 1 {
			t.Errorf("the client opened %d connections", got)
		}
		// 70 segments of data, and what opens and closes a connection.
		if got := e.GetResult().GetLinks()[0].GetCounters().GetReceived(); got < 70 || got > 100 {
			t.Errorf("%d frames went forward", got)
		}
		if engine := e.GetResult().GetLinks()[0].GetEngine(); engine != tcplabv1.Engine_ENGINE_VETH {
			t.Errorf("a link without a shape has the engine %s", engine)
		}
	}
}

func TestDumbbell(t *testing.T) {
	r := start(t, t.TempDir())
	lab := &tcplabv1.Lab{Name: "dumbbell", Nodes: []*tcplabv1.Node{
		{Name: "a"},
		{Name: "b"},
		{Name: "r1", Kind: tcplabv1.NodeKind_NODE_KIND_ROUTER},
		{Name: "r2", Kind: tcplabv1.NodeKind_NODE_KIND_ROUTER},
		{Name: "c"},
		{Name: "d"},
	}}
	for _, ends := range [][2]string{{"a", "r1"}, {"b", "r1"}, {"r1", "r2"}, {"r2", "c"}, {"r2", "d"}} {
		l := &tcplabv1.Link{Name: ends[0] + "-" + ends[1], A: &tcplabv1.LinkEnd{Node: ends[0]}, B: &tcplabv1.LinkEnd{Node: ends[1]}}
		if ends[0] == "r1" {
			l.Forward = &tcplabv1.Direction{Shape: &tcplabv1.Shape{RateBps: 5e7, Delay: durationpb.New(2 * time.Millisecond)}}
			l.Backward = proto.CloneOf(l.Forward)
		}
		lab.Links = append(lab.Links, l)
	}
	one, two := bulk("one", 200_000), bulk("two", 200_000)
	one.Client, one.Server = "a", "c"
	two.Client, two.Server, two.Family = "b", "d", tcplabv1.IpFamily_IP_FAMILY_IPV6
	lab.Experiments = []*tcplabv1.Experiment{{Flows: []*tcplabv1.Flow{one, two}}}
	applied := r.apply(t, "d", complete(t, lab))
	if reasons := strings.Join(applied.GetEngineReasons(), "\n"); len(applied.GetEngineReasons()) != 2 || !strings.Contains(reasons, "veth") {
		t.Errorf("reasons %q", reasons)
	}
	r.startTrial(t, "d", "t")
	ended := r.watch(t, "t", nil)
	if ended.GetFailure() != "" {
		t.Fatal(ended.GetFailure())
	}
	for _, f := range ended.GetResult().GetFlows() {
		if f.GetBytes() != 200_000 {
			t.Errorf("flow %s carried %d bytes", f.GetName(), f.GetBytes())
		}
	}
	for _, c := range ended.GetResult().GetCounters() {
		if forwarded := c.GetValues()["IpForwDatagrams"]; (forwarded > 0) != strings.HasPrefix(c.GetNode(), "r") {
			t.Errorf("node %s forwarded %d packets", c.GetNode(), forwarded)
		}
	}
}

func TestApplyIsIdempotent(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, nil, bulk("b", 1))
	first := r.apply(t, "d", lab)
	if diff := cmp.Diff(first, r.apply(t, "d", lab), protocmp.Transform()); diff != "" {
		t.Errorf("the same again (-first +second):\n%s", diff)
	}
	_, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{DeploymentId: "d", Lab: twoNodes(t, nil, bulk("other", 1))})
	if e := rpcerr.From(err); e == nil || e.Code != codes.AlreadyExists || e.Reason != rpcerr.Conflict || e.Remedy == "" {
		t.Errorf("another lab: %v", err)
	}
	if _, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
		t.Fatal(err)
	}
	r.apply(t, "d", twoNodes(t, nil, bulk("other", 1)))
}

func TestRefusals(t *testing.T) {
	r := start(t, t.TempDir())
	good := twoNodes(t, nil, endless("b"))
	if _, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{Term: 7, DeploymentId: "d", Lab: good}); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*tcplabv1.Lab)) *tcplabv1.Lab {
		lab := proto.CloneOf(good)
		f(lab)
		return lab
	}
	for name, test := range map[string]struct {
		lab    *tcplabv1.Lab
		code   codes.Code
		reason rpcerr.Reason
		want   string
	}{
		"an unknown node": {change(func(l *tcplabv1.Lab) { l.Links[0].A.Node = "nobody" }), codes.InvalidArgument, rpcerr.LabInvalid, "nobody"},
		"no MAC address":  {change(func(l *tcplabv1.Lab) { l.Links[0].A.Mac = "" }), codes.InvalidArgument, rpcerr.LabInvalid, "MAC"},
		"a sysctl that no kernel has": {change(func(l *tcplabv1.Lab) {
			l.Nodes[0].Sysctls = map[string]string{"net.ipv4.no_such_setting": "1"}
		}), codes.InvalidArgument, rpcerr.LabInvalid, "no_such_setting"},
		"a value that the kernel refuses": {change(func(l *tcplabv1.Lab) {
			l.Nodes[0].Sysctls = map[string]string{"net.ipv4.tcp_sack": "banana"}
		}), codes.FailedPrecondition, rpcerr.HostUnsupported, "tcp_sack"},
		"a shape on veth": {change(func(l *tcplabv1.Lab) {
			l.Links[0].Engine = tcplabv1.Engine_ENGINE_VETH
			l.Links[0].Forward = &tcplabv1.Direction{Shape: &tcplabv1.Shape{Loss: 0.5}}
		}), codes.InvalidArgument, rpcerr.LabInvalid, "veth"},
		"a rule of the contract": {change(func(l *tcplabv1.Lab) { l.Nodes[0].Name = "Not A Name" }), codes.InvalidArgument, rpcerr.RequestInvalid, "lab.nodes[0].name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{Term: 7, DeploymentId: "bad", Lab: test.lab})
			e := rpcerr.From(err)
			if e == nil || e.Code != test.code || e.Reason != test.reason || !strings.Contains(e.Message, test.want) {
				t.Errorf("Apply: %v (%v)", err, e)
			}
		})
	}

	stale := map[string]error{}
	_, stale["Apply"] = r.Apply(r.ctx, &tcplabv1.ApplyRequest{Term: 6, DeploymentId: "d", Lab: good})
	_, stale["Verify"] = r.Verify(r.ctx, &tcplabv1.VerifyRequest{Term: 6, DeploymentId: "d"})
	_, stale["StartTrial"] = r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{Term: 6, DeploymentId: "d", TrialId: "t"})
	_, stale["CancelTrial"] = r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{Term: 6, TrialId: "t"})
	_, stale["AcknowledgeTrial"] = r.AcknowledgeTrial(r.ctx, &tcplabv1.AcknowledgeTrialRequest{Term: 6, TrialId: "t"})
	_, stale["RenewLease"] = r.RenewLease(r.ctx, &tcplabv1.RenewLeaseRequest{Term: 6, DeploymentId: "d"})
	_, stale["Remove"] = r.Remove(r.ctx, &tcplabv1.RemoveRequest{Term: 6, DeploymentId: "d"})
	for call, err := range stale {
		if e := rpcerr.From(err); e == nil || e.Code != codes.FailedPrecondition || e.Reason != rpcerr.Stale {
			t.Errorf("%s of an older term: %v", call, err)
		}
	}

	if _, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{Term: 7, DeploymentId: "d", TrialId: "t"}); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"a second trial": func() error {
			_, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{Term: 8, DeploymentId: "d", TrialId: "u"})
			return err
		},
		"a verification": func() error {
			_, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{Term: 8, DeploymentId: "d"})
			return err
		},
		"an acknowledgement": func() error {
			_, err := r.AcknowledgeTrial(r.ctx, &tcplabv1.AcknowledgeTrialRequest{Term: 8, TrialId: "t"})
			return err
		},
	} {
		if e := rpcerr.From(call()); e == nil || e.Code != codes.FailedPrecondition || e.Reason != rpcerr.Busy {
			t.Errorf("%s in the middle of a trial: %v", name, e)
		}
	}
	if _, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{Term: 8, DeploymentId: "unknown"}); codeOf(err) != codes.NotFound {
		t.Errorf("an unknown deployment: %v", err)
	}
	if _, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{Term: 8, TrialId: "unknown"}); codeOf(err) != codes.NotFound {
		t.Errorf("an unknown trial: %v", err)
	}
}

// However a trial in the middle of a transfer is ended, its watcher learns why, and
// nothing is left.
func TestEndedInTheMiddle(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*running) error
		want string
		kept bool // in the spool
	}{
		"cancelled": {func(r *running) error {
			_, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{TrialId: "t"})
			return err
		}, errCancelled.Error(), true},
		"removed": {func(r *running) error {
			_, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"})
			return err
		}, errRemoved.Error(), true},
		"expired":   {func(*running) error { return nil }, errLeaseEnded.Error(), true},
		"shut down": {func(r *running) error { return r.stop() }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, t.TempDir())
			lab := twoNodes(t, &tcplabv1.Shape{RateBps: 1e7, Delay: durationpb.New(10 * time.Millisecond)}, endless("b"))
			lease := limit
			if name == "expired" {
				lease = time.Second
			}
			applied, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{DeploymentId: "d", Lab: lab, Lease: durationpb.New(lease)})
			if err != nil {
				t.Fatal(err)
			}
			r.startTrial(t, "d", "t")
			stream, err := r.WatchTrial(r.ctx, &tcplabv1.WatchTrialRequest{TrialId: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if e, err := stream.Recv(); err != nil || e.GetExperimentStarted() == nil {
				t.Fatalf("first came %v, %v", e, err)
			}
			if err := test.end(r); err != nil {
				t.Fatal(err)
			}
			if test.want != "" {
				if ended := r.watch(t, "t", nil); !strings.Contains(ended.GetFailure(), test.want) {
					t.Errorf("the trial ended with %q", ended.GetFailure())
				}
				if _, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
					t.Fatal(err)
				}
			}
			if path := applied.GetNodes()[0].GetNetnsPath(); isNamespace(path) {
				t.Errorf("the client's namespace is still held: %s", path)
			}
			if err := r.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			if _, err := os.Stat(filepath.Join(r.spool, "t")); (err == nil) != test.kept {
				t.Errorf("the result in the spool: %v", err)
			}
		})
	}
}

// isNamespace reports whether the descriptor is open on a network namespace.
func isNamespace(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(target, "net:")
}

func TestLeaseIsRenewed(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, nil, bulk("b", 1))
	if _, err := r.Apply(r.ctx, &tcplabv1.ApplyRequest{DeploymentId: "d", Lab: lab, Lease: durationpb.New(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RenewLease(r.ctx, &tcplabv1.RenewLeaseRequest{DeploymentId: "d"}); err != nil {
		t.Error(err)
	}
	if _, err := r.RenewLease(r.ctx, &tcplabv1.RenewLeaseRequest{DeploymentId: "other"}); codeOf(err) != codes.NotFound {
		t.Errorf("the lease of nothing: %v", err)
	}
}

// A result outlives the agent until it is acknowledged.
func TestResultOutlivesTheAgent(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	r.apply(t, "d", twoNodes(t, nil, bulk("b", 1)))
	r.startTrial(t, "d", "t")
	want := r.watch(t, "t", nil)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir)
	if got := r.watch(t, "t", nil); !proto.Equal(want, got) {
		t.Errorf("the next agent tells another end: %v", got)
	}
	r.apply(t, "d", twoNodes(t, nil, bulk("b", 1)))
	if _, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t"}); codeOf(err) != codes.AlreadyExists {
		t.Errorf("the trial starts again: %v", err)
	}
}

// One flow's failure is its trial's, by name, and stops the others.
func TestFailedFlow(t *testing.T) {
	r := start(t, t.TempDir())
	bad := bulk("bad", 1)
	bad.Socket.Congestion = "nosuch"
	slow := endless("slow")
	r.apply(t, "d", twoNodes(t, nil, slow, bad))
	r.startTrial(t, "d", "t")
	if ended := r.watch(t, "t", nil); !strings.Contains(ended.GetFailure(), "flow bad") || !strings.Contains(ended.GetFailure(), "nosuch") {
		t.Errorf("the trial ended with %q", ended.GetFailure())
	}
}

func TestExperimentTimesOut(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, nil, bulk("b", 1<<50))
	lab.Experiments[0].Timeout = durationpb.New(50 * time.Millisecond)
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t")
	if ended := r.watch(t, "t", nil); !strings.Contains(ended.GetFailure(), "timeout of 50ms") {
		t.Errorf("the trial ended with %q", ended.GetFailure())
	}
}

// A result that cannot be stored is none: the watcher learns why and gets no
// artifact, and nothing of it is taken for a result later.
func TestSpoolFails(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil, endless("b")))
	r.startTrial(t, "d", "t")
	if err := os.RemoveAll(filepath.Join(r.spool, "t")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{TrialId: "t"}); err != nil {
		t.Fatal(err)
	}
	ended := r.watch(t, "t", nil)
	if !strings.Contains(ended.GetFailure(), "store the result of trial t") || len(ended.GetResult().GetArtifacts()) != 0 {
		t.Errorf("the trial ended with %q and artifacts %v", ended.GetFailure(), ended.GetResult().GetArtifacts())
	}
	if _, err := os.Stat(filepath.Join(r.spool, "t")); err == nil {
		t.Error("half a result is in the spool")
	}
}

func TestHost(t *testing.T) {
	r := start(t, t.TempDir())
	response, err := r.GetHost(r.ctx, &tcplabv1.GetHostRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h := response.GetHost()
	if h.GetName() != "here" || h.GetAgentVersion() != "test" || h.GetAutoEngine() == 0 || h.GetAutoEngineReason() == "" || len(h.GetCapabilities()) == 0 {
		t.Errorf("the host is %v", h)
	}
}

func TestUnusableSpool(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Config{SpoolDir: filepath.Join(file, "spool")}, bufconn.Listen(1))
	if e := rpcerr.From(err); e == nil || e.Reason != rpcerr.Storage || e.Remedy == "" {
		t.Errorf("Run: %v", err)
	}
}
