package wire

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

// struck are the numbers, from 1, of the frames of n that a loss takes.
func struck(asked link.Loss, seed uint64, n int) []uint64 {
	l := newLosses(asked)
	l.restart(generator(seed, "", forLoss))
	var numbers []uint64
	for i := range uint64(n) {
		if l.strikes() {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// within fails where the share of n is not p, by five deviations of a count whose
// neighbours depend on each other, so that its variance is so many times the binomial one.
func within(t *testing.T, what string, count, n int, p, inflation float64) {
	t.Helper()
	deviation := math.Sqrt(float64(n) * p * (1 - p) * inflation)
	if math.Abs(float64(count)-float64(n)*p) > 5*deviation {
		t.Errorf("%s: %d of %d, expected %.0f ± %.0f", what, count, n, float64(n)*p, deviation)
	}
}

func TestListedLoss(t *testing.T) {
	if diff := cmp.Diff([]uint64{1, 3, 4, 99}, struck(link.Loss{Packets: []uint64{1, 3, 4, 99, 200}}, 1, 150)); diff != "" {
		t.Errorf("listed packets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{7, 14, 21}, struck(link.Loss{Every: 7}, 1, 27)); diff != "" {
		t.Errorf("every 7th (-want +got):\n%s", diff)
	}
	if got := struck(link.Loss{Every: 1}, 1, 5); len(got) != 5 {
		t.Errorf("every packet: %v", got)
	}
}

func TestCorrelatedLossKeepsItsShareAndClusters(t *testing.T) {
	const n = 400_000
	for _, c := range []link.Chance{{Probability: 0.01, Correlation: 0.25}, {Probability: 0.05, Correlation: 0.5}, {Probability: 0.2, Correlation: 0.9}} {
		lost := struck(link.Loss{Chance: c}, 3, n)
		within(t, "lost", len(lost), n, c.Probability, (1+c.Correlation)/(1-c.Correlation))
		pairs := 0
		for i, number := range lost[1:] {
			if number == lost[i]+1 {
				pairs++
			}
		}
		// Independent losses follow one another with the probability itself.
		if follow := float64(pairs) / float64(len(lost)); follow < 1.5*c.Probability {
			t.Errorf("%+v: a loss follows a loss with %v", c, follow)
		}
	}
}

// bursts are how many runs of losses there are.
func bursts(lost []uint64) int {
	n := 0
	for i, number := range lost {
		if i == 0 || number != lost[i-1]+1 {
			n++
		}
	}
	return n
}

func TestGilbertElliottLoss(t *testing.T) {
	const n = 400_000
	g := link.GilbertElliott{ToBad: 0.01, ToGood: 0.25, BadLoss: 1}
	lost := struck(link.Loss{GilbertElliott: &g}, 5, n)
	// The state remembers: its correlation from frame to frame is 1 - ToBad - ToGood.
	memory := 1 - g.ToBad - g.ToGood
	within(t, "lost", len(lost), n, g.Mean(), (1+memory)/(1-memory))
	// A burst lasts 1/ToGood frames: their lengths are geometric.
	count := bursts(lost)
	mean := float64(len(lost)) / float64(count)
	if deviation := math.Sqrt((1-g.ToGood)/g.ToGood/g.ToGood) / math.Sqrt(float64(count)); math.Abs(mean-4) > 5*deviation {
		t.Errorf("a mean burst has %v frames, want 4 ± %v", mean, deviation)
	}
	mild := link.GilbertElliott{ToBad: 0.02, ToGood: 0.1, BadLoss: 0.3, GoodLoss: 0.001}
	within(t, "lost mildly", len(struck(link.Loss{GilbertElliott: &mild}, 5, n)), n, mild.Mean(), 20)
	// Certain changes alternate, and the first frame finds the good state left.
	certain := struck(link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 1, ToGood: 1, BadLoss: 1}}, 5, 6)
	if diff := cmp.Diff([]uint64{1, 3, 5}, certain); diff != "" {
		t.Errorf("alternating (-want +got):\n%s", diff)
	}
}

func TestFourStateLoss(t *testing.T) {
	const n = 400_000
	f := link.FourState{P13: 0.01, P31: 0.2, P32: 0.3, P23: 0.4, P14: 0.005}
	lost := struck(link.Loss{FourState: &f}, 5, n)
	within(t, "lost", len(lost), n, f.Mean(), 15)
	alone := link.FourState{P14: 0.01}
	lost = struck(link.Loss{FourState: &alone}, 5, n)
	within(t, "lost alone", len(lost), n, alone.Mean(), 1)
	if bursts(lost) != len(lost) {
		t.Error("losses in a gap are not alone")
	}
	certain := struck(link.Loss{FourState: &link.FourState{P13: 1, P32: 1, P23: 1}}, 5, 6)
	if diff := cmp.Diff([]uint64{1, 3, 5}, certain); diff != "" {
		t.Errorf("alternating (-want +got):\n%s", diff)
	}
	certain = struck(link.Loss{FourState: &link.FourState{P13: 1, P31: 1}}, 5, 6)
	if diff := cmp.Diff([]uint64{1, 3, 5}, certain); diff != "" {
		t.Errorf("bursts of one (-want +got):\n%s", diff)
	}
}

func TestLossGoesOnThroughAChange(t *testing.T) {
	// The numbers of frames go on: the 5th is the 5th since the restart.
	l := newLosses(link.Loss{})
	l.restart(generator(1, "", forLoss))
	for range 3 {
		l.strikes()
	}
	l.adopt(newLosses(link.Loss{Packets: []uint64{2, 4, 5}}))
	for i, want := range []bool{true, true, false} {
		if got := l.strikes(); got != want {
			t.Errorf("frame %d is lost: %v", 4+i, got)
		}
	}
	// A chain of the same kind stays in its state.
	l.adopt(newLosses(link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 1, BadLoss: 1}}))
	l.strikes()
	l.adopt(newLosses(link.Loss{GilbertElliott: &link.GilbertElliott{BadLoss: 1}}))
	if !l.strikes() {
		t.Error("the chain has left its state")
	}
	l.adopt(newLosses(link.Loss{}))
	l.adopt(newLosses(link.Loss{GilbertElliott: &link.GilbertElliott{BadLoss: 1}}))
	if l.strikes() {
		t.Error("a new chain is in the state of an old one")
	}
}

