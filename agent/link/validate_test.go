package link

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestShapeValidate(t *testing.T) {
	const ms = time.Millisecond
	nan := math.NaN()
	limit := Queue{Packets: 100}
	tests := []struct {
		name  string
		shape Shape
		want  string // part of the refusal; empty: none
	}{
		{"nothing", Shape{}, ""},
		{"all at once", rich(), ""},
		{"a delay below 0", Shape{Delay: -1}, "delay -1ns is negative"},
		{"a queue without a rate", Shape{Queue: limit}, "a queue without a rate never fills"},
		{"a discipline without a rate", Shape{Queue: Queue{Discipline: HeadDrop}}, "a queue without a rate never fills"},
		{"a burst below 0", Shape{Rate: 1e6, Burst: -1}, "a burst of -1 bytes"},
		{"a burst beyond the clock", Shape{Rate: 1e6, Burst: math.MaxInt32 + 1}, "a burst of 2147483648 bytes"},
		{"a burst without a rate", Shape{Burst: 1}, "a burst without a rate"},
		{"an overhead without a rate", Shape{Overhead: Overhead{Bytes: 24}}, "an overhead without a rate"},
		{"an overhead below a header", Shape{Rate: 1e6, Overhead: Overhead{Bytes: -65}}, "an overhead of -65 bytes"},
		{"an overhead beyond headers", Shape{Rate: 1e6, Overhead: Overhead{Bytes: 257}}, "an overhead of 257 bytes"},
		{"a least cost below 0", Shape{Rate: 1e6, Overhead: Overhead{MinBytes: -1}}, "a least cost of -1 bytes"},
		{"a least cost beyond headers", Shape{Rate: 1e6, Overhead: Overhead{MinBytes: 257}}, "a least cost of 257 bytes"},

		{"a loss above 1", Shape{Loss: RandomLoss(1.1)}, "loss: 1.1 is not a probability"},
		{"a loss below 0", Shape{Loss: RandomLoss(-0.1)}, "loss: -0.1 is not a probability"},
		{"a loss of no number", Shape{Loss: RandomLoss(nan)}, "loss: NaN is not a probability"},
		{"a correlation of 1", Shape{Loss: Loss{Chance: Chance{0.1, 1}}}, "loss: a correlation of 1 is not"},
		{"a correlation below 0", Shape{Loss: Loss{Chance: Chance{0.1, -0.1}}}, "loss: a correlation of -0.1 is not"},
		{"a correlation of no number", Shape{Loss: Loss{Chance: Chance{0.1, nan}}}, "loss: a correlation of NaN is not"},
		{"a correlation of nothing", Shape{Loss: Loss{Chance: Chance{0, 0.1}}}, "loss: a correlation of 0.1 has nothing to correlate"},
		{"two kinds of loss", Shape{Loss: Loss{Chance: Chance{Probability: 0.1}, Every: 2}}, "more than one kind"},
		{"two patterns", Shape{Loss: Loss{Packets: []uint64{1}, GilbertElliott: &GilbertElliott{}}}, "more than one kind"},
		{"Gilbert-Elliott above 1", Shape{Loss: Loss{GilbertElliott: &GilbertElliott{ToBad: 1.5}}}, "Gilbert-Elliott loss: 1.5 is not"},
		{"Gilbert-Elliott of no number", Shape{Loss: Loss{GilbertElliott: &GilbertElliott{GoodLoss: nan}}}, "Gilbert-Elliott loss: NaN is not"},
		{"four states below 0", Shape{Loss: Loss{FourState: &FourState{P14: -1}}}, "four-state loss: -1 is not"},
		{"four states, 1 left too often", Shape{Loss: Loss{FourState: &FourState{P13: 0.6, P14: 0.6}}}, "p13 + p14 and p31 + p32 are at most 1"},
		{"four states, 3 left too often", Shape{Loss: Loss{FourState: &FourState{P31: 0.6, P32: 0.6}}}, "p13 + p14 and p31 + p32 are at most 1"},
		{"four states", Shape{Loss: Loss{FourState: &FourState{P13: 0.5, P14: 0.5, P31: 0.5, P32: 0.5, P23: 1}}}, ""},
		{"a packet 0", Shape{Loss: Loss{Packets: []uint64{0, 1}}}, "numbered from 1 and rise: 0 does not"},
		{"packets that do not rise", Shape{Loss: Loss{Packets: []uint64{1, 3, 3}}}, "numbered from 1 and rise: 3 does not"},

		{"a duplicate above 1", Shape{Duplicate: Chance{Probability: 2}}, "duplicate: 2 is not a probability"},
		{"a duplicate's correlation of nothing", Shape{Duplicate: Chance{Correlation: 0.5}}, "duplicate: a correlation of 0.5 has nothing"},
		{"a corruption of no number", Shape{Corrupt: Chance{Probability: nan}}, "corrupt: NaN is not a probability"},
		{"a reordering above 1", Shape{Delay: ms, Reorder: Reorder{Chance: Chance{Probability: 2}}}, "reorder: 2 is not a probability"},
		{"a reordering without a delay", Shape{Reorder: Reorder{Chance: Chance{Probability: 0.1}}}, "reorder without a delay changes nothing"},
		{"a gap alone", Shape{Delay: ms, Reorder: Reorder{Gap: 3}}, "a reorder gap without a probability"},
		{"a gap below 0", Shape{Delay: ms, Reorder: Reorder{Chance: Chance{Probability: 0.1}, Gap: -3}}, "a reorder gap of -3"},

		{"a jitter below 0", Shape{Jitter: Jitter{Amount: -ms}}, "jitter -1ms is negative"},
		{"a jitter's correlation of 1", Shape{Jitter: Jitter{Amount: ms, Correlation: 1}}, "jitter: a correlation of 1 is not"},
		{"a jitter's correlation of nothing", Shape{Jitter: Jitter{Correlation: 0.5}}, "jitter: a correlation of 0.5 has nothing"},
		{"a distribution of nothing", Shape{Jitter: Jitter{Distribution: Normal}}, "jitter has no amount"},
		{"a reordering jitter of nothing", Shape{Jitter: Jitter{Reorder: true}}, "jitter has no amount"},
		{"an unknown distribution", Shape{Jitter: Jitter{Amount: ms, Distribution: "poisson"}}, `no distribution of jitter is called "poisson"`},
		{"quantiles of a normal", Shape{Jitter: Jitter{Amount: ms, Distribution: Normal, Quantiles: []float64{0, 1}}}, "its distribution is not table"},
		{"one quantile", Shape{Jitter: Jitter{Amount: ms, Distribution: Table, Quantiles: []float64{0}}}, "at least two quantiles"},
		{"falling quantiles", Shape{Jitter: Jitter{Amount: ms, Distribution: Table, Quantiles: []float64{0, 1, 0.5}}}, "0.5 is not"},
		{"far quantiles", Shape{Jitter: Jitter{Amount: ms, Distribution: Table, Quantiles: []float64{0, 4.5}}}, "4.5 is not"},
		{"quantiles of no number", Shape{Jitter: Jitter{Amount: ms, Distribution: Table, Quantiles: []float64{0, nan}}}, "NaN is not"},
		{"jitter without a delay", Shape{Jitter: Jitter{Amount: ms}}, ""},

		{"a negative limit", Shape{Rate: 1e6, Queue: Queue{Packets: -1}}, "limit is negative"},
		{"a negative limit of bytes", Shape{Rate: 1e6, Queue: Queue{Bytes: -1}}, "limit is negative"},
		{"a negative limit of time", Shape{Rate: 1e6, Queue: Queue{Time: -1}}, "limit is negative"},
		{"two limits", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Time: ms}}, "more than one limit"},
		{"an unknown discipline", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: "sfq"}}, `no queue discipline is called "sfq"`},
		{"marks of a fifo", Shape{Rate: 1e6, Queue: Queue{Packets: 1, ECN: true}}, "fifo has no choice of marking"},
		{"marks of head-drop", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: HeadDrop, ECN: true}}, "head-drop has no choice of marking"},
		{"marks of cake", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: CAKE, ECN: true}}, "cake has no choice of marking"},
		{"a target of a fifo", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Target: ms}}, "a target of 1ms is none for fifo"},
		{"a negative target", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: CoDel, Target: -ms}}, "a target of -1ms is none"},
		{"an interval of pie", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: PIE, Interval: ms}}, "an interval of 1ms is none for pie"},
		{"a negative interval", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: CoDel, Interval: -ms}}, "an interval of -1ms is none"},
		{"thresholds of codel", Shape{Rate: 1e6, Queue: Queue{Packets: 1, Discipline: CoDel, RED: REDThresholds{MinBytes: 1}}}, "thresholds of red are none for codel"},
		{"thresholds that fall", Shape{Rate: 1e6, Queue: Queue{Bytes: 9000, Discipline: RED, RED: REDThresholds{2000, 1000, 0.1}}}, "red's thresholds rise"},
		{"thresholds above 1", Shape{Rate: 1e6, Queue: Queue{Bytes: 9000, Discipline: RED, RED: REDThresholds{Probability: 1.1}}}, "red's thresholds rise, and its probability"},
		{"thresholds", Shape{Rate: 1e6, Queue: Queue{Bytes: 9000, Discipline: RED, RED: REDThresholds{1000, 2000, 0.1}}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { refused(t, test.shape.Validate(), test.want) })
	}
}

