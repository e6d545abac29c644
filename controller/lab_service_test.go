package controller_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// standingFile has nothing to run.
const standingFile = `
name: office
nodes: [client, server]
links:
  - between: [client, server]
    rtt: 20ms
    rate: 100Mbit
`

// ReadLinks answers with the links as they were applied or changed.
func (a *scriptedAgent) ReadLinks(ctx context.Context, req *tcplabv1.ReadLinksRequest) (*tcplabv1.ReadLinksResponse, error) {
	a.mu.Lock()
	lab := a.labs[req.GetDeploymentId()]
	a.mu.Unlock()
	return &tcplabv1.ReadLinksResponse{Links: reportsOf(lab.GetLinks()...)}, a.called(ctx, "ReadLinks")
}

// ChangeLink takes every change.
func (a *scriptedAgent) ChangeLink(ctx context.Context, req *tcplabv1.ChangeLinkRequest) (*tcplabv1.ChangeLinkResponse, error) {
	if err := a.called(ctx, "ChangeLink"); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	lab := proto.CloneOf(a.labs[req.GetDeploymentId()])
	for i, l := range lab.GetLinks() {
		if l.GetName() == req.GetLink().GetName() {
			lab.Links[i] = req.GetLink()
		}
	}
	a.labs[req.GetDeploymentId()] = lab
	return &tcplabv1.ChangeLinkResponse{Links: reportsOf(req.GetLink())}, nil
}

func reportsOf(links ...*tcplabv1.Link) []*tcplabv1.LinkReport {
	var all []*tcplabv1.LinkReport
	for _, l := range links {
		for way, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
			all = append(all, &tcplabv1.LinkReport{
				Name: l.GetName(), Direction: tcplabv1.LinkDirection(way + 1), Engine: tcplabv1.Engine_ENGINE_WIRE,
				Spec: d.GetShape(), Applied: d.GetShape(), Verdict: tcplabv1.LinkVerdict_LINK_VERDICT_PASSED,
			})
		}
	}
	return all
}

// labHarness is a controller without runs.
type labHarness struct {
	tcplabv1.LabServiceClient
	agent   *scriptedAgent
	emptied chan struct{}
	stop    func() error
}

func startLabs(t *testing.T, agent *scriptedAgent) *labHarness {
	t.Helper()
	if agent.links == nil {
		agent.links = reportsOf(&tcplabv1.Link{Name: "client-server"})
	}
	client := agent.serve(t)
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	h := &labHarness{LabServiceClient: tcplabv1.NewLabServiceClient(dial(t, listener)), agent: agent, emptied: make(chan struct{}, 8)}
	go func() {
		ended <- controller.Run(ctx, controller.Config{Agent: client, Lease: time.Second, Emptied: func() { h.emptied <- struct{}{} }}, listener)
	}()
	stopped := false
	h.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *labHarness) create(t *testing.T, change func(*tcplabv1.CreateDeploymentRequest)) (*tcplabv1.Deployment, error) {
	t.Helper()
	req := &tcplabv1.CreateDeploymentRequest{
		RequestId: "r", Seed: 7,
		LabSource: &tcplabv1.CreateDeploymentRequest_Source{Source: &tcplabv1.LabSource{Content: []byte(standingFile), FileName: "office.yaml"}},
	}
	if change != nil {
		change(req)
	}
	response, err := h.CreateDeployment(t.Context(), req)
	return response.GetDeployment(), err
}

