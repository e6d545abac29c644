package verify

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// strikes draws which of n packets a model strikes.
func strikes(r *rand.Rand, m model, n int) []bool {
	all := make([]bool, n)
	for i := range all {
		all[i] = r.Float64() < m.strikes()
		if all[i] {
			m.saw(struck)
		} else {
			m.saw(spared)
		}
	}
	return all
}

// seeStruck is what probes see on a link that treats the frames it is told in the way that strike says.
func seeStruck(p plan, delay time.Duration, which []bool, strike func(*sighting)) observation {
	seen := observation{counted: p.counted, armed: 1}
	for i := range p.delayProbes + p.counted {
		sent := time.Second + time.Duration(i)*100*time.Microsecond
		f := sighting{sent: sent, arrived: sent + delay + 30*time.Microsecond, copies: 1}
		if which[i] {
			strike(&f)
		}
		seen.frames = append(seen.frames, f)
	}
	rank(seen.frames)
	return seen
}

// rank gives frames their places in the order of arrival.
func rank(frames []sighting) {
	var order []int
	for i, f := range frames {
		if f.copies > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(frames[a].arrived, frames[b].arrived) })
	for place, i := range order {
		frames[i].rank = place + 1
	}
}

// impairments are shapes with what chance and number decide, how a frame is struck, and what strikes it.
func impairments() map[string]struct {
	shape    link.Shape
	quantity Quantity
	model    func(link.Shape) model
} {
	type impairment = struct {
		shape    link.Shape
		quantity Quantity
		model    func(link.Shape) model
	}
	loss := func(l link.Loss) impairment {
		return impairment{link.Shape{Delay: 10 * ms, Loss: l}, Loss, func(s link.Shape) model { return lossModel(s.Loss, false) }}
	}
	chance := func(p, c float64) link.Chance { return link.Chance{Probability: p, Correlation: c} }
	return map[string]impairment{
		"none":                  loss(link.Loss{}),
		"5%":                    loss(link.RandomLoss(0.05)),
		"10%":                   loss(link.RandomLoss(0.1)),
		"5% in crowds":          loss(link.Loss{Chance: chance(0.05, 0.5)}),
		"Gilbert":               loss(link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.02, ToGood: 0.38, BadLoss: 1}}),
		"Gilbert, longer":       loss(link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.005, ToGood: 0.095, BadLoss: 1}}),
		"Gilbert-Elliott":       loss(link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.02, ToGood: 0.18, BadLoss: 0.5, GoodLoss: 0.001}}),
		"four states":           loss(link.Loss{FourState: &link.FourState{P13: 0.05, P31: 0.2, P32: 0.3, P23: 0.4, P14: 0.02}}),
		"the 3rd":               loss(link.Loss{Packets: []uint64{3}}),
		"the 3rd and the 300th": loss(link.Loss{Packets: []uint64{3, 300}}),
		"every 10th":            loss(link.Loss{Every: 10}),
		"every 20th":            loss(link.Loss{Every: 20}),
		"twice 10%":             {link.Shape{Delay: 10 * ms, Duplicate: chance(0.1, 0)}, Duplicate, func(s link.Shape) model { return chanceModel(s.Duplicate) }},
		"twice 20%":             {link.Shape{Delay: 10 * ms, Duplicate: chance(0.2, 0)}, Duplicate, func(s link.Shape) model { return chanceModel(s.Duplicate) }},
		"twice 10% in crowds":   {link.Shape{Delay: 10 * ms, Duplicate: chance(0.1, 0.5)}, Duplicate, func(s link.Shape) model { return chanceModel(s.Duplicate) }},
		"damaged 10%":           {link.Shape{Delay: 10 * ms, Corrupt: chance(0.1, 0)}, Corrupt, func(s link.Shape) model { return chanceModel(s.Corrupt) }},
		"damaged 3%":            {link.Shape{Delay: 10 * ms, Corrupt: chance(0.03, 0)}, Corrupt, func(s link.Shape) model { return chanceModel(s.Corrupt) }},
		"past others 10%": {link.Shape{Delay: 10 * ms, Reorder: link.Reorder{Chance: chance(0.1, 0)}}, Reorder, func(s link.Shape) model {
			return chanceModel(s.Reorder.Chance)
		}},
		"past others 50% with a gap of 5": {link.Shape{Delay: 10 * ms, Reorder: link.Reorder{Chance: chance(0.5, 0), Gap: 5}}, Reorder, func(s link.Shape) model {
			return gapped(s.Reorder.Probability, s.Reorder.Gap, true)
		}},
	}
}

func strikeFor(q Quantity) func(*sighting) {
	switch q {
	case Duplicate:
		return func(f *sighting) { f.copies = 2 }
	case Corrupt:
		return func(f *sighting) { f.damaged = 1 }
	case Reorder:
		return func(f *sighting) { f.arrived = f.sent + 30*time.Microsecond }
	}
	return func(f *sighting) { *f = sighting{sent: f.sent} }
}

// Every impairment passes as itself, and fails as any other of its kind and where none was asked, from what one second shows.
func TestEachImpairmentIsKnownFromTheOthers(t *testing.T) {
	all := impairments()
	for made, is := range all {
		for asked, should := range all {
			if is.quantity != should.quantity && made != "none" {
				continue
			}
			t.Run(fmt.Sprintf("%s where %s was asked", made, asked), func(t *testing.T) {
				s := ask(should.shape)
				p := newPlan(s, time.Second, 1e-9).fit(time.Second)
				p.trains = nil
				r := rand.New(rand.NewPCG(1, 7))
				seen := seeStruck(p, 10*ms, strikes(r, is.model(is.shape), p.frames()), strikeFor(is.quantity))
				got := (&judge{subject: s, plan: p, falseAlarm: 1e-9}).judge(seen)
				f := got.Findings[should.quantity]
				want := Failed
				if made == asked {
					want = Passed
				}
				if f.Verdict != want {
					t.Errorf("%v, want %v: %s", f.Verdict, want, f.Detail)
				}
			})
		}
	}
}