// refused checks that an error says what is wanted; empty: that there is none.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Errorf("refused: %v", err)
	}
	if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("the refusal is %v, want %q", err, want)
	}
}

func TestDirectionValidate(t *testing.T) {
	trace := &Trace{Opportunities: []time.Duration{0, 5, 5, 9}}
	web := Path{Name: "web", Match: Match{Protocol: TCP, Port: 80}}
	step := func(at, ramp time.Duration, path string) Step { return Step{At: at, Ramp: ramp, Path: path} }
	schedule := func(steps ...Step) Direction { return Direction{Paths: []Path{web}, Schedule: Schedule{Steps: steps}} }
	match := func(m Match) Direction { return Direction{Paths: []Path{{Name: "web", Match: m}}} }
	tests := []struct {
		name      string
		direction Direction
		want      string
	}{
		{"nothing", Direction{}, ""},
		{"its shape", Direction{Shape: Shape{Delay: -1}}, "delay -1ns is negative"},
		{"a trace", Direction{Trace: trace, Shape: Shape{Queue: Queue{Packets: 10}}}, ""},
		{"a trace with a bad shape", Direction{Trace: trace, Shape: Shape{Delay: -1}}, "delay -1ns is negative"},
		{"a trace and a rate", Direction{Trace: trace, Shape: Shape{Rate: 1e6}}, "a rate and a trace"},
		{"a trace and a queue of time", Direction{Trace: trace, Shape: Shape{Queue: Queue{Time: 1}}}, "limited by time needs a rate"},
		{"a trace and a schedule", Direction{Trace: trace, Schedule: Schedule{Steps: []Step{{At: 1}}}}, "a trace and a schedule"},
		{"an empty trace", Direction{Trace: &Trace{}}, "at least one moment after 0"},
		{"a trace of 0", Direction{Trace: &Trace{Opportunities: []time.Duration{0, 0}}}, "at least one moment after 0"},
		{"a trace that falls", Direction{Trace: &Trace{Opportunities: []time.Duration{5, 4}}}, "moments do not fall"},
		{"a trace before 0", Direction{Trace: &Trace{Opportunities: []time.Duration{-1, 4}}}, "moments do not fall"},
		{"a trace of less than nothing", Direction{Trace: &Trace{Opportunities: trace.Opportunities, Bytes: -1}}, "an opportunity of -1 bytes"},

		{"a path", Direction{Paths: []Path{web}}, ""},
		{"a path without a name", Direction{Paths: []Path{{Match: web.Match}}}, `the path "" is there twice, or has no name`},
		{"two of a name", Direction{Paths: []Path{web, web}}, `the path "web" is there twice`},
		{"a path's shape", Direction{Paths: []Path{{Name: "web", Match: web.Match, Shape: Shape{Delay: -1}}}}, "path web: delay -1ns is negative"},
		{"a match of anything", match(Match{}), "path web: the match selects nothing in particular"},
		{"bits behind the prefix", match(Match{Destination: netip.MustParsePrefix("10.1.2.3/16")}), "write 10.1.0.0/16"},
		{"a prefix", match(Match{Destination: netip.MustParsePrefix("fd00::/64")}), ""},
		{"an unknown protocol", match(Match{Protocol: "sctp"}), `no protocol is called "sctp"`},
		{"a port of icmp", match(Match{Protocol: ICMP, Port: 1}), "icmp has no ports"},
		{"icmp", match(Match{Protocol: ICMP}), ""},
		{"a port", match(Match{Port: 1}), ""},

		{"a schedule", schedule(step(1, 4, ""), step(5, 0, "web"), step(5, 1, "")), ""},
		{"a step's shape", schedule(Step{At: 1, Shape: Shape{Delay: -1}}), "schedule at 1ns: delay -1ns is negative"},
		{"a step of no path", schedule(step(1, 0, "mail")), `schedule at 1ns: there is no path "mail"`},
		{"steps that fall", schedule(step(2, 0, ""), step(1, 0, "web")), "schedule at 1ns: steps are in order"},
		{"a step before the trial", schedule(step(-1, 0, "")), "schedule at -1ns: steps are in order"},
		{"a negative ramp", schedule(step(1, -1, "")), "a ramp is not negative"},
		{"a ramp into the next step", schedule(step(1, 5, ""), step(2, 1, "web"), step(5, 0, "")), "schedule at 1ns: the ramp of 5ns does not end"},
		{"a period", Direction{Schedule: Schedule{Steps: []Step{step(5, 0, "")}, Period: 6}}, ""},
		{"a period below 0", Direction{Schedule: Schedule{Period: -1}}, "the schedule's period of -1ns"},
		{"a period before its last step", Direction{Schedule: Schedule{Steps: []Step{step(5, 0, "")}, Period: 4}}, "is over before its last step at 5ns"},
		{"a period within its last ramp", Direction{Schedule: Schedule{Steps: []Step{step(5, 2, "")}, Period: 6}}, "is over before its last ramp has ended at 7ns"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { refused(t, test.direction.Validate(), test.want) })
	}
}

