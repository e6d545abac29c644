package netem

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
)

// Whatever shape is asked of this kernel, the link that stands has it as it was asked, or is refused;
// and so has a link that is changed while it stands.
func TestShapesSurviveTheKernel(t *testing.T) {
	need.Qdisc(t, "netem")
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	carried, changed := 0, 0
	for range 150 {
		shape := anyShape(r)
		if _, err := plan(shape, nil, 0, testFrame); err != nil {
			continue
		}
		b := stand(t, [2]link.Shape{shape, {}})
		read := b.readBack(t)
		agree(t, shape, read[0].Shape)
		if !read[1].Shape.IsZero() {
			t.Errorf("the other direction has %+v", read[1].Shape)
		}
		carried++
		for range 5 {
			next := anyShape(r)
			if r.IntN(2) == 0 { // so that not all are refused
				next.Queue.Discipline, next.Queue.ECN, next.Queue.RED, next.Loss = shape.Queue.Discipline, false, link.REDThresholds{}, link.Loss{}
				next.Queue.Bytes, next.Queue.Time, next.Queue.Target, next.Queue.Interval = 0, 0, 0, 0
			}
			if err := b.link.Change(0, link.Direction{Shape: next}); err == nil {
				agree(t, next, b.readBack(t)[0].Shape)
				shape = next
				changed++
			} else {
				agree(t, shape, b.readBack(t)[0].Shape)
			}
		}
		if err := b.link.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("last asked: %+v", shape)
		}
	}
	if carried < 10 || changed < 10 {
		t.Errorf("only %d shapes and %d changes were carried", carried, changed)
	}
	t.Logf("%d shapes, %d changes", carried, changed)
}

