package verify

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const ms = time.Millisecond

// shaped is what the link of these tests was asked to be.
var shaped = link.Shape{Rate: 100e6, Delay: 10 * ms, Loss: link.RandomLoss(0.05), Queue: link.Queue{Packets: 250}}

// judged judges what was seen of a link that was asked to be so.
func judged(shape link.Shape, seen observation) Stream {
	s := ask(shape)
	j := &judge{subject: s, plan: newPlan(s, time.Second, 1e-9), falseAlarm: 1e-9}
	return j.judge(seen)
}

// ask is a direction's own stream with the shape.
func ask(shape link.Shape) subject { return subjects(link.Direction{Shape: shape}, 1500, false)[0] }

func planFor(shape link.Shape) plan { return newPlan(ask(shape), time.Second, 1e-9) }

// see is what probes see on a link of the given delay, rate and losses, on a host that
// delays each arrival by what late returns.
func see(plan plan, delay time.Duration, rate float64, lost int, late func(i int) time.Duration) observation {
	seen := observation{counted: plan.counted, armed: 1}
	for i := range plan.delayProbes + plan.counted {
		sent := time.Second + time.Duration(i)*ms
		f := sighting{sent: sent, arrived: sent + delay, copies: 1}
		if i < plan.delayProbes {
			f.arrived += late(i)
		} else {
			f.arrived += late(10)
		}
		if i >= plan.delayProbes && (i-plan.delayProbes)*lost/plan.counted != (i+1-plan.delayProbes)*lost/plan.counted {
			f = sighting{sent: sent}
		}
		seen.frames = append(seen.frames, f)
	}
	shuffle(seen.frames[plan.delayProbes:])
	for _, row := range plan.trains {
		t := train{tells: row.tells, frames: row.frames, bytes: row.size, lasts: row.lasts, sending: time.Duration(row.frames) * 4 * time.Microsecond}
		bucket := float64(row.size) + rate/8*burst.Seconds()
		for i := range row.frames {
			behind := max(0, float64((i+1)*row.size)-bucket)
			arrival := delay + time.Duration(behind*8/rate*1e9) + late(i)
			if i > 0 {
				arrival = max(arrival, t.arrivals[i-1])
			}
			t.arrivals = append(t.arrivals, arrival)
		}
		seen.frames = append(seen.frames, make([]sighting, row.frames)...)
		seen.trains = append(seen.trains, t)
	}
	return seen
}

// shuffle mixes which of the frames were lost, the same way each time.
func shuffle(frames []sighting) {
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(frames), func(a, b int) {
		frames[a].copies, frames[b].copies = frames[b].copies, frames[a].copies
		da, db := frames[a].delay(), frames[b].delay()
		frames[a].arrived, frames[b].arrived = frames[a].sent+db, frames[b].sent+da
	})
}

func punctual(int) time.Duration { return 30 * time.Microsecond }

// busy stalls for 4 ms at a train's start and once more in it; what is behind a frame that is late waits for it.
func busy(i int) time.Duration {
	if i < 5 || i == 100 {
		return 4 * ms
	}
	return punctual(i)
}

