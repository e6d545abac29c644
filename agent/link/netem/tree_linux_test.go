package netem

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

const testFrame = 1514

// asKernel is what a tree's options look like when read back from their own encoding.
func asKernel(t *testing.T, in tree) tree {
	t.Helper()
	payload := func(q qdisc) []byte { return q.options().Serialize()[unix.SizeofRtAttr:] }
	var out tree
	if err := out.delay.decode(payload(in.delay)); err != nil {
		t.Fatal(err)
	}
	if err := out.rate.decode(payload(in.rate)); err != nil {
		t.Fatal(err)
	}
	if err := out.queue.decode(in.queue.kind(), payload(in.queue)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestShapesSurviveTheTree(t *testing.T) {
	for name, test := range map[string]struct{ asked, read link.Shape }{
		"nothing":            {},
		"delay":              {link.Shape{Delay: 123456789 * time.Nanosecond}, link.Shape{Delay: 123456789 * time.Nanosecond}},
		"half of all":        {link.Shape{Loss: link.RandomLoss(0.5)}, link.Shape{Loss: link.RandomLoss(0.5)}},
		"all":                {link.Shape{Loss: link.RandomLoss(1)}, link.Shape{Loss: link.RandomLoss(1)}},
		"rate in frames":     {link.Shape{Rate: 10e6, Queue: link.Queue{Packets: 7}}, link.Shape{Rate: 10e6, Queue: link.Queue{Packets: 7}}},
		"rate in bytes":      {link.Shape{Rate: 10e6, Queue: link.Queue{Bytes: 9000}}, link.Shape{Rate: 10e6, Queue: link.Queue{Bytes: 9000}}},
		"rate in time":       {link.Shape{Rate: 8e6, Queue: link.Queue{Time: 9 * time.Millisecond}}, link.Shape{Rate: 8e6, Queue: link.Queue{Bytes: 9000}}},
		"beyond 32 bits":     {link.Shape{Rate: 100e9, Queue: link.Queue{Packets: 1}}, link.Shape{Rate: 100e9, Queue: link.Queue{Packets: 1}}},
		"not in whole bytes": {link.Shape{Rate: 1004, Queue: link.Queue{Packets: 1}}, link.Shape{Rate: 1008, Queue: link.Queue{Packets: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			planned, err := plan(test.asked, 42, testFrame)
			if err != nil {
				t.Fatal(err)
			}
			got := asKernel(t, planned)
			if diff := cmp.Diff(test.read, got.shape(testFrame)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.delay.seed != 42 {
				t.Errorf("seed %d, want 42", got.delay.seed)
			}
		})
	}
}

func TestLossIsRoundedToTheNearestOfTheKernel(t *testing.T) {
	for _, p := range []float64{1e-9, 1e-6, 0.001, 0.01, 0.05, 0.333, 0.999999} {
		if got := probability(threshold(p)); math.Abs(got-p) > 1.0/(1<<32) {
			t.Errorf("asked %g, in force %g", p, got)
		}
	}
	if threshold(1e-12) == 0 {
		t.Error("a loss above 0 became none")
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, shape := range map[string]link.Shape{
		"negative delay":    {Delay: -1},
		"no number":         {Loss: link.RandomLoss(math.NaN())},
		"rate of 0.875 B/s": {Rate: 7, Queue: link.Queue{Packets: 1}},
		"rate of no limit":  {Rate: unlimited, Queue: link.Queue{Packets: 1}},
		"unresolved queue":  {Rate: 1e6},
		"endless queue":     {Rate: 1e6, Queue: link.Queue{Packets: math.MaxInt32}},
		"endless bytes":     {Rate: 1e6, Queue: link.Queue{Bytes: math.MaxInt32 - 1}},
	} {
		if _, err := plan(shape, 0, testFrame); err == nil {
			t.Errorf("%s: %+v was accepted", name, shape)
		}
	}
}

// What is in flight must never be dropped for want of room: the limit of the delay
// grows with the delay and holds the queue behind it too.
func TestDelayHoldsAllInFlight(t *testing.T) {
	shape := link.Shape{Delay: time.Second, Rate: 1e9, Queue: link.Queue{Packets: 50000}}
	got, err := plan(shape, 0, testFrame)
	if err != nil {
		t.Fatal(err)
	}
	if least := uint32(1e6 + 50000); got.delay.limit < least {
		t.Errorf("limit %d, want at least %d", got.delay.limit, least)
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(make([]byte, 20))
	message := append(make([]byte, 20), nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("netem")).Serialize()...)
	f.Add(append(message, delayQdisc{}.options().Serialize()...))
	f.Fuzz(func(t *testing.T, message []byte) {
		s, err := parseState(message)
		if err != nil {
			return
		}
		var q tree
		_ = q.delay.decode(s.options)
		_ = q.rate.decode(s.options)
		_ = q.queue.decode(s.kind, s.options)
	})
}