func (b bed) readBack(t testing.TB) [2]link.Direction {
	t.Helper()
	read, err := b.link.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// Each part that Check accepts can also be made: one shape for each feature of the kernel.
func TestEachPartIsMadeAndReadBack(t *testing.T) {
	need.Qdisc(t, "netem")
	rate := func(q link.Queue) link.Shape { return link.Shape{Rate: 1e6, Queue: q} }
	for name, d := range map[string]link.Direction{
		"fifo":      {Shape: rate(link.Queue{Packets: 10})},
		"bytes":     {Shape: rate(link.Queue{Bytes: 20000})},
		"head-drop": {Shape: rate(link.Queue{Packets: 10, Discipline: link.HeadDrop})},
		"red":       {Shape: rate(link.Queue{Packets: 10, Discipline: link.RED, ECN: true})},
		"red bytes": {Shape: rate(link.Queue{Bytes: 1e5, Discipline: link.RED})},
		"codel":     {Shape: rate(link.Queue{Packets: 10, Discipline: link.CoDel, ECN: true})},
		"fq_codel":  {Shape: rate(link.Queue{Packets: 10, Discipline: link.FQCoDel})},
		"cake":      {Shape: rate(link.Queue{Discipline: link.CAKE})},
		"pie":       {Shape: rate(link.Queue{Packets: 10, Discipline: link.PIE, ECN: true})},
		"overhead":  {Shape: link.Shape{Rate: 1e6, Overhead: link.Overhead{Bytes: 24, MinBytes: 84, ATM: true}, Burst: 20000, Queue: link.Queue{Packets: 10}}},
		"listed":    {Shape: link.Shape{Loss: link.Loss{Packets: []uint64{3, 1 << 40}}}},
		"every":     {Shape: link.Shape{Loss: link.Loss{Every: 7}}},
		"table":     {Shape: link.Shape{Delay: time.Second, Jitter: link.Jitter{Amount: time.Second, Distribution: link.Table, Quantiles: []float64{-1, 1}}}},
		"paths": {
			Shape: rate(link.Queue{Packets: 10}),
			Paths: []link.Path{
				{Name: "web", Match: link.Match{Protocol: link.TCP, Port: 80}, Shape: link.Shape{Delay: time.Second, Loss: link.Loss{Every: 2}}},
				{Name: "v6", Match: match(link.AnyProtocol, "fd00::/16"), Shape: rate(link.Queue{Packets: 20, Discipline: link.FQCoDel})},
				{Name: "v4", Match: match(link.AnyProtocol, "10.0.0.2/32"), Shape: link.Shape{Down: true}},
				{Name: "ping", Match: link.Match{Protocol: link.ICMP}},
				{Name: "dns", Match: link.Match{Port: 53}, Shape: link.Shape{Loss: link.RandomLoss(0.5)}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := standing(t, [2]link.Direction{d, {}})
			read := b.readBack(t)[0]
			agree(t, d.Shape, read.Shape)
			if diff := cmp.Diff(d.Paths, read.Paths, cmpopts.IgnoreFields(link.Path{}, "Shape"), cmp.Comparer(func(a, b link.Match) bool { return a == b })); diff != "" {
				t.Errorf("paths (-asked +read):\n%s", diff)
			}
			for i, p := range d.Paths {
				agree(t, p.Shape, read.Paths[i].Shape)
			}
			if err := b.link.Change(0, d); err != nil {
				t.Errorf("a change to what it is: %v", err)
			}
		})
	}
}

// A change of which the kernel refuses a part leaves nothing of the rest behind.
func TestChangeIsWholeOrNotAtAll(t *testing.T) {
	normal := link.Jitter{Amount: time.Millisecond, Distribution: link.Normal}
	asked := link.Shape{
		Rate: 1e6, Burst: 5000, Delay: time.Second, Jitter: normal, Loss: link.RandomLoss(0.1),
		Queue: link.Queue{Packets: 100, Discipline: link.RED},
	}
	b := stand(t, [2]link.Shape{asked, {}})
	before := b.readBack(t)
	way := b.link.(*wire).ways[0]
	now, err := way.read()
	if err != nil {
		t.Fatal(err)
	}
	asked.Delay, asked.Rate, asked.Burst, asked.Queue.Packets, asked.Jitter.Distribution = 0, 2e6, 0, 50, link.Pareto
	next, err := plan(asked, nil, 0, testFrame)
	if err != nil {
		t.Fatal(err)
	}
	red := next.queue.(redQdisc)
	red.weight = 32 // more than the kernel takes
	next.queue = red
	if err := way.apply(now.trees, []tree{next}); err == nil {
		t.Fatal("the kernel took a weight of 32")
	}
	if diff := cmp.Diff(before[0].Shape, b.readBack(t)[0].Shape); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestChangeRefusesWhatItWouldLose(t *testing.T) {
	queue := link.Queue{Packets: 50, Discipline: link.CoDel}
	b := standing(t, [2]link.Direction{{
		Shape: link.Shape{Rate: 20e3, Queue: queue},
		Paths: []link.Path{{Name: "web", Match: link.Match{Port: 80}}},
	}, {}})
	b.flood(t, 0, 30, 1514)
	// One is through and one in service, which takes 606 ms.
	within, again := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer again.Stop()
	for b.counters(t)[0].Queued < 20 {
		select {
		case <-again.C:
		case <-within:
			t.Fatalf("the frames do not come to the queue: %+v", b.counters(t)[0])
		}
	}
	d := b.spec.Directions[0]
	d.Shape.Queue.Packets = 10
	if err := b.link.Change(0, d); err == nil {
		t.Error("a codel of 30 frames was changed to one of 10")
	}
	d.Shape.Queue.Packets = 40
	if err := b.link.Change(0, d); err != nil {
		t.Error(err)
	}
	d.Paths = nil
	if err := b.link.Change(0, d); err == nil {
		t.Error("a path was taken away")
	}
	d.Paths = []link.Path{{Name: "web", Match: link.Match{Port: 81}}}
	if err := b.link.Change(0, d); err == nil {
		t.Error("a path's match was changed")
	}
	if c := b.counters(t)[0]; c.Overflow+c.Early+c.Lost+c.Failed != 0 {
		t.Errorf("frames were lost by changes: %+v", c)
	}
}
