package run

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Seeds are part of what a user may repeat years later: the figures were
// computed by hand of the definition (SHA-256 of the fields).
func TestDirectionSeed(t *testing.T) {
	const forward, backward = tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD, tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD
	if got, want := directionSeed(42, "client-server", forward, 0, 1), uint64(12226377498411222682); got != want {
		t.Errorf("forward: %d, want %d", got, want)
	}
	if got, want := directionSeed(42, "client-server", backward, 0, 1), uint64(13752035984882055227); got != want {
		t.Errorf("backward: %d, want %d", got, want)
	}
	seen := map[uint64]bool{}
	for seed := range uint64(3) {
		for _, link := range []string{"a", "b", ""} {
			for point := range uint32(3) {
				for repetition := range uint32(3) {
					seen[directionSeed(seed, link, forward, point, repetition)] = true
				}
			}
		}
	}
	if len(seen) != 81 || seen[0] {
		t.Errorf("%d different seeds of 81", len(seen))
	}
}

func TestPlanOrder(t *testing.T) {
	point := func(name string) *tcplabv1.Lab {
		return &tcplabv1.Lab{Name: name, Repeat: 2, Links: []*tcplabv1.Link{
			{Name: "free", Engine: tcplabv1.Engine_ENGINE_AUTO, Forward: &tcplabv1.Direction{Seed: 9}, Backward: &tcplabv1.Direction{}},
			{Name: "fixed", Engine: tcplabv1.Engine_ENGINE_NETEM},
		}}
	}
	points := []*tcplabv1.Lab{point("a"), point("b"), point("c")}
	before := proto.CloneOf(points[0])
	p, err := NewPlan(points, &tcplabv1.RunOptions{Engine: tcplabv1.Engine_ENGINE_WIRE, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	type trial struct {
		Lab        string
		Repetition uint32
	}
	var got []trial
	for number := uint32(1); number <= p.Trials(); number++ {
		lab, repetition := p.Trial(number)
		got = append(got, trial{lab.GetName(), repetition})
		if lab.GetLinks()[0].GetEngine() != tcplabv1.Engine_ENGINE_WIRE || lab.GetLinks()[1].GetEngine() != tcplabv1.Engine_ENGINE_NETEM {
			t.Errorf("trial %d: engines of %v", number, lab.GetLinks())
		}
		if lab.GetLinks()[0].GetForward().GetSeed() != 9 || lab.GetLinks()[0].GetBackward().GetSeed() == 0 {
			t.Errorf("trial %d: the seed that is given must stay, the other be derived: %v", number, lab.GetLinks()[0])
		}
	}
	if diff := cmp.Diff([]trial{{"a", 1}, {"b", 1}, {"c", 1}, {"a", 2}, {"b", 2}, {"c", 2}}, got); diff != "" {
		t.Errorf("trials (-want +got):\n%s", diff)
	}
	for i := range p.Points() {
		lab, numbers := p.point(i)
		for _, number := range numbers {
			if of, _ := p.Trial(number); of.GetName() != lab.GetName() {
				t.Errorf("trial %d is of point %s, not %s", number, of.GetName(), lab.GetName())
			}
		}
		if len(numbers) != 2 {
			t.Errorf("point %d has the trials %v", i, numbers)
		}
	}
	if !proto.Equal(before, points[0]) {
		t.Error("the plan changed the caller's labs")
	}
}

func TestPlanIsBounded(t *testing.T) {
	lab := &tcplabv1.Lab{Name: "a", Repeat: 1}
	points := make([]*tcplabv1.Lab, 101)
	for i := range points {
		points[i] = lab
	}
	if _, err := NewPlan(points[:100], &tcplabv1.RunOptions{Repeat: 1000}); err != nil {
		t.Errorf("%d trials: %v", MaxTrials, err)
	}
	_, err := NewPlan(points, &tcplabv1.RunOptions{Repeat: 1000})
	if rpcerr.From(err).Code != codes.ResourceExhausted {
		t.Errorf("more than %d trials: %v", MaxTrials, err)
	}
}

func TestDefaultTimeoutIsBeyondTheExperiments(t *testing.T) {
	lab := &tcplabv1.Lab{Name: "a", Repeat: 3, Experiments: []*tcplabv1.Experiment{
		{Timeout: durationpb.New(time.Hour)}, {},
	}}
	p, err := NewPlan([]*tcplabv1.Lab{lab, lab}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, least := p.Timeout(), 6*(time.Hour+time.Minute); got <= least || got > least+6*trialAllowance {
		t.Errorf("timeout %v, want a little more than %v", got, least)
	}
}

func TestEstimate(t *testing.T) {
	way := func(delay time.Duration, rate float64) *tcplabv1.Direction {
		return &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(delay), RateBps: rate}}
	}
	link := func(a, b string, there, back *tcplabv1.Direction) *tcplabv1.Link {
		return &tcplabv1.Link{A: &tcplabv1.LinkEnd{Node: a}, B: &tcplabv1.LinkEnd{Node: b}, Forward: there, Backward: back}
	}
	// From c to s: 10 + 20 ms at 8 Mbit/s there, 5 + 15 ms back; R = 50 ms.
	links := []*tcplabv1.Link{
		link("c", "r", way(10*time.Millisecond, 8e6), way(5*time.Millisecond, 0)),
		link("s", "r", way(15*time.Millisecond, 0), way(20*time.Millisecond, 1e9)),
	}
	const rtt = 50 * time.Millisecond
	bulk := func(bytes uint64) *tcplabv1.Flow {
		return &tcplabv1.Flow{Client: "c", Server: "s", Kind: &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: bytes}}}}
	}
	transaction := func(noDelay bool) *tcplabv1.Flow {
		return &tcplabv1.Flow{
			Client: "c", Server: "s", Socket: &tcplabv1.SocketOptions{NoDelay: &noDelay},
			Kind: &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{
				Writes: []uint32{500, 500}, Reply: 100, Count: 10, ThinkTime: durationpb.New(3 * time.Millisecond),
				ServerTime: durationpb.New(2 * time.Millisecond),
			}},
		}
	}
	burst := func(gaps ...time.Duration) *tcplabv1.Flow {
		b := &tcplabv1.Burst{Writes: []uint32{100, 200}, Count: 3}
		for _, gap := range gaps {
			b.Gaps = append(b.Gaps, durationpb.New(gap))
		}
		return &tcplabv1.Flow{Client: "c", Server: "s", Kind: &tcplabv1.Flow_Burst{Burst: b}}
	}
	openLoop := func(rate float64) *tcplabv1.Flow {
		f := transaction(true)
		f.GetTransaction().ThinkTime, f.GetTransaction().Rate = nil, rate
		return f
	}
	on := func(connections uint32, f *tcplabv1.Flow) *tcplabv1.Flow {
		f.GetTransaction().Connections = connections
		return f
	}
	late := bulk(1)
	late.Start = durationpb.New(time.Second)
	late.Name = "late"
	second := bulk(1)
	second.Start, second.After = durationpb.New(time.Second), []string{"late"}
	thrice := bulk(1)
	thrice.Repeat, thrice.RepeatGap = 3, durationpb.New(time.Second)
	slow := bulk(10_000)
	slow.GetBulk().RateBps = 8000
	limited := bulk(math.MaxUint64)
	limited.Duration = durationpb.New(3 * time.Second)
	for _, tt := range []struct {
		name       string
		experiment *tcplabv1.Experiment
		want       time.Duration
	}{
		{"one byte", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{bulk(1)}}, 2*rtt + time.Microsecond},
		{"a window", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{bulk(14600)}}, 2*rtt + 14600*time.Microsecond},
		{"a byte more", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{bulk(14601)}}, 3*rtt + 14601*time.Microsecond},
		{"the latest flow", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{late, bulk(1)}}, time.Second + 2*rtt + time.Microsecond},
		{"transactions", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{transaction(true)}}, rtt + 10*(rtt+3*time.Millisecond) + 9*3*time.Millisecond},
		{"Nagle", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{transaction(false)}}, rtt + 10*(2*rtt+43*time.Millisecond) + 9*3*time.Millisecond},
		{"an open loop", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{openLoop(2)}}, rtt + 4500*time.Millisecond + rtt + 3*time.Millisecond},
		{"an open loop that lags", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{openLoop(1000)}}, rtt + 10*(rtt+3*time.Millisecond)},
		{"transactions on four connections", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{on(4, transaction(true))}}, rtt + 3*(rtt+3*time.Millisecond) + 2*3*time.Millisecond},
		{"an open loop on ten connections", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{on(10, openLoop(1000))}}, rtt + 9*time.Millisecond + rtt + 3*time.Millisecond},
		{"bursts", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{burst()}}, rtt + 30*time.Millisecond + 900*time.Microsecond},
		{"bursts with gaps", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{burst(time.Second, 2*time.Second)}}, rtt + 30*time.Millisecond + 900*time.Microsecond + 9*time.Second},
		{"one after another", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{second, late}}, 2*time.Second + 4*rtt + 2*time.Microsecond},
		{"a duration", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{limited}}, 3 * time.Second},
		{"three times", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{thrice}}, 3*(2*rtt+time.Microsecond) + 2*time.Second},
		{"a rate", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{slow}}, 2*rtt + 10*time.Second},
		{"the timeout", &tcplabv1.Experiment{Flows: []*tcplabv1.Flow{bulk(math.MaxUint64)}, Timeout: durationpb.New(7 * time.Second)}, 7 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := &tcplabv1.Lab{Links: links, Experiments: []*tcplabv1.Experiment{tt.experiment}}
			if got := estimate(lab) - trialOverhead; got != tt.want {
				t.Errorf("estimate %v beside the overhead, want %v", got, tt.want)
			}
		})
	}
}