func TestOverheadCost(t *testing.T) {
	tests := []struct {
		name     string
		overhead Overhead
		frame    int
		want     int
	}{
		{"nothing", Overhead{}, 1514, 1514},
		{"Ethernet's wire", Overhead{Bytes: 24, MinBytes: 84}, 1514, 1538},
		{"Ethernet's least", Overhead{Bytes: 24, MinBytes: 84}, 42, 84},
		{"the header taken away", Overhead{Bytes: -14}, 1514, 1500},
		{"never nothing", Overhead{Bytes: -64}, 60, 1},
		{"32 cells of 48 for 1514", Overhead{ATM: true}, 1514, 32 * 53},
		{"a cell exactly", Overhead{ATM: true}, 48, 53},
		{"a byte more", Overhead{ATM: true}, 49, 106},
		// RFC 2684 bridged with LLC (10 bytes) and the AAL5 trailer (8).
		{"AAL5", Overhead{Bytes: 18, ATM: true}, 60, 106},
		{"the least before the cells", Overhead{MinBytes: 49, ATM: true}, 10, 106},
	}
	for _, test := range tests {
		if got := test.overhead.Cost(test.frame); got != test.want {
			t.Errorf("%s: a frame of %d bytes costs %d, want %d", test.name, test.frame, got, test.want)
		}
	}
	shape := Shape{Rate: 8e6, Overhead: Overhead{ATM: true}}
	if got := shape.Serialization(1514); got != 1696*time.Microsecond {
		t.Errorf("1514 bytes in ATM cells at 8 Mbit/s take %v", got)
	}
}

