package standing

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func link() *tcplabv1.DeployedLink {
	direction := func() *tcplabv1.Direction {
		return &tcplabv1.Direction{Seed: 7, Shape: &tcplabv1.Shape{
			RateBps: 1e7, Delay: durationpb.New(10 * time.Millisecond), Loss: 0.1,
			Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Packets{Packets: 100}},
		}}
	}
	return &tcplabv1.DeployedLink{Name: "l", Forward: direction(), Backward: direction()}
}

func TestMerge(t *testing.T) {
	from := &tcplabv1.DeployedLink{Name: "other", Mtu: 9000, Forward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{
		Delay: durationpb.New(80 * time.Millisecond),
		Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Time{Time: durationpb.New(time.Second)}},
	}, Paths: []*tcplabv1.Path{{Name: "p"}}}}
	for paths, change := range map[string]func(*tcplabv1.DeployedLink){
		"forward.shape.delay":                 func(l *tcplabv1.DeployedLink) { l.Forward.Shape.Delay = from.Forward.Shape.Delay },
		"forward.delay":                       func(l *tcplabv1.DeployedLink) { l.Forward.Shape.Delay = from.Forward.Shape.Delay },
		"forward.rate backward.rate_bps":      func(l *tcplabv1.DeployedLink) { l.Forward.Shape.RateBps, l.Backward.Shape.RateBps = 0, 0 },
		"forward.queue":                       func(l *tcplabv1.DeployedLink) { l.Forward.Shape.Queue = from.Forward.Shape.Queue },
		"forward.queue.time":                  func(l *tcplabv1.DeployedLink) { l.Forward.Shape.Queue = from.Forward.Shape.Queue },
		"backward.queue.time":                 func(*tcplabv1.DeployedLink) {}, // another limit is not cleared by it
		"forward.paths":                       func(l *tcplabv1.DeployedLink) { l.Forward.Paths = from.Forward.Paths },
		"backward.jitter.amount forward.seed": func(l *tcplabv1.DeployedLink) { l.Forward.Seed = 0 },
		"forward":                             func(l *tcplabv1.DeployedLink) { l.Forward = from.Forward },
		"*":                                   func(l *tcplabv1.DeployedLink) { l.Forward, l.Backward = from.Forward, nil },
	} {
		t.Run(paths, func(t *testing.T) {
			want, got := link(), link()
			change(want)
			if err := merge(got, from, strings.Fields(paths)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestMergeRefused(t *testing.T) {
	for path, want := range map[string]string{
		"":                      "only what is below forward and backward",
		"mtu":                   "only what is below forward and backward",
		"forward.":              "there is no ",
		"forward.nothing":       "there is no nothing; there are rate, delay, loss",
		"forward.delay.seconds": "delay is replaced whole",
		"forward.rate.x":        "rate_bps is replaced whole",
		"forward.paths.name":    "paths is replaced whole",
	} {
		t.Run(path, func(t *testing.T) {
			got := link()
			err := merge(got, &tcplabv1.DeployedLink{}, []string{"forward.delay", path})
			told := ""
			if err != nil {
				for _, v := range rpcerr.From(err).Violations {
					told += v.Description
				}
			}
			if !strings.Contains(told, want) {
				t.Errorf("%v: %s, want %s", err, told, want)
			}
		})
	}
	if err := merge(link(), link(), nil); err == nil {
		t.Error("an empty mask is taken")
	}
}

// Every field that a direction or a shape has, now and later, can be named in a mask, by its name and by what
// people call it.
func TestEveryFieldResolves(t *testing.T) {
	for prefix, m := range map[string]proto.Message{"forward.": &tcplabv1.Direction{}, "backward.": &tcplabv1.Shape{}, "forward.shape.": &tcplabv1.Shape{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			for _, name := range []string{string(f.Name()), called(f)} {
				chain, err := resolve(prefix + name)
				if err != nil {
					t.Error(err)
					continue
				}
				if last := chain[len(chain)-1]; last.FullName() != f.FullName() {
					t.Errorf("%s%s is %s", prefix, name, last.FullName())
				}
			}
		}
	}
}

func TestDifferences(t *testing.T) {
	before, after := link().GetForward(), link().GetForward()
	after.Shape.Delay = durationpb.New(80 * time.Millisecond)
	after.Shape.RateBps = 0
	after.Shape.Queue = nil
	after.Paths = []*tcplabv1.Path{{Name: "p"}}
	want := []difference{
		{"rate", "1e+07", "not set"},
		{"delay", "10ms", "80ms"},
		{"queue", "packets:100", "not set"},
		{"paths", "not set", "1 of them"},
	}
	if diff := cmp.Diff(want, differences(before, after), cmp.AllowUnexported(difference{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
