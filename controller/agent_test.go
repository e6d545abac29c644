package controller_test

import (
	"context"
	"crypto/sha256"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// scriptedAgent speaks AgentService over a real connection and does as it is
// told: what a real agent does only when something breaks.
type scriptedAgent struct {
	tcplabv1.UnimplementedAgentServiceServer

	// What methods answer. Nil answers are errors' place in errs.
	errs     map[string]error                      // by method
	links    []*tcplabv1.LinkReport                // Verify's
	failure  string                                // of each trial
	breakOff bool                                  // WatchTrial ends without an end
	files    map[string][]byte                     // of each trial
	announce func([]*tcplabv1.Artifact)            // changes what is announced
	measured func(lab *tcplabv1.Lab) time.Duration // a flow's connect time
	block    string                                // the method that waits for its call's end
	reached  chan struct{}                         // closed when it does
	release  chan struct{}                         // lets it go on; may be nil
	once     sync.Once
	cpus     uint32 // GetHost's

	mu       sync.Mutex
	calls    []string
	labs     map[string]*tcplabv1.Lab // standing deployments
	applied  []*tcplabv1.Lab          // all that ever stood
	spool    map[string]bool          // results nobody acknowledged
	verified *tcplabv1.VerifyRequest  // the last
	renewals int
	renewed  chan struct{} // closed at the third renewal; may be nil
}

func newScriptedAgent() *scriptedAgent {
	return &scriptedAgent{
		reached: make(chan struct{}), labs: map[string]*tcplabv1.Lab{}, spool: map[string]bool{},
		errs: map[string]error{}, measured: func(*tcplabv1.Lab) time.Duration { return 20 * time.Millisecond },
	}
}

// serve serves the agent and returns its client.
func (a *scriptedAgent) serve(t *testing.T) tcplabv1.AgentServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	tcplabv1.RegisterAgentServiceServer(server, a)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn := dial(t, listener)
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return tcplabv1.NewAgentServiceClient(conn)
}

