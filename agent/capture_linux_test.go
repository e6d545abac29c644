package agent

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// captured finds a node's capture, and in it a flow.
func capturedAt(t *testing.T, result *tcplabv1.TrialResult, node, flow string) (*tcplabv1.NodeCapture, *tcplabv1.CapturedFlow) {
	t.Helper()
	for _, c := range result.GetCaptures() {
		for _, f := range c.GetFlows() {
			if c.GetNode() == node && f.GetName() == flow {
				return c, f
			}
		}
	}
	t.Fatalf("no capture at %s of the flow %s in %v", node, flow, result.GetCaptures())
	return nil, nil
}

// What is captured at both ends, and on the way, is what the kernel counted there.
func TestCapture(t *testing.T) {
	r := start(t, t.TempDir())
	shape := &tcplabv1.Shape{RateBps: 2e7, Delay: durationpb.New(5 * time.Millisecond)}
	lossy := &tcplabv1.Shape{RateBps: 2e7, Delay: durationpb.New(5 * time.Millisecond), Loss: 0.02}
	wwr := &tcplabv1.Flow{
		Name: "wwr", Client: "client", Server: "server", Family: tcplabv1.IpFamily_IP_FAMILY_IPV6,
		Socket: &tcplabv1.SocketOptions{NoDelay: new(false)},
		Kind:   &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{100, 100}, Reply: 100, Count: 5}},
	}
	lab := complete(t, &tcplabv1.Lab{
		Name:  "captured",
		Nodes: []*tcplabv1.Node{{Name: "client"}, {Name: "between", Kind: tcplabv1.NodeKind_NODE_KIND_ROUTER}, {Name: "server"}},
		Links: []*tcplabv1.Link{
			{
				Name: "near", A: &tcplabv1.LinkEnd{Node: "client"}, B: &tcplabv1.LinkEnd{Node: "between"},
				Forward: &tcplabv1.Direction{Shape: shape, Seed: 1}, Backward: &tcplabv1.Direction{Shape: shape, Seed: 2},
			},
			{
				Name: "far", A: &tcplabv1.LinkEnd{Node: "between"}, B: &tcplabv1.LinkEnd{Node: "server"},
				Forward: &tcplabv1.Direction{Shape: lossy, Seed: 3}, Backward: &tcplabv1.Direction{Shape: shape, Seed: 4},
			},
		},
		Experiments: []*tcplabv1.Experiment{
			{Name: "up", Flows: []*tcplabv1.Flow{bulk("up", 1<<20)}, Capture: &tcplabv1.Capture{Nodes: []string{"client", "between", "server"}}},
			{Name: "small", Flows: []*tcplabv1.Flow{wwr}, Capture: &tcplabv1.Capture{}},
		},
	})
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t.1")
	ended := r.watch(t, "t.1", nil)
	if ended.GetFailure() != "" {
		t.Fatalf("the trial failed: %s", ended.GetFailure())
	}
	result := ended.GetResult()
	flow := result.GetFlows()[0]
	sender, receiver := flow.GetClient().GetTcpInfo(), flow.GetServer().GetTcpInfo()
	if sender.GetTotalRetrans() == 0 {
		t.Fatal("nothing was lost: the test shows nothing")
	}
	var lost uint64
	for _, l := range result.GetLinks() {
		lost += l.GetCounters().GetLost() + l.GetCounters().GetOverflow()
	}
	var segments []uint64
	for _, node := range []string{"client", "between", "server"} {
		c, f := capturedAt(t, result, node, "up")
		segments = append(segments, f.GetClient().GetSegments())
		if c.GetDropped() != 0 || c.GetLeftOut() != 0 || c.GetDamaged() != 0 || f.GetConnections() != 1 {
			t.Errorf("at %s: %v", node, c)
		}
		if f.GetHandshake().GetP50().AsDuration() < 20*time.Millisecond || f.GetClient().GetMss() != 1460 {
			t.Errorf("at %s the handshake is read as %v, mss %d", node, f.GetHandshake(), f.GetClient().GetMss())
		}
	}
	if segments[0] != segments[1] || segments[1] != segments[2]+lost {
		t.Errorf("the client's segments are %d at the three nodes, and the links lost %d", segments, lost)
	}
	if _, f := capturedAt(t, result, "client", "up"); f.GetClient().GetDataSegments() != uint64(sender.GetDataSegsOut()) ||
		f.GetClient().GetBytes() != sender.GetBytesSent() || f.GetClient().GetBytesRetransmitted() != sender.GetBytesRetrans() ||
		f.GetClient().GetRetransmissions() != uint64(sender.GetTotalRetrans()) {
		t.Errorf("the client's capture reads %v, and its kernel says %v", f.GetClient(), sender)
	}
	if _, f := capturedAt(t, result, "server", "up"); f.GetClient().GetDataSegments() != uint64(receiver.GetDataSegsIn()) {
		t.Errorf("the server's capture reads %v, and its kernel says %v", f.GetClient(), receiver)
	}

	// The answer takes all that the client has: its second write waits for the first's acknowledgement.
	_, near := capturedAt(t, result, "client", "wwr")
	_, far := capturedAt(t, result, "server", "wwr")
	delayed := result.GetCounters()[2].GetValues()["TcpExtDelayedACKs"]
	if near.GetClient().GetNagleWaits() == 0 || near.GetClient().GetDataSegments() != 10 || near.GetServer().GetDataSegments() != 5 {
		t.Errorf("the client's capture reads %v", near)
	}
	if n := far.GetServer().GetDelayedAcks(); n == 0 || n > uint64(delayed) {
		t.Errorf("the server's capture reads %d delayed acknowledgements, and its kernel says %d", n, delayed)
	}

	content, err := r.artifact(t, "t.1", "client.pcapng", 0)
	if err != nil {
		t.Fatal(err)
	}
	var packets uint64
	info, err := trace.Each(bytes.NewReader(content), func(trace.Packet) error { packets++; return nil })
	if c, _ := capturedAt(t, result, "client", "up"); err != nil || packets != c.GetPackets() || len(info.Interfaces) != 2 ||
		info.Interfaces[1] != (trace.Interface{Name: "eth0", Description: "node client, experiment small", Snap: 128}) {
		t.Errorf("the file has %d packets and interfaces %+v, %v; %d packets were counted", packets, info.Interfaces, err, c.GetPackets())
	}
}

// A trial that is stopped keeps what was captured, and what does not fit is counted.
func TestCaptureOfATrialThatIsStopped(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, &tcplabv1.Shape{RateBps: 1e8}, endless("up"))
	lab.Experiments[0].Capture = &tcplabv1.Capture{Nodes: []string{"server"}, LimitPackets: 5}
	complete(t, lab)
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t.1")
	ended := r.watch(t, "t.1", func(e *tcplabv1.WatchTrialResponse) {
		if e.GetExperimentStarted() != nil {
			_, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{TrialId: "t.1"})
			if err != nil {
				t.Error(err)
			}
		}
	})
	captures := ended.GetResult().GetCaptures()
	if ended.GetFailure() == "" || len(captures) != 1 || captures[0].GetPackets() > 5 || captures[0].GetPackets() < 5 && captures[0].GetLeftOut() > 0 {
		t.Errorf("the trial ended as %q with %v", ended.GetFailure(), captures)
	}
}
