package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// requests are so many small ones, one after another.
func requests(name string, count uint32) *tcplabv1.Flow {
	return &tcplabv1.Flow{
		Name: name, Client: "client", Server: "server",
		Kind: &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{100}, Reply: 100, Count: count}},
	}
}

// What verification sends is not counted by the shape: the 3rd packet of each trial is lost, and
// that is the first request, behind the handshake's two.
func TestThirdPacketOfEachTrialIsLost(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, &tcplabv1.Shape{Delay: durationpb.New(5 * time.Millisecond)}, requests("get", 5))
	lab.Links[0].Forward.Shape.LossPattern = &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_Packets{Packets: &tcplabv1.PacketList{Numbers: []uint64{3}}}}
	r.apply(t, "d", lab)
	verified, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if l := verified.GetLinks()[0]; l.GetVerdict() != tcplabv1.LinkVerdict_LINK_VERDICT_PASSED || len(l.GetDrift()) > 0 {
		t.Errorf("the link is %v: %s", l.GetVerdict(), l.GetDetail())
	}
	for n := range 2 {
		id := fmt.Sprintf("t.%d", n)
		r.startTrial(t, "d", id)
		ended := r.watch(t, id, nil)
		if ended.GetFailure() != "" {
			t.Fatal(ended.GetFailure())
		}
		result := ended.GetResult()
		if lost := result.GetLinks()[0].GetCounters().GetLost(); lost != 1 {
			t.Errorf("trial %d: %d packets were lost, want the 3rd", n, lost)
		}
		latency := result.GetFlows()[0].GetLatency()
		if first := latency.GetMax().AsDuration(); first < 100*time.Millisecond {
			t.Errorf("trial %d: no request waited for a retransmission: %v", n, latency)
		}
		if p50 := latency.GetP50().AsDuration(); p50 > 100*time.Millisecond {
			t.Errorf("trial %d: more than one request waited: %v", n, latency)
		}
	}
}

// A schedule begins with each trial's first experiment, and the link is as at first before the next.
func TestScheduleIsPlayedInEachTrial(t *testing.T) {
	r := start(t, t.TempDir())
	flow := requests("get", 6)
	flow.GetTransaction().ThinkTime = durationpb.New(100 * time.Millisecond)
	lab := twoNodes(t, &tcplabv1.Shape{Delay: durationpb.New(5 * time.Millisecond)}, flow)
	lab.Links[0].Forward.Schedule = []*tcplabv1.ScheduleStep{
		{At: durationpb.New(250 * time.Millisecond), Shape: &tcplabv1.Shape{Delay: durationpb.New(60 * time.Millisecond)}},
	}
	r.apply(t, "d", lab)
	for n := range 2 {
		verified, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"})
		if err != nil {
			t.Fatal(err)
		}
		if l := verified.GetLinks()[0]; l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
			t.Errorf("before trial %d the link is not as at first: %s", n, l.GetDetail())
		}
		id := fmt.Sprintf("t.%d", n)
		r.startTrial(t, "d", id)
		ended := r.watch(t, id, nil)
		if ended.GetFailure() != "" {
			t.Fatal(ended.GetFailure())
		}
		latency := ended.GetResult().GetFlows()[0].GetLatency()
		if least, most := latency.GetMin().AsDuration(), latency.GetMax().AsDuration(); least > 55*time.Millisecond || most < 65*time.Millisecond {
			t.Errorf("trial %d: requests took %v to %v, want 10 ms before the step and 65 ms behind it", n, least, most)
		}
		if l := ended.GetResult().GetLinks()[0].GetLateness(); l == nil || l.GetSummary().GetCount() == 0 || len(l.GetBuckets()) == 0 {
			t.Errorf("trial %d: the lateness is %v", n, l)
		}
	}
}