func TestDeployment(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	d, err := h.create(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d.GetName() != "office" || d.GetState() != tcplabv1.DeploymentState_DEPLOYMENT_STATE_STANDING || len(d.GetNodes()) != 2 || len(d.GetLinks()) != 1 {
		t.Errorf("it stands as %v", d)
	}
	if l := d.GetLinks()[0]; l.GetForward().GetSeed() == 0 || l.GetEtag() == "" || len(l.GetReports()) != 2 || l.GetEngine() != tcplabv1.Engine_ENGINE_WIRE {
		t.Errorf("its link is %v", l)
	}
	// The same request is the same deployment; another one is not, and wants another name.
	again, err := h.create(t, nil)
	if err != nil || !proto.Equal(again.GetCreateTime(), d.GetCreateTime()) || h.agent.count("Apply") != 1 {
		t.Errorf("asked again: %v, %v", again, err)
	}
	_, err = h.create(t, func(r *tcplabv1.CreateDeploymentRequest) { r.Seed = 8 })
	wantError(t, err, codes.AlreadyExists, rpcerr.Conflict, "request r asked for something else")
	_, err = h.create(t, func(r *tcplabv1.CreateDeploymentRequest) { r.RequestId = "other" })
	wantError(t, err, codes.AlreadyExists, rpcerr.Conflict, "a deployment office stands already")
	if _, err := h.create(t, func(r *tcplabv1.CreateDeploymentRequest) { r.RequestId, r.Name = "", "home" }); err != nil {
		t.Fatal(err)
	}
	first, err := h.ListDeployments(t.Context(), &tcplabv1.ListDeploymentsRequest{PageSize: 1})
	if err != nil || len(first.GetDeployments()) != 1 || first.GetDeployments()[0].GetName() != "home" {
		t.Fatalf("the first page is %v, %v", first, err)
	}
	second, err := h.ListDeployments(t.Context(), &tcplabv1.ListDeploymentsRequest{PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetDeployments()) != 1 || second.GetNextPageToken() != "" {
		t.Errorf("the second page is %v, %v", second, err)
	}
	for _, name := range []string{"home", "office"} {
		if _, err := h.DeleteDeployment(t.Context(), &tcplabv1.DeleteDeploymentRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	<-h.emptied
	if left, _ := h.agent.left(); left != 0 {
		t.Errorf("%d deployments are left", left)
	}
	_, err = h.GetDeployment(t.Context(), &tcplabv1.GetDeploymentRequest{Name: "office"})
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "no deployment is called office")
}

// Where it cannot stand, or a link is wrong, or nobody waits for it any more, nothing is left.
func TestDeploymentThatDoesNotStand(t *testing.T) {
	wrong := reportsOf(&tcplabv1.Link{Name: "client-server"})
	wrong[0].Verdict = tcplabv1.LinkVerdict_LINK_VERDICT_FAILED
	for name, c := range map[string]struct {
		agent func(*scriptedAgent)
		code  codes.Code
	}{
		"not built":   {func(a *scriptedAgent) { a.errs["Apply"] = errors.New("no") }, codes.Unknown},
		"not proven":  {func(a *scriptedAgent) { a.errs["Verify"] = errors.New("no") }, codes.Unknown},
		"a bad link":  {func(a *scriptedAgent) { a.links = wrong }, codes.Aborted},
		"interrupted": {func(a *scriptedAgent) { a.block = "Verify" }, codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			agent := newScriptedAgent()
			c.agent(agent)
			h := startLabs(t, agent)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if agent.block != "" {
				go func() {
					<-agent.reached
					cancel()
				}()
			}
			_, err := h.CreateDeployment(ctx, &tcplabv1.CreateDeploymentRequest{
				LabSource: &tcplabv1.CreateDeploymentRequest_Source{Source: &tcplabv1.LabSource{Content: []byte(standingFile)}},
			})
			if code := rpcerr.From(err).Code; code != c.code {
				t.Errorf("%v (%v)", err, code)
			}
			<-h.emptied
			if left, _ := agent.left(); left != 0 {
				t.Errorf("%d deployments are left", left)
			}
		})
	}
}

// A deployment that the agent has lost is none any more.
func TestDeploymentThatIsLost(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	if _, err := h.create(t, nil); err != nil {
		t.Fatal(err)
	}
	h.agent.mu.Lock()
	clear(h.agent.labs)
	h.agent.mu.Unlock()
	<-h.emptied
	_, err := h.GetDeployment(t.Context(), &tcplabv1.GetDeploymentRequest{Name: "office"})
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "no deployment is called office")
}

// A controller that is stopped leaves no deployment.
func TestStopRemovesDeployments(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	if _, err := h.create(t, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if left, _ := h.agent.left(); left != 0 {
		t.Errorf("%d deployments are left", left)
	}
}

func TestUpdateLink(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	d, err := h.create(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := d.GetLinks()[0]
	update := func(etag string, forward *tcplabv1.Shape, paths ...string) (*tcplabv1.DeployedLink, error) {
		response, err := h.UpdateLink(t.Context(), &tcplabv1.UpdateLinkRequest{
			Deployment: "office", UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
			Link: &tcplabv1.DeployedLink{Name: "client-server", Etag: etag, Forward: &tcplabv1.Direction{Shape: forward}},
		})
		return response.GetLink(), err
	}
	slow := &tcplabv1.Shape{Delay: durationpb.New(80 * time.Millisecond), Loss: 0.5}
	changed, err := update(first.GetEtag(), slow, "forward.delay")
	if err != nil {
		t.Fatal(err)
	}
	s := changed.GetForward().GetShape()
	if s.GetDelay().AsDuration() != 80*time.Millisecond || s.GetLoss() != 0 || s.GetRateBps() != 1e8 || changed.GetEtag() == first.GetEtag() || changed.GetUpdateTime() == nil {
		t.Errorf("changed to %v", changed)
	}
	// Nobody asked for the queue: it is what one is by default, of the new round trip of 90 ms.
	if q := s.GetQueue().GetPackets(); q != 744 { // ceil(1e8/8 × 0.09 / 1514)
		t.Errorf("its queue holds %d packets", q)
	}
	if changed.GetForward().GetSeed() != first.GetForward().GetSeed() {
		t.Error("the seed has changed")
	}
	// Who saw it before is told what is different.
	_, err = update(first.GetEtag(), slow, "forward.loss")
	wantError(t, err, codes.Aborted, rpcerr.Changed, "link client-server has changed since etag")
	var told string
	for _, v := range rpcerr.From(err).Violations {
		told += v.Field + ": " + v.Description + "\n"
	}
	if told != "forward.delay: it was 10ms, and is 80ms\nforward.queue: it was packets:166, and is packets:744\nbackward.queue: it was packets:166, and is packets:744\n" {
		t.Errorf("told is %q", told)
	}
	// What breaks a rule never comes to the agent, and what the agent refuses changes nothing.
	calls := h.agent.count("ChangeLink")
	_, err = update("", &tcplabv1.Shape{Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Bytes{Bytes: 100}}}, "forward.queue")
	wantError(t, err, codes.InvalidArgument, rpcerr.LabInvalid, "client-server cannot be so")
	if h.agent.count("ChangeLink") != calls {
		t.Error("the agent was asked for it")
	}
	h.agent.errs["ChangeLink"] = rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "", "not this engine")
	_, err = update("", slow, "forward.loss")
	wantError(t, err, codes.FailedPrecondition, rpcerr.RequestInvalid, "not this engine")
	got, err := h.GetLink(t.Context(), &tcplabv1.GetLinkRequest{Deployment: "office", Link: "client-server"})
	if err != nil || got.GetLink().GetEtag() != changed.GetEtag() {
		t.Errorf("now it is %v, %v", got, err)
	}
}

// Links are verified anew with the names and the time that were asked for, and what is found is told, a wrong link too.
func TestVerifyLinks(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	if _, err := h.create(t, nil); err != nil {
		t.Fatal(err)
	}
	h.agent.links[1].Verdict, h.agent.links[1].Detail = tcplabv1.LinkVerdict_LINK_VERDICT_FAILED, "delay: far off"
	got, err := h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office"})
	if err != nil {
		t.Fatal(err)
	}
	if asked := h.agent.verified; asked.GetDeploymentId() != "standing.office" || len(asked.GetLinks()) != 0 || asked.GetLimit().AsDuration() != 30*time.Second {
		t.Errorf("the agent was asked for %v", asked)
	}
	if len(got.GetLinks()) != 1 || len(got.GetLinks()[0].GetReports()) != 2 || got.GetLinks()[0].GetReports()[1].GetDetail() != "delay: far off" || got.GetLinks()[0].GetEtag() == "" {
		t.Errorf("found was %v", got)
	}
	if _, err := h.GetDeployment(t.Context(), &tcplabv1.GetDeploymentRequest{Name: "office"}); err != nil {
		t.Errorf("a wrong link took the lab away: %v", err)
	}
	limit := durationpb.New(2 * time.Minute)
	if _, err := h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office", Links: []string{"client-server"}, Limit: limit}); err != nil {
		t.Fatal(err)
	}
	if asked := h.agent.verified; len(asked.GetLinks()) != 1 || asked.GetLinks()[0] != "client-server" || !proto.Equal(asked.GetLimit(), limit) {
		t.Errorf("the agent was asked for %v", asked)
	}
	calls := h.agent.count("Verify")
	_, err = h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office", Links: []string{"other"}})
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "deployment office has no link other")
	_, err = h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "home"})
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "no deployment is called home")
	_, err = h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office", Limit: durationpb.New(time.Hour)})
	wantError(t, err, codes.InvalidArgument, rpcerr.RequestInvalid, "")
	if h.agent.count("Verify") != calls {
		t.Error("the agent was asked for what is refused")
	}
	h.agent.mu.Lock() // leases are renewed all the while
	h.agent.errs["Verify"] = rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Wait.", "a verification is under way")
	h.agent.mu.Unlock()
	_, err = h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office"})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Busy, "a verification is under way")
}

