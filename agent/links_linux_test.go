package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (r *running) readLinks(t *testing.T) []*tcplabv1.LinkReport {
	t.Helper()
	response, err := r.ReadLinks(r.ctx, &tcplabv1.ReadLinksRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetLinks()
}

func TestChangeLink(t *testing.T) {
	need.TUN(t)
	r := start(t, t.TempDir())
	lab := twoNodes(t, &tcplabv1.Shape{RateBps: 1e8, Delay: durationpb.New(5 * time.Millisecond)})
	r.apply(t, "d", lab)
	for _, report := range r.readLinks(t) {
		if len(report.GetDrift()) > 0 || report.GetCounters() == nil || !proto.Equal(report.GetApplied().GetDelay(), durationpb.New(5*time.Millisecond)) {
			t.Errorf("at first %v", report)
		}
	}
	change := func(f func(*tcplabv1.Link)) ([]*tcplabv1.LinkReport, error) {
		to := proto.CloneOf(lab.GetLinks()[0])
		f(to)
		response, err := r.ChangeLink(r.ctx, &tcplabv1.ChangeLinkRequest{DeploymentId: "d", Link: to})
		return response.GetLinks(), err
	}
	changed, err := change(func(l *tcplabv1.Link) {
		l.Forward.Shape.Delay = durationpb.New(40 * time.Millisecond)
		l.Backward.Shape.RateBps = 2e7
	})
	if err != nil {
		t.Fatal(err)
	}
	// Counters move with what the kernel itself sends.
	if diff := cmp.Diff(changed, r.readLinks(t), protocmp.Transform(), protocmp.IgnoreFields(&tcplabv1.LinkReport{}, "counters")); diff != "" {
		t.Errorf("(-answered +read)\n%s", diff)
	}
	if d := changed[0].GetApplied().GetDelay().AsDuration(); d != 40*time.Millisecond || changed[1].GetApplied().GetRateBps() != 2e7 {
		t.Errorf("changed to %v", changed)
	}
	// Both or neither: here the second direction cannot be.
	for name, c := range map[string]struct {
		change func(*tcplabv1.Link)
		code   codes.Code
	}{
		"contradiction":    {func(l *tcplabv1.Link) { l.Backward.Shape.Loss = 2 }, codes.InvalidArgument},
		"unknown link":     {func(l *tcplabv1.Link) { l.Name = "other" }, codes.NotFound},
		"a seed":           {func(l *tcplabv1.Link) { l.Backward.Seed = 77 }, codes.FailedPrecondition},
		"another path set": {func(l *tcplabv1.Link) { l.Backward.Paths = []*tcplabv1.Path{dns()} }, codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := change(func(l *tcplabv1.Link) {
				l.Forward.Shape.Delay = durationpb.New(time.Second)
				c.change(l)
			})
			if codeOf(err) != c.code {
				t.Errorf("%v", err)
			}
			if diff := cmp.Diff(changed, r.readLinks(t), protocmp.Transform(), protocmp.IgnoreFields(&tcplabv1.LinkReport{}, "counters")); diff != "" {
				t.Errorf("(-before +after)\n%s", diff)
			}
		})
	}
	if _, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"}); err != nil {
		t.Fatal(err)
	}
	if report := r.readLinks(t)[0]; report.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED || report.GetMeasured().GetDelay().AsDuration() < 39*time.Millisecond {
		t.Errorf("the changed link measures %v", report)
	}
}

func dns() *tcplabv1.Path {
	return &tcplabv1.Path{Name: "dns", Match: &tcplabv1.Match{Port: 53}, Shape: &tcplabv1.Shape{Loss: 0.1}}
}

// A plain veth shapes nothing, and says what to do.
func TestChangeVeth(t *testing.T) {
	r := start(t, t.TempDir())
	lab := twoNodes(t, nil)
	r.apply(t, "d", lab)
	to := proto.CloneOf(lab.GetLinks()[0])
	to.Forward.Shape = &tcplabv1.Shape{Loss: 0.5}
	if _, err := r.ChangeLink(r.ctx, &tcplabv1.ChangeLinkRequest{DeploymentId: "d", Link: to}); codeOf(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
	// While a trial runs nobody changes its links.
	r.apply(t, "e", twoNodes(t, nil, endless("b")))
	r.startTrial(t, "e", "t")
	if _, err := r.ChangeLink(r.ctx, &tcplabv1.ChangeLinkRequest{DeploymentId: "e", Link: lab.GetLinks()[0]}); codeOf(err) != codes.FailedPrecondition {
		t.Errorf("during a trial: %v", err)
	}
}

// A lab that only stands plays its schedules from StartSchedules on, and a verification lets them
// begin anew. A link that follows one is not changed by hand.
func TestStandingSchedules(t *testing.T) {
	need.TUN(t)
	r := start(t, t.TempDir())
	lab := twoNodes(t, &tcplabv1.Shape{Delay: durationpb.New(5 * time.Millisecond)})
	forward := lab.GetLinks()[0].GetForward()
	step := func(at, delay time.Duration) *tcplabv1.ScheduleStep {
		return &tcplabv1.ScheduleStep{At: durationpb.New(at), Shape: &tcplabv1.Shape{Delay: durationpb.New(delay)}}
	}
	forward.Schedule = []*tcplabv1.ScheduleStep{step(0, 10*time.Millisecond), step(time.Hour, time.Second)}
	r.apply(t, "d", lab)
	delays := func() [2]time.Duration {
		links := r.readLinks(t)
		if len(links[0].GetDrift()) > 0 {
			t.Errorf("a schedule is no drift: %v", links[0].GetDrift())
		}
		return [2]time.Duration{links[0].GetApplied().GetDelay().AsDuration(), links[1].GetApplied().GetDelay().AsDuration()}
	}
	if got := delays(); got != [2]time.Duration{5 * time.Millisecond, 5 * time.Millisecond} {
		t.Errorf("before its schedule the link has %v", got)
	}
	// Twice: it begins anew.
	for range 2 {
		if _, err := r.StartSchedules(r.ctx, &tcplabv1.StartSchedulesRequest{DeploymentId: "d"}); err != nil {
			t.Fatal(err)
		}
		if got := delays(); got != [2]time.Duration{10 * time.Millisecond, 5 * time.Millisecond} {
			t.Errorf("after its first step the link has %v", got)
		}
	}
	if _, err := r.ChangeLink(r.ctx, &tcplabv1.ChangeLinkRequest{DeploymentId: "d", Link: lab.GetLinks()[0]}); codeOf(err) != codes.FailedPrecondition {
		t.Errorf("changed under its schedule: %v", err)
	}
	verified, err := r.Verify(r.ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if d := verified.GetLinks()[0].GetMeasured().GetDelay().AsDuration(); d > 9*time.Millisecond {
		t.Errorf("verification measured %v: the shape before the schedule has 5 ms", d)
	}
	if got := delays()[0]; got != 10*time.Millisecond {
		t.Errorf("after a verification the link has %v", got)
	}
	if _, err := r.StartSchedules(r.ctx, &tcplabv1.StartSchedulesRequest{DeploymentId: "absent"}); codeOf(err) != codes.NotFound {
		t.Errorf("of no deployment: %v", err)
	}
}