// stationaryLoss is the share of losing states in the long run, by iteration of
// the chain from its first state.
func stationaryLoss(transition [][]float64, loss []float64) float64 {
	state := make([]float64, len(transition))
	state[0] = 1
	mean := 0.0
	const steps, settle = 400_000, 200_000
	for step := range steps {
		next := make([]float64, len(state))
		for i, share := range state {
			for j, p := range transition[i] {
				next[j] += share * p
			}
		}
		state = next
		if step >= settle { // the mean of many, for chains that alternate
			for i, share := range state {
				mean += share * loss[i] / (steps - settle)
			}
		}
	}
	return mean
}

func TestLossMean(t *testing.T) {
	for _, g := range []GilbertElliott{
		{},
		{ToBad: 0.01, ToGood: 0.3, BadLoss: 1},
		{ToBad: 0.01, ToGood: 0.3, BadLoss: 0.5, GoodLoss: 0.001},
		{ToBad: 1, ToGood: 1, BadLoss: 1},
		{GoodLoss: 0.25, ToGood: 0.5, BadLoss: 1},
		{ToBad: 0.01, BadLoss: 0.75},
	} {
		want := stationaryLoss([][]float64{{1 - g.ToBad, g.ToBad}, {g.ToGood, 1 - g.ToGood}}, []float64{g.GoodLoss, g.BadLoss})
		if got := (Loss{GilbertElliott: &g}).Mean(); math.Abs(got-want) > 1e-5 {
			t.Errorf("%+v loses %v, want %v", g, got, want)
		}
	}
	for _, f := range []FourState{
		{},
		{P13: 0.01, P31: 0.3, P32: 0.2, P23: 0.5, P14: 0.001},
		{P14: 0.1},
		{P14: 1},
		{P13: 0.1, P32: 0.5, P23: 0.25},
		{P13: 0.1},
		{P13: 0.1, P31: 0.5, P32: 0.5},
		{P13: 0.2, P31: 0.4, P14: 0.3},
		{P13: 0.5, P14: 0.5, P31: 0.5, P32: 0.5, P23: 1},
		{P13: 0.1, P32: 1, P23: 1, P14: 0.2},
	} {
		want := stationaryLoss([][]float64{
			{1 - f.P13 - f.P14, 0, f.P13, f.P14},
			{0, 1 - f.P23, f.P23, 0},
			{f.P31, f.P32, 1 - f.P31 - f.P32, 0},
			{1, 0, 0, 0},
		}, []float64{0, 0, 1, 1})
		if got := (Loss{FourState: &f}).Mean(); math.Abs(got-want) > 1e-5 {
			t.Errorf("%+v loses %v, want %v", f, got, want)
		}
	}
	if got := (Loss{Every: 8}).Mean(); got != 0.125 {
		t.Errorf("every 8th is %v", got)
	}
	if got := RandomLoss(0.3).Mean() + (Loss{Packets: []uint64{1}}).Mean() + (Loss{}).Mean(); got != 0.3 {
		t.Errorf("random, listed and no loss are %v", got)
	}
}