// Links can be read while they are verified, and one that was changed meanwhile has proven nothing.
func TestChangeWhileVerified(t *testing.T) {
	agent := newScriptedAgent()
	agent.release = make(chan struct{})
	h := startLabs(t, agent)
	if _, err := h.create(t, nil); err != nil {
		t.Fatal(err)
	}
	agent.mu.Lock() // leases are renewed all the while
	agent.block = "Verify"
	agent.mu.Unlock()
	verified := make(chan error, 1)
	go func() {
		_, err := h.VerifyLinks(t.Context(), &tcplabv1.VerifyLinksRequest{Deployment: "office"})
		verified <- err
	}()
	<-agent.reached
	if _, err := h.ListLinks(t.Context(), &tcplabv1.ListLinksRequest{Deployment: "office"}); err != nil {
		t.Error(err)
	}
	if _, err := h.UpdateLink(t.Context(), &tcplabv1.UpdateLinkRequest{
		Deployment: "office", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"forward.loss"}},
		Link: &tcplabv1.DeployedLink{Name: "client-server", Forward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{Loss: 0.5}}},
	}); err != nil {
		t.Error(err)
	}
	close(agent.release)
	wantError(t, <-verified, codes.Aborted, rpcerr.Changed, "link client-server was changed while it was verified")
}