func TestGeneratorsAreApart(t *testing.T) {
	seen := map[uint64]bool{}
	for _, path := range []string{"", "web", "mail"} {
		for u := range uses {
			g := generator(1, path, u)
			first := g.Uint64()
			if seen[first] {
				t.Errorf("the generator %d of %q is another's", u, path)
			}
			seen[first] = true
		}
	}
}

func TestJitterHasItsDistribution(t *testing.T) {
	const n, amount = 200_000, time.Millisecond
	tests := []struct {
		name            string
		jitter          link.Jitter
		mean, deviation float64 // in units of amount
	}{
		{"uniform", link.Jitter{}, 0, 1 / math.Sqrt(3)},
		{"normal", link.Jitter{Distribution: link.Normal}, 0, 1},
		{"pareto", link.Jitter{Distribution: link.Pareto}, 0, 1},
		{"paretonormal", link.Jitter{Distribution: link.ParetoNormal}, 0, 1},
		{"table", link.Jitter{Distribution: link.Table, Quantiles: []float64{-1, 0, 0, 3}}, 1. / 3, 1.0183501544},
		{"correlated", link.Jitter{Distribution: link.Normal, Correlation: 0.5}, 0, 1},
		{"correlated uniform", link.Jitter{Correlation: 0.25}, 0, 1 / math.Sqrt(3)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.jitter.Amount = amount
			j := newJitter(test.jitter)
			j.restart(generator(1, "", forJitter))
			mean, square, product, before := 0.0, 0.0, 0.0, 0.0
			for range n {
				v := float64(j.next()) / float64(amount)
				mean += v / n
				square += v * v / n
				product += v * before / n
				before = v
			}
			deviation := math.Sqrt(square - mean*mean)
			// Correlated ones are fewer independent ones.
			c := test.jitter.Correlation
			sigma := test.deviation / math.Sqrt(n) * math.Sqrt((1+c)/(1-c))
			if math.Abs(mean-test.mean) > 5*sigma || math.Abs(deviation/test.deviation-1) > 0.02 {
				t.Errorf("mean %v, deviation %v, want %v and %v", mean, deviation, test.mean, test.deviation)
			}
			remembered := (product - mean*mean) / (deviation * deviation)
			if math.Abs(remembered-c) > 0.02 {
				t.Errorf("each remembers %v of the one before, want %v", remembered, c)
			}
		})
	}
}

// arrivals lets n frames of one size arrive at equal intervals, drained as they come, and returns all departures.
func (m *model) stream(n int, interval int64, size int) []departure {
	var out []departure
	for i := range n {
		at := int64(i) * interval
		out = append(out, m.until(at)...)
		m.arrive(at, size, byte(i))
	}
	return append(out, m.until(1<<40)...)
}