// What one link is verified for leaves the others alone, and a verification that nobody waits for leaves the
// link as one that ended.
func TestVerifyOneLink(t *testing.T) {
	r := start(t, t.TempDir())
	shape := func() *tcplabv1.Direction {
		return &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(2 * time.Millisecond), Loss: 1e-5}, Seed: 1}
	}
	lab := complete(t, &tcplabv1.Lab{
		Name:  "three-nodes",
		Nodes: []*tcplabv1.Node{{Name: "client"}, {Name: "server"}, {Name: "other"}},
		Links: []*tcplabv1.Link{
			{Name: "used", A: &tcplabv1.LinkEnd{Node: "client"}, B: &tcplabv1.LinkEnd{Node: "server"}, Forward: shape(), Backward: shape()},
			{Name: "idle", A: &tcplabv1.LinkEnd{Node: "server"}, B: &tcplabv1.LinkEnd{Node: "other"}, Forward: shape(), Backward: shape()},
		},
		Experiments: experimentsOf([]*tcplabv1.Flow{requests("get", 5)}),
	})
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t")
	if ended := r.watch(t, "t", nil); ended.GetFailure() != "" {
		t.Fatal(ended.GetFailure())
	}
	received := func(link string) uint64 {
		t.Helper()
		read, err := r.ReadLinks(r.ctx, &tcplabv1.ReadLinksRequest{DeploymentId: "d", Links: []string{link}})
		if err != nil {
			t.Fatal(err)
		}
		return read.GetLinks()[0].GetCounters().GetReceived()
	}
	before := received("used")
	verified, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d", Links: []string{"idle"}})
	if err != nil {
		t.Fatal(err)
	}
	if links := verified.GetLinks(); len(links) != 2 || links[0].GetName() != "idle" || links[1].GetName() != "idle" || links[0].GetMeasured() == nil {
		t.Errorf("verified was %v", links)
	}
	read, err := r.ReadLinks(r.ctx, &tcplabv1.ReadLinksRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if links := read.GetLinks(); links[0].GetMeasured() != nil || links[2].GetMeasured() == nil {
		t.Errorf("what was measured is told of others: %v", links)
	}
	if now := received("used"); before == 0 || now != before {
		t.Errorf("the link that was not asked for had %d frames before, and %d after", before, now)
	}
	_, err = r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d", Links: []string{"idle", "none"}})
	if e := rpcerr.From(err); e == nil || e.Code != codes.NotFound || !strings.Contains(e.Message, "no link none") {
		t.Errorf("a link that there is not: %v", err)
	}

	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	gaveUp := make(chan error, 1)
	go func() {
		_, err := r.Verify(ctx, &tcplabv1.VerifyRequest{DeploymentId: "d", Links: []string{"used"}, Limit: durationpb.New(time.Minute)})
		gaveUp <- err
	}()
	for received("used") == before { // the probes' are seen, or that it was re-armed for them
	}
	cancel()
	if err := <-gaveUp; rpcerr.From(err) == nil || rpcerr.From(err).Code != codes.Canceled {
		t.Errorf("given up: %v", err)
	}
	for received("used") != 0 { // the agent ends it behind the call, until the test's own deadline
	}
	if again, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t.1"}); err != nil && rpcerr.From(err).Reason != rpcerr.Busy {
		t.Errorf("a trial behind it: %v, %v", again, err)
	}
}

// off is a link that has in force what it is told.
type off struct {
	link.Link // for what nothing here calls
	applied   [2]link.Direction
}

func (o off) ReadBack() ([2]link.Direction, error)    { return o.applied, nil }
func (o off) Change(way int, to link.Direction) error { return nil }

// What is in force and was not asked fails the link, with both figures, on the direction or path that it is of.
func TestDriftFailsTheLink(t *testing.T) {
	asked := link.Direction{
		Shape: link.Shape{Delay: 10 * time.Millisecond},
		Paths: []link.Path{{Name: "web", Match: link.Match{Port: 443}, Shape: link.Shape{Delay: 20 * time.Millisecond}}},
	}
	applied := asked
	applied.Paths = []link.Path{{Name: "web", Match: link.Match{Port: 443}, Shape: link.Shape{Delay: 21 * time.Millisecond}}}
	d := &deployment{
		plan: &topology.Plan{
			Nodes: []topology.Node{{Interfaces: make([]topology.Interface, 1)}, {Interfaces: make([]topology.Interface, 1)}},
			Links: []topology.Link{{Name: "a-b", Directions: [2]link.Direction{asked, asked}, Ends: [2]topology.End{{Node: 0}, {Node: 1}}}},
		},
		choice: &choice{kinds: []tcplabv1.Engine{tcplabv1.Engine_ENGINE_WIRE}},
	}
	d.standing = &topology.Standing{Links: []link.Link{off{applied: [2]link.Direction{asked, applied}}}}
	reports := d.unmeasured()
	if len(reports) != 4 {
		t.Fatalf("%d reports of two directions with a path each", len(reports))
	}
	if err := d.readBack([]int{0}, reports); err != nil {
		t.Fatal(err)
	}
	for i, r := range reports {
		wrong := i == 3
		if failed := r.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED; failed != wrong || (len(r.GetDrift()) > 0) != wrong {
			t.Errorf("report %d (%s %s): %v, drift %q", i, r.GetDirection(), r.GetPath(), r.GetVerdict(), r.GetDrift())
		}
		if r.GetApplied() == nil {
			t.Errorf("report %d has nothing in force", i)
		}
	}
	if detail := reports[3].GetDetail(); !strings.Contains(detail, "20ms was asked, 21ms is in force") {
		t.Errorf("the detail is %q", detail)
	}
	if err := d.drifted(0, 1, asked); err == nil || !strings.Contains(err.Error(), "path web: delay: 20ms was asked, 21ms is in force") {
		t.Errorf("drifted: %v", err)
	}
	if err := d.drifted(0, 0, asked); err != nil {
		t.Errorf("drifted: %v", err)
	}
}