func TestWatchLinks(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	if _, err := h.create(t, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := h.WatchLinks(ctx, &tcplabv1.WatchLinksRequest{Deployment: "office", Interval: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if now, err := stream.Recv(); err != nil || len(now.GetLinks()) != 1 {
			t.Fatalf("%v, %v", now, err)
		}
	}
	if _, err := h.DeleteDeployment(t.Context(), &tcplabv1.DeleteDeploymentRequest{Name: "office"}); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if code := rpcerr.From(err).Code; code != codes.NotFound {
		t.Errorf("the watch of what is gone ends with %v", err)
	}
}

func TestValidateLab(t *testing.T) {
	h := startLabs(t, newScriptedAgent())
	req := &tcplabv1.ValidateLabRequest{LabSource: &tcplabv1.ValidateLabRequest_Source{Source: &tcplabv1.LabSource{Content: []byte(standingFile)}}}
	_, err := h.ValidateLab(t.Context(), req)
	wantError(t, err, codes.InvalidArgument, rpcerr.LabInvalid, "the lab has no experiments")
	req.Standing = true
	valid, err := h.ValidateLab(t.Context(), req)
	if err != nil || valid.GetPointsCount() != 1 || len(valid.GetLab().GetLinks()[0].GetA().GetAddresses()) == 0 {
		t.Errorf("%v, %v", valid, err)
	}
}