func TestJitterKeepsTheOrder(t *testing.T) {
	m := newModel(link.Shape{Delay: 10_000, Jitter: link.Jitter{Amount: 5000, Distribution: link.Normal}}, 1)
	out := m.stream(5000, 100, 100)
	for i, d := range out {
		if d.ID != byte(i) || i > 0 && d.At < out[i-1].At {
			t.Fatalf("departure %d is frame %d at %d", i, d.ID, d.At)
		}
	}
	if len(out) != 5000 || m.reordered != 0 {
		t.Errorf("%d came, %d reordered", len(out), m.reordered)
	}
}

func TestJitterReordersWhenAsked(t *testing.T) {
	shape := link.Shape{Delay: 10_000, Jitter: link.Jitter{Amount: 5000, Reorder: true}}
	m := newModel(shape, 1)
	// The same draws say when each frame leaves.
	j := newJitter(shape.Jitter)
	j.restart(generator(1, "", forJitter))
	var want []departure
	for i := range 5000 {
		want = append(want, departure{int64(i)*100 + 10_000 + j.next(), byte(i)})
	}
	slices.SortStableFunc(want, func(a, b departure) int { return int(a.At - b.At) })
	if diff := cmp.Diff(want, m.stream(5000, 100, 100)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}

func TestJitterBeyondTheDelayIsNoDelay(t *testing.T) {
	m := newModel(link.Shape{Jitter: link.Jitter{Amount: 1000, Reorder: true}}, 1)
	soon := 0
	for i, d := range m.stream(1000, 10_000, 100) {
		if late := d.At - int64(i)*10_000; late < 0 || late > 1000 {
			t.Fatalf("frame %d is %d ns late", i, late)
		} else if late == 0 {
			soon++
		}
	}
	within(t, "at once", soon, 1000, 0.5, 1)
}

func TestReorder(t *testing.T) {
	// Every third frame overtakes the two before it.
	m := newModel(link.Shape{Delay: 1000, Reorder: link.Reorder{Chance: link.Chance{Probability: 1}, Gap: 3}}, 1)
	want := []departure{{200, 2}, {500, 5}, {1000, 0}, {1100, 1}, {1300, 3}, {1400, 4}, {1600, 6}}
	if diff := cmp.Diff(want, m.stream(7, 100, 100)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	if m.reordered != 2 {
		t.Errorf("%d were let past others", m.reordered)
	}
	const n = 20_000
	m = newModel(link.Shape{Delay: 1000, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.1, Correlation: 0.25}}}, 1)
	m.stream(n, 100, 100)
	within(t, "reordered", int(m.reordered), n, 0.1, 2)
	// One that nobody is ahead of overtakes nobody.
	m = newModel(link.Shape{Delay: 10, Reorder: link.Reorder{Chance: link.Chance{Probability: 1}}}, 1)
	if m.stream(10, 100, 100); m.reordered != 0 {
		t.Errorf("%d overtook nobody", m.reordered)
	}
}