func dial(t *testing.T, listener *bufconn.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// called notes a call, and answers it where the script has an error for it.
func (a *scriptedAgent) called(ctx context.Context, method string) error {
	a.mu.Lock()
	a.calls = append(a.calls, method)
	block, err := a.block, a.errs[method]
	a.mu.Unlock()
	if block == method {
		a.once.Do(func() { close(a.reached) })
		select {
		case <-a.release: // nil: never
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return err
}

func (a *scriptedAgent) count(method string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, call := range a.calls {
		if call == method {
			n++
		}
	}
	return n
}

// left is what the controller left behind.
func (a *scriptedAgent) left() (deployments, results int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.labs), len(a.spool)
}

func (a *scriptedAgent) Apply(ctx context.Context, req *tcplabv1.ApplyRequest) (*tcplabv1.ApplyResponse, error) {
	if a.errs["Apply"] == nil {
		a.mu.Lock()
		a.labs[req.GetDeploymentId()] = req.GetLab()
		a.applied = append(a.applied, req.GetLab())
		a.mu.Unlock()
	}
	if err := a.called(ctx, "Apply"); err != nil {
		return nil, err
	}
	response := &tcplabv1.ApplyResponse{Links: a.reports(), EngineReasons: []string{"wire: the test says so"}}
	for _, node := range req.GetLab().GetNodes() {
		response.Nodes = append(response.Nodes, &tcplabv1.DeployedNode{Name: node.GetName(), NetnsPath: "/proc/1/fd/7"})
	}
	return response, nil
}

func (a *scriptedAgent) GetHost(context.Context, *tcplabv1.GetHostRequest) (*tcplabv1.GetHostResponse, error) {
	return &tcplabv1.GetHostResponse{Host: &tcplabv1.Host{Cpus: a.cpus}}, nil
}

func (a *scriptedAgent) reports() []*tcplabv1.LinkReport {
	var out []*tcplabv1.LinkReport
	for _, link := range a.links {
		out = append(out, proto.CloneOf(link))
	}
	return out
}

func (a *scriptedAgent) Verify(ctx context.Context, req *tcplabv1.VerifyRequest) (*tcplabv1.VerifyResponse, error) {
	a.mu.Lock()
	a.verified = req
	a.mu.Unlock()
	return &tcplabv1.VerifyResponse{Links: a.reports()}, a.called(ctx, "Verify")
}

func (a *scriptedAgent) StartTrial(ctx context.Context, req *tcplabv1.StartTrialRequest) (*tcplabv1.StartTrialResponse, error) {
	a.mu.Lock()
	a.spool[req.GetTrialId()] = true
	a.mu.Unlock()
	return &tcplabv1.StartTrialResponse{}, a.called(ctx, "StartTrial")
}

func (a *scriptedAgent) WatchTrial(req *tcplabv1.WatchTrialRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialResponse]) error {
	if err := a.called(stream.Context(), "WatchTrial"); err != nil {
		return err
	}
	if a.breakOff {
		return nil
	}
	a.mu.Lock()
	lab := a.labs[req.GetTrialId()]
	a.mu.Unlock()
	result := &tcplabv1.TrialResult{
		Links:  a.reports(),
		Kernel: &tcplabv1.Kernel{Release: "6.18.44", Hz: 250},
		Counters: []*tcplabv1.NodeCounters{{
			Node: "client", Values: map[string]int64{"TcpActiveOpens": 1, "TcpPassiveOpens": 0},
		}},
	}
	connect := durationpb.New(a.measured(lab))
	for _, flow := range lab.GetExperiments()[0].GetFlows() {
		result.Flows = append(result.Flows, &tcplabv1.FlowResult{
			Name:    flow.GetName(),
			Connect: &tcplabv1.LatencySummary{Count: 1, Min: connect, Mean: connect, P50: connect, P90: connect, P99: connect, Max: connect},
		})
	}
	for name, content := range a.files {
		sum := sha256.Sum256(content)
		result.Artifacts = append(result.Artifacts, &tcplabv1.Artifact{Name: name, Size: uint64(len(content)), Sha256: sum[:]})
	}
	if a.announce != nil {
		a.announce(result.GetArtifacts())
	}
	return stream.Send(&tcplabv1.WatchTrialResponse{Event: &tcplabv1.WatchTrialResponse_TrialEnded{
		TrialEnded: &tcplabv1.TrialEnded{Result: result, Failure: a.failure},
	}})
}

func (a *scriptedAgent) ReadArtifact(req *tcplabv1.ReadArtifactRequest, stream grpc.ServerStreamingServer[tcplabv1.ReadArtifactResponse]) error {
	if err := a.called(stream.Context(), "ReadArtifact"); err != nil {
		return err
	}
	for piece := range slices.Chunk(a.files[req.GetName()], 7) {
		if err := stream.Send(&tcplabv1.ReadArtifactResponse{Data: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (a *scriptedAgent) CancelTrial(ctx context.Context, _ *tcplabv1.CancelTrialRequest) (*tcplabv1.CancelTrialResponse, error) {
	return &tcplabv1.CancelTrialResponse{}, a.called(ctx, "CancelTrial")
}

func (a *scriptedAgent) AcknowledgeTrial(ctx context.Context, req *tcplabv1.AcknowledgeTrialRequest) (*tcplabv1.AcknowledgeTrialResponse, error) {
	a.mu.Lock()
	delete(a.spool, req.GetTrialId())
	a.mu.Unlock()
	return &tcplabv1.AcknowledgeTrialResponse{}, a.called(ctx, "AcknowledgeTrial")
}

func (a *scriptedAgent) StartSchedules(ctx context.Context, _ *tcplabv1.StartSchedulesRequest) (*tcplabv1.StartSchedulesResponse, error) {
	return &tcplabv1.StartSchedulesResponse{}, a.called(ctx, "StartSchedules")
}

func (a *scriptedAgent) RenewLease(ctx context.Context, req *tcplabv1.RenewLeaseRequest) (*tcplabv1.RenewLeaseResponse, error) {
	a.mu.Lock()
	_, stands := a.labs[req.GetDeploymentId()]
	a.renewals++
	if a.renewals == 3 && a.renewed != nil {
		close(a.renewed)
	}
	a.mu.Unlock()
	if !stands {
		return nil, status.Error(codes.NotFound, "no such deployment")
	}
	return &tcplabv1.RenewLeaseResponse{}, a.called(ctx, "RenewLease")
}

func (a *scriptedAgent) Remove(ctx context.Context, req *tcplabv1.RemoveRequest) (*tcplabv1.RemoveResponse, error) {
	a.mu.Lock()
	delete(a.labs, req.GetDeploymentId())
	a.mu.Unlock()
	return &tcplabv1.RemoveResponse{}, a.called(ctx, "Remove")
}