func TestResolve(t *testing.T) {
	d := Direction{
		Shape:    Shape{Rate: 100e6},
		Paths:    []Path{{Name: "slow", Shape: Shape{Rate: 1e6}}, {Name: "set", Shape: Shape{Rate: 1e9, Queue: Queue{Time: 5}}}, {Name: "free"}},
		Schedule: Schedule{Steps: []Step{{Shape: Shape{Rate: 1e9, Queue: Queue{Discipline: CoDel}}}}},
	}
	got := d.Resolve(40*time.Millisecond, 1500)
	// 100 Mbit/s × 40 ms are 500,000 bytes or 330.3 frames of 1514.
	for _, test := range []struct {
		got  Queue
		want Queue
	}{
		{got.Shape.Queue, Queue{Packets: 331}},
		{got.Paths[0].Shape.Queue, Queue{Packets: MinQueuePackets}},
		{got.Paths[1].Shape.Queue, Queue{Time: 5}},
		{got.Paths[2].Shape.Queue, Queue{}},
		{got.Schedule.Steps[0].Shape.Queue, Queue{Packets: 3303, Discipline: CoDel}},
	} {
		if test.got != test.want {
			t.Errorf("the queue is %+v, want %+v", test.got, test.want)
		}
	}
	if !d.Paths[0].Shape.Queue.IsZero() || d.Schedule.Steps[0].Shape.Queue.Limited() {
		t.Error("the direction that was asked has changed")
	}
	// A frame a ms is 12.112 Mbit/s, over 200 ms 302,800 bytes.
	traced := Direction{Trace: &Trace{Opportunities: []time.Duration{time.Millisecond}}}.Resolve(200*time.Millisecond, 1500)
	if traced.Shape.Queue.Packets != 200 {
		t.Errorf("the trace's queue is %+v", traced.Shape.Queue)
	}
}