func TestDuplicate(t *testing.T) {
	m := newModel(link.Shape{Delay: 1000, Duplicate: link.Chance{Probability: 1}}, 1)
	if diff := cmp.Diff([]departure{{1000, 0}, {1000, 0}, {1100, 1}, {1100, 1}}, m.stream(2, 100, 100)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	const n = 20_000
	// The copy takes its own time, and its place in the queue.
	shape := link.Shape{
		Rate: 8e9, Delay: 5000, Jitter: link.Jitter{Amount: 1000, Reorder: true}, Duplicate: link.Chance{Probability: 0.25},
		Queue: link.Queue{Packets: 50},
	}
	m = newModel(shape, 1)
	came := uint64(len(m.stream(n, 90, 100)))
	within(t, "duplicated", int(m.duplicated), n, 0.25, 1)
	if m.overflow == 0 || m.received+m.duplicated != came+m.overflow {
		t.Errorf("%d came of %+v", came, m.tally)
	}
	if m.store.inUse != 0 || m.store.open.live != 0 || m.copies.store.inUse != 0 || m.copies.store.open.live != 0 {
		t.Error("frames are kept that nobody needs")
	}
}

func TestDownLosesAllThatComes(t *testing.T) {
	m := newModel(link.Shape{Delay: 1000}, 1)
	m.arrive(0, 100, 1)
	m.change(10, link.Shape{Delay: 1000, Down: true})
	m.arrive(20, 100, 2)
	m.change(30, link.Shape{Delay: 1000})
	m.arrive(40, 100, 3)
	if diff := cmp.Diff([]departure{{1000, 1}, {1040, 3}}, m.until(1e6)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	if m.lost != 1 {
		t.Errorf("%d were lost", m.lost)
	}
}

// Jitter and reordering make frames overtake; a delay that falls does not.
func TestChangeReordersNothingByItself(t *testing.T) {
	reordering := link.Shape{Delay: 10_000, Jitter: link.Jitter{Amount: 1, Reorder: true}}
	fast := link.Shape{Delay: 100, Jitter: reordering.Jitter}
	for name, shapes := range map[string][2]link.Shape{
		"to a shorter delay":              {reordering, fast},
		"to order":                        {reordering, {Delay: 100}},
		"from order":                      {{Delay: 10_000}, fast},
		"to no delay":                     {reordering, {}},
		"to a shorter delay and a rate":   {reordering, {Delay: 100, Rate: 8e9, Queue: link.Queue{Packets: 10}}},
		"to a shorter delay that reorder": {{Delay: 10_000}, {Delay: 100, Jitter: link.Jitter{Amount: 50}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(shapes[0], 1)
			m.arrive(0, 100, 1)
			m.arrive(50, 100, 2)
			m.change(100, shapes[1])
			m.arrive(200, 100, 3)
			m.arrive(20_000, 100, 4)
			var order []byte
			for _, d := range m.until(1e6) {
				order = append(order, d.ID)
			}
			// By their jitter of 1 ns the 3rd may overtake the 2nd, behind which it waits.
			if !slices.Equal(order, []byte{1, 2, 3, 4}) && !slices.Equal(order, []byte{1, 3, 2, 4}) {
				t.Errorf("they came as %v", order)
			}
		})
	}
}

func TestBurst(t *testing.T) {
	shape := link.Shape{Rate: 8e9, Burst: 250, Queue: link.Queue{Packets: 100}}
	m := newModel(shape, 1)
	// Two and a half frames pass at once, and then the rate holds.
	for i := range 5 {
		m.arrive(1000, 100, byte(i))
	}
	want := []departure{{1000, 0}, {1000, 1}, {1050, 2}, {1150, 3}, {1250, 4}}
	if diff := cmp.Diff(want, m.until(2000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	// 120 ns later 120 bytes are saved, of which one frame takes 100.
	m.arrive(1370, 100, 5)
	m.arrive(1370, 100, 6)
	want = []departure{{1370, 5}, {1450, 6}}
	if diff := cmp.Diff(want, m.until(3000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	// What was saved stays saved, as bytes, when the rate is halved.
	m.arrive(1500, 100, 7) // 50 bytes were saved: it comes at 1550
	m.until(1550)
	faster := shape
	faster.Rate = 4e9
	m.change(1600, faster) // 50 bytes saved
	m.arrive(1600, 100, 8)
	if diff := cmp.Diff([]departure{{1700, 8}}, m.until(3000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}

func TestOverheadTakesItsTime(t *testing.T) {
	m := newModel(link.Shape{Rate: 8e9, Overhead: link.Overhead{Bytes: 24, MinBytes: 84}, Queue: link.Queue{Packets: 100}}, 1)
	m.arrive(0, 100, 0)
	m.arrive(0, 42, 1)
	if diff := cmp.Diff([]departure{{124, 0}, {208, 1}}, m.until(2000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}

func TestHeadDrop(t *testing.T) {
	for _, queue := range []link.Queue{{Packets: 2}, {Bytes: 200}, {Time: 200}} {
		queue.Discipline = link.HeadDrop
		m := newModel(link.Shape{Rate: 8e9, Queue: queue}, 1)
		for i := range 6 {
			m.arrive(0, 100, byte(i))
		}
		if diff := cmp.Diff([]departure{{100, 0}, {200, 4}, {300, 5}}, m.until(1000)); diff != "" {
			t.Errorf("%+v: departures (-want +got):\n%s", queue, diff)
		}
		if m.overflow != 3 || m.peak != 2 || m.early != 0 {
			t.Errorf("%+v: %+v", queue, m.tally)
		}
	}
	// A frame that would not fit into the empty queue is dropped itself.
	m := newModel(link.Shape{Rate: 8e9, Queue: link.Queue{Bytes: 200, Discipline: link.HeadDrop}}, 1)
	m.arrive(0, 100, 0)
	m.arrive(0, 300, 1)
	if diff := cmp.Diff([]departure{{100, 0}}, m.until(1000)); diff != "" || m.overflow != 1 {
		t.Errorf("departures (-want +got):\n%s, %+v", diff, m.tally)
	}
}
