package labs

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestParseChange(t *testing.T) {
	delay := func(d time.Duration) *tcplabv1.Direction {
		return &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(d)}}
	}
	none := &tcplabv1.Direction{Shape: &tcplabv1.Shape{}}
	for settings, want := range map[string]*Change{
		"forward.delay=80ms": {Forward: delay(80 * time.Millisecond), Backward: none, Paths: []string{"forward.shape.delay"}},
		"delay=80ms": {
			Forward: delay(80 * time.Millisecond), Backward: delay(80 * time.Millisecond),
			Paths: []string{"backward.shape.delay", "forward.shape.delay"},
		},
		"rtt=80ms": {
			Forward: delay(40 * time.Millisecond), Backward: delay(40 * time.Millisecond),
			Paths: []string{"backward.shape.delay", "forward.shape.delay"},
		},
		"forward.delay=1ms backward.rate=5Mbit": {
			Forward: delay(time.Millisecond), Backward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{RateBps: 5e6}},
			Paths: []string{"backward.shape.rate_bps", "forward.shape.delay"},
		},
		"forward.queue=50ms": {
			Forward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Time{
				Time: durationpb.New(50 * time.Millisecond),
			}}}},
			Backward: none, Paths: []string{"forward.shape.queue"},
		},
		"rate= forward.loss=1%": {
			Forward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{Loss: 0.01}}, Backward: none,
			Paths: append([]string{"backward.rate", "forward.rate"}, lossOf("forward")...),
		},
		"loss=0": {Forward: none, Backward: none, Paths: append(lossOf("backward"), lossOf("forward")...)},
		"forward={loss:2%,delay:3ms}": {
			Forward:  &tcplabv1.Direction{Shape: &tcplabv1.Shape{Loss: 0.02, Delay: durationpb.New(3 * time.Millisecond)}},
			Backward: none, Paths: append([]string{"forward.shape.delay"}, lossOf("forward")...),
		},
	} {
		t.Run(settings, func(t *testing.T) {
			got, err := ParseChange(strings.Fields(strings.ReplaceAll(settings, ":", ": ")))
			if strings.Contains(settings, "{") {
				got, err = ParseChange([]string{strings.ReplaceAll(settings, ":", ": ")})
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// lossOf are the fields that a loss of one kind sets, or clears, in a direction.
func lossOf(way string) []string {
	return []string{way + ".shape.loss", way + ".shape.loss_correlation", way + ".shape.loss_pattern"}
}

func TestParseChangeRefused(t *testing.T) {
	for settings, want := range map[string]string{
		"forward.delay":                         "forward.delay: want a key, = and a value",
		"delay=80":                              "delay: 80 has no unit",
		"delay=80parsec":                        `delay: "80parsec" has the unknown unit`,
		"forwards.delay=80ms":                   `unknown key "forwards" (did you mean "forward"?)`,
		"forward.delai=80ms":                    `unknown key "delai" (did you mean "delay"?)`,
		"mtu=9000":                              "mtu: mtu cannot be changed while the link stands",
		"name=x":                                "name: name cannot be changed while the link stands",
		"delay=1ms delay=2ms":                   "delay: delay is given twice",
		"delay=1ms rtt=2ms":                     "give rtt or delay, not both",
		"forward.loss=101%":                     "more than 100%",
		"forward.delay=1ms forward={loss: 1%}":  "forward is not beside what else is given",
		"forward=[":                             "forward:1:",
		"=1ms":                                  "want a key",
		"forward.delay.x=1ms forward.delay=1ms": "is not beside what else is given",
	} {
		t.Run(settings, func(t *testing.T) {
			split := strings.Fields(settings)
			if strings.Contains(settings, "{") {
				split = strings.SplitN(settings, " ", 2)
			}
			if _, err := ParseChange(split); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

func FuzzParseChange(f *testing.F) {
	for _, seed := range []string{"delay=1ms", "forward.queue=64KiB", "forward={loss: 1%}", "rate=", "a.b.c=[1, {x: y}]", "forward.delay=${x}"} {
		f.Add(seed, "backward.loss=1%")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		change, err := ParseChange([]string{one, two})
		if err == nil && (change.Forward == nil || change.Backward == nil || len(change.Paths) == 0) {
			t.Errorf("%q and %q change nothing: %v", one, two, change)
		}
	})
}