func TestJudgeFindsEachQuantityThatIsWrong(t *testing.T) {
	plan := planFor(shaped)
	n := plan.counted
	expected := int(math.Round(0.05 * float64(n)))
	type verdicts struct{ delay, rate, loss Verdict }
	tests := map[string]struct {
		shape link.Shape
		seen  observation
		want  verdicts
	}{
		"as asked":                {shaped, see(plan, 10*ms, 100e6, expected, punctual), verdicts{}},
		"as asked, a busy host":   {shaped, see(plan, 10*ms, 100e6, expected, busy), verdicts{rate: Unproven}},
		"delay 2 ms longer":       {shaped, see(plan, 12*ms, 100e6, expected, punctual), verdicts{delay: Failed}},
		"delay 2 ms shorter":      {shaped, see(plan, 8*ms, 100e6, expected, punctual), verdicts{delay: Failed}},
		"delay applied twice":     {shaped, see(plan, 20*ms, 100e6, expected, punctual), verdicts{delay: Failed}},
		"rate 10% lower":          {shaped, see(plan, 10*ms, 90e6, expected, punctual), verdicts{rate: Failed}},
		"rate 10% higher":         {shaped, see(plan, 10*ms, 110e6, expected, punctual), verdicts{rate: Failed}},
		"no rate at all":          {shaped, see(plan, 10*ms, 3e9, expected, punctual), verdicts{rate: Failed}},
		"no loss where asked":     {shaped, see(plan, 10*ms, 100e6, 0, punctual), verdicts{loss: Failed}},
		"three times the loss":    {shaped, see(plan, 10*ms, 100e6, 3*expected, punctual), verdicts{loss: Failed}},
		"5% loss where none was":  {lossless(shaped), see(plan, 10*ms, 100e6, expected, punctual), verdicts{loss: Failed}},
		"one loss where none was": {lossless(shaped), see(plan, 10*ms, 100e6, 1, punctual), verdicts{loss: Failed}},
		"all is lost":             {shaped, lostAll(n), verdicts{delay: Unproven, rate: Unproven, loss: Failed}},
		"the queue overflowed": {lossless(shaped), func() observation {
			seen := see(plan, 10*ms, 100e6, 7, punctual)
			seen.overflow = true
			return seen
		}(), verdicts{loss: Unproven}},
		"the receiver overran": {shaped, func() observation {
			seen := see(plan, 10*ms, 100e6, expected, punctual)
			seen.overrun = true
			return seen
		}(), verdicts{rate: Unproven, loss: Unproven}},
		"the host is too slow": {shaped, func() observation {
			seen := see(plan, 10*ms, 100e6, expected, punctual)
			for i := range seen.trains {
				seen.trains[i].sending = plan.trains[i].lasts
			}
			return seen
		}(), verdicts{rate: Unproven}},
		"trains disagree": {shaped, func() observation {
			seen := see(plan, 10*ms, 100e6, expected, punctual)
			seen.trains[0] = see(plan, 10*ms, 60e6, 0, punctual).trains[0]
			seen.trains[1] = see(plan, 10*ms, 40e6, 0, punctual).trains[0]
			return seen
		}(), verdicts{rate: Unproven}},
		"no probe on time": {shaped, see(plan, 10*ms, 100e6, expected, func(i int) time.Duration {
			return 2*ms + time.Duration(i*7%20)*ms
		}), verdicts{delay: Unproven, rate: Unproven}},
		"one train of three spoilt": {shaped, func() observation {
			seen := see(plan, 10*ms, 100e6, expected, punctual)
			last := seen.trains[1].arrivals
			last[len(last)-1] += 20 * ms
			return seen
		}(), verdicts{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := ask(test.shape)
			d := (&judge{subject: s, plan: plan, falseAlarm: 1e-9}).judge(test.seen)
			got := verdicts{d.Findings[Delay].Verdict, d.Findings[Rate].Verdict, d.Findings[Loss].Verdict}
			if got != test.want {
				t.Errorf("verdicts %v, want %v\n%v", got, test.want, d.Findings)
			}
			if want := max(test.want.delay, test.want.rate, test.want.loss); d.Verdict() != want {
				t.Errorf("all in all %v, want %v", d.Verdict(), want)
			}
		})
	}
}

func lossless(s link.Shape) link.Shape {
	s.Loss = link.RandomLoss(0)
	return s
}

func lostAll(n int) observation {
	return observation{counted: n, frames: make([]sighting, n), armed: 1}
}

func TestWhatCannotBeProvenIsNotPassed(t *testing.T) {
	rare := link.Shape{Loss: link.RandomLoss(1e-6)}
	if f := judged(rare, see(planFor(rare), 0, 1e9, 0, punctual)).Findings[Loss]; f.Verdict != Unproven {
		t.Errorf("a loss of one in a million: %v, %s", f.Verdict, f.Detail)
	}
	fast := link.Shape{Rate: 100e9, Queue: link.Queue{Packets: 1000}}
	if f := judged(fast, see(planFor(fast), 0, 100e9, 0, punctual)).Findings[Rate]; f.Verdict != Unproven {
		t.Errorf("a rate of 100 Gbit/s: %v, %s", f.Verdict, f.Detail)
	}
	far := link.Shape{Delay: 5 * time.Second}
	if plan := planFor(far).fit(time.Second); plan.frames() != 0 {
		t.Errorf("%d probes of a delay of 5 s are to fit into 1 s", plan.frames())
	}
	if d := judged(far, observation{}); d.Verdict() != Unproven {
		t.Errorf("a delay of 5 s: %v", d.Verdict())
	}
}