// What was asked is not judged wrong by chance: with a bound of one in a hundred, no more than so
// many of a thousand right links are.
func TestEvidenceRaisesNoFalseAlarms(t *testing.T) {
	const runs, bound = 500, 0.01
	for name, i := range impairments() {
		t.Run(name, func(t *testing.T) {
			alarms := 0
			r := rand.New(rand.NewPCG(3, 4))
			for range runs {
				seen := make([]outcome, 400)
				for n, s := range strikes(r, i.model(i.shape), len(seen)) {
					seen[n] = spared
					if s {
						seen[n] = struck
					}
				}
				// Some of them are not known.
				for n := range seen {
					if n%10 == 9 {
						seen[n] = unknown
					}
				}
				if evidence(i.model(i.shape), seen) > -math.Log(bound) {
					alarms++
				}
			}
			// 16 or more of 500 have a chance of 7e-5 at one in a hundred.
			if alarms >= 16 {
				t.Errorf("%d false alarms in %d runs", alarms, runs)
			}
		})
	}
}

// What a model predicts is a distribution: over all sequences, probabilities are 1 in sum.
func TestModelsPredictProbabilities(t *testing.T) {
	const length = 8
	for name, i := range impairments() {
		sum := 0.0
		for bits := range 1 << length {
			seen := make([]outcome, length)
			for n := range seen {
				seen[n] = spared + outcome(bits>>n&1)
			}
			sum += math.Exp(likelihood(i.model(i.shape), seen))
		}
		if math.Abs(sum-1) > 1e-6 {
			t.Errorf("%s: all probabilities are %v in sum", name, sum)
		}
	}
}

// The correlated model strikes as many packets, and as many behind one struck, as its draws do.
func TestCorrelatedModelIsThatOfItsDraws(t *testing.T) {
	for _, c := range []link.Chance{{Probability: 0.05, Correlation: 0.25}, {Probability: 0.2, Correlation: 0.5}, {Probability: 0.5, Correlation: 0.9}} {
		const n = 400_000
		r := rand.New(rand.NewPCG(5, 6))
		draw, threshold := 0.5, c.Threshold()
		hits, pairs, last := 0, 0, false
		for range n {
			draw = (1-c.Correlation)*r.Float64() + c.Correlation*draw
			hit := draw < threshold
			if hit {
				hits++
				if last {
					pairs++
				}
			}
			last = hit
		}
		m := newCorrelated(c)
		mean := m.strikes()
		m.saw(struck)
		behind := m.strikes()
		if math.Abs(mean-c.Probability) > 1e-3*c.Probability+1e-6 {
			t.Errorf("%+v: the model strikes %v", c, mean)
		}
		if got := float64(pairs) / float64(hits); math.Abs(behind-got) > 5*math.Sqrt(got/float64(hits))+1e-3 {
			t.Errorf("%+v: behind one struck the model strikes %v, draws do %v", c, behind, got)
		}
	}
}

func TestLossByNumberIsProvenByNumber(t *testing.T) {
	shape := link.Shape{Delay: 10 * ms, Loss: link.Loss{Packets: []uint64{3, 1 << 40}}}
	s := ask(shape)
	p := newPlan(s, time.Second, 1e-9)
	p.trains = nil
	which := make([]bool, p.frames())
	which[2] = true
	seen := seeStruck(p, 10*ms, which, strikeFor(Loss))
	for name, test := range map[string]struct {
		change func(*observation, *judge)
		want   Verdict
	}{
		"beyond what can be sent": {func(*observation, *judge) {}, Unproven},
		"as asked":                {func(_ *observation, j *judge) { j.shape.Loss.Packets = []uint64{3} }, Passed},
		"the first is not known":  {func(o *observation, j *judge) { o.armed, j.shape.Loss.Packets = 0, []uint64{3} }, Unproven},
		"another":                 {func(_ *observation, j *judge) { j.shape.Loss.Packets = []uint64{4} }, Failed},
		"other traffic":           {func(o *observation, j *judge) { o.foreign, j.shape.Loss.Packets = true, []uint64{4} }, Unproven},
	} {
		o, j := seen, &judge{subject: s, plan: p, falseAlarm: 1e-9}
		test.change(&o, j)
		if f := j.judge(o).Findings[Loss]; f.Verdict != test.want {
			t.Errorf("%s: %v, want %v: %s", name, f.Verdict, test.want, f.Detail)
		}
	}
}

func TestDown(t *testing.T) {
	s := ask(link.Shape{Down: true})
	p := newPlan(s, time.Second, 1e-9)
	if len(p.trains) > 0 {
		t.Error("trains are sent into a link that is down")
	}
	for lost, want := range map[bool]Verdict{true: Passed, false: Failed} {
		which := make([]bool, p.frames())
		for i := range which {
			which[i] = lost
		}
		got := (&judge{subject: s, plan: p, falseAlarm: 1e-9}).judge(seeStruck(p, 0, which, strikeFor(Loss)))
		if f := got.Findings[Loss]; f.Verdict != want {
			t.Errorf("all lost %v: %v: %s", lost, f.Verdict, f.Detail)
		}
		if got.Verdict() == Passed {
			t.Error("all of a link that is down has passed")
		}
	}
}