func TestUnlimitedLinkMustKeepUp(t *testing.T) {
	for rate, want := range map[float64]Verdict{10e9: Passed, 10e6: Failed} {
		f := judged(link.Shape{}, see(planFor(link.Shape{}), 0, rate, 0, punctual)).Findings[Rate]
		if f.Verdict != want {
			t.Errorf("a link of %s where no limit was asked: %v, want %v: %s", bitRate(rate), f.Verdict, want, f.Detail)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, test := range []struct{ earlier, later, want Verdict }{
		{Failed, Passed, Passed},
		{Passed, Failed, Passed},
		{Failed, Failed, Failed},
		{Failed, Unproven, Failed},
		{Unproven, Failed, Failed},
		{Unproven, Passed, Passed},
		{Passed, Unproven, Passed},
	} {
		var earlier, later Stream
		for _, q := range []Quantity{Delay, Rate} {
			earlier.Findings[q].Verdict, later.Findings[q].Verdict = test.earlier, test.later
		}
		got := merge(earlier, later)
		if got.Findings[Rate].Verdict != test.want || got.Findings[Delay].Verdict != test.want {
			t.Errorf("%v, then %v: rate %v and delay %v, want %v", test.earlier, test.later, got.Findings[Rate].Verdict, got.Findings[Delay].Verdict, test.want)
		}
	}
}

// The figures are R's: binom.test without its two-sided rule, 2*min(pbinom(k,n,p), 1-pbinom(k-1,n,p)).
func TestBinomialTest(t *testing.T) {
	for _, test := range []struct {
		k, n int
		p    float64
		want float64
	}{
		{0, 10, 0.5, 2.0 / 1024},
		{10, 10, 0.5, 2.0 / 1024},
		{1, 10, 0.5, 2 * 11.0 / 1024},
		{5, 10, 0.5, 1},
		{0, 100, 0.05, 2 * math.Pow(0.95, 100)},
		{0, 10, 0, 1},
		{1, 10, 0, 0},
		{10, 10, 1, 1},
		{9, 10, 1, 0},
	} {
		got := binomialTest(test.k, test.n, test.p)
		if math.Abs(got-test.want) > 1e-9*max(1, test.want) {
			t.Errorf("%d of %d at %g: %g, want %g", test.k, test.n, test.p, got, test.want)
		}
	}
}

// A right link fails its loss with no more than the chance that was given.
func TestFalseAlarms(t *testing.T) {
	for _, p := range []float64{0.001, 0.01, 0.05, 0.5, 0.99} {
		for _, n := range []int{50, 400} {
			alarm := 0.0
			for k := range n + 1 {
				if binomialTest(k, n, p) < 1e-6 {
					alarm += binomialTail(k, k, n, p)
				}
			}
			if alarm > 1e-6 {
				t.Errorf("loss %g, %d probes: false alarm in %g of all runs, permitted 1e-6", p, n, alarm)
			}
		}
	}
}

func TestPlansFitTheQueueAndTheTime(t *testing.T) {
	for _, shape := range []link.Shape{
		{},
		{Delay: 10 * ms},
		{Delay: 400 * ms, Rate: 1e6, Queue: link.Queue{Packets: 100}},
		{Rate: 64e3, Queue: link.Queue{Packets: 100}},
		{Rate: 1e6, Queue: link.Queue{Packets: 2}},
		{Rate: 10e6, Queue: link.Queue{Bytes: 20000}},
		{Rate: 100e6, Queue: link.Queue{Time: 5 * ms}},
		{Rate: 1e9, Loss: link.RandomLoss(0.001), Queue: link.Queue{Packets: 1000}},
		{Rate: 20e6, Overhead: link.Overhead{Bytes: 24, MinBytes: 84}, Burst: 64 << 10, Queue: link.Queue{Packets: 100}},
		{Delay: 50 * ms, Jitter: link.Jitter{Amount: 10 * ms, Distribution: link.Normal}},
	} {
		s := planFor(shape).fit(time.Second)
		if s.lasts() > time.Second {
			t.Errorf("%+v: takes %v", shape, s.lasts())
		}
		for _, row := range s.trains {
			if row.frames > queueRoom(shape, row.size)+shape.Burst/row.size {
				t.Errorf("%+v: a train of %d frames of %d bytes is more than the queue", shape, row.frames, row.size)
			}
		}
		if s.countBurst > queueRoom(shape, s.small) {
			t.Errorf("%+v: a burst of %d probes is more than the queue", shape, s.countBurst)
		}
		if shape.Rate > 0 && s.countSpacing < time.Duration(s.countBurst)*shape.Serialization(s.small) {
			t.Errorf("%+v: bursts of %d probes every %v are more than the rate", shape, s.countBurst, s.countSpacing)
		}
	}
	if got := planFor(link.Shape{Delay: 10 * ms}).lasts(); got > 100*ms {
		t.Errorf("a link of 10 ms takes %v to verify", got)
	}
}
