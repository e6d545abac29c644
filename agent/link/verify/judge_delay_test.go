package verify

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// seeJitter is what probes see on a link of the shape, on a host that makes each packet late by what late returns.
func seeJitter(p plan, shape link.Shape, r *rand.Rand, late func() time.Duration) observation {
	seen := observation{counted: p.counted, armed: 1}
	deviations := []float64{0}
	if !shape.Jitter.IsZero() {
		deviations = shape.Jitter.Deviations(4096)
	}
	latest, behind := time.Duration(0), uint32(0)
	for i := range p.delayProbes + p.counted {
		sent := time.Second + time.Duration(i)*p.delaySpacing
		delay := max(0, shape.Delay+time.Duration(deviations[r.IntN(len(deviations))]*float64(shape.Jitter.Amount)))
		f := sighting{sent: sent, arrived: sent + delay + late(), copies: 1}
		if !shape.Jitter.Reorder {
			f.arrived = max(f.arrived, latest)
		} else if i%2 == 1 {
			f.overtaken = r.IntN(2) == 0
		}
		latest = max(latest, f.arrived)
		behind++
		seen.frames = append(seen.frames, f)
	}
	return seen
}

func TestJitterIsJudgedByItsDistribution(t *testing.T) {
	shape := func(amount time.Duration, d link.Distribution, reorder bool) link.Shape {
		return link.Shape{Delay: 40 * ms, Jitter: link.Jitter{Amount: amount, Distribution: d, Reorder: reorder && amount > 0}}
	}
	quick := func() time.Duration { return 30 * time.Microsecond }
	var r *rand.Rand
	// One packet in twenty is late by up to 3 ms.
	busy := func() time.Duration {
		if r.IntN(20) == 0 {
			return time.Duration(r.Int64N(int64(3 * ms)))
		}
		return 50 * time.Microsecond
	}
	for name, test := range map[string]struct {
		asked, made link.Shape
		late        func() time.Duration
		want        Verdict
	}{
		"uniform":              {shape(5*ms, link.Uniform, false), shape(5*ms, link.Uniform, false), quick, Passed},
		"uniform, a busy host": {shape(5*ms, link.Uniform, false), shape(5*ms, link.Uniform, false), busy, Passed},
		"normal":               {shape(3*ms, link.Normal, false), shape(3*ms, link.Normal, false), quick, Passed},
		"pareto that reorders": {shape(5*ms, link.Pareto, true), shape(5*ms, link.Pareto, true), quick, Passed},
		"normal that reorders": {shape(5*ms, link.Normal, true), shape(5*ms, link.Normal, true), busy, Passed},
		"not applied":          {shape(5*ms, link.Uniform, false), shape(0, link.Uniform, false), quick, Failed},
		"normal, not applied":  {shape(3*ms, link.Normal, false), shape(0, link.Uniform, false), quick, Failed},
		"none asked":           {shape(0, link.Uniform, false), shape(5*ms, link.Uniform, false), quick, Failed},
		"three times":          {shape(5*ms, link.Uniform, true), shape(15*ms, link.Uniform, true), quick, Failed},
		// Here most packets wait for such as took very long, and tell little.
		"five times, in order":       {shape(5*ms, link.Uniform, false), shape(25*ms, link.Uniform, false), quick, Unproven},
		"three times, in order":      {shape(5*ms, link.Uniform, false), shape(15*ms, link.Uniform, false), quick, Failed},
		"a third":                    {shape(6*ms, link.Uniform, true), shape(2*ms, link.Uniform, true), quick, Failed},
		"a third, in order":          {shape(6*ms, link.Uniform, false), shape(2*ms, link.Uniform, false), quick, Failed},
		"around another delay":       {shape(3*ms, link.Uniform, false), link.Shape{Delay: 45 * ms, Jitter: link.Jitter{Amount: 3 * ms}}, quick, Failed},
		"uniform for normal":         {shape(6*ms, link.Normal, true), shape(6*ms, link.Uniform, true), quick, Failed},
		"order kept where not asked": {shape(5*ms, link.Uniform, true), shape(5*ms, link.Uniform, false), quick, Failed},
		"too little to tell":         {shape(200*time.Microsecond, link.Uniform, true), shape(200*time.Microsecond, link.Uniform, true), quick, Unproven},
	} {
		t.Run(name, func(t *testing.T) {
			r = rand.New(rand.NewPCG(8, 9))
			s := ask(test.asked)
			p := newPlan(s, time.Second, 1e-9).fit(time.Second)
			p.trains = nil
			got := (&judge{subject: s, plan: p, falseAlarm: 1e-9}).judge(seeJitter(p, test.made, r, test.late))
			got.Findings[Rate] = Finding{}
			if got.Verdict() != test.want {
				t.Errorf("%v, want %v", got.Verdict(), test.want)
				for q, f := range got.Findings {
					t.Logf("%v: %v: %s", Quantity(q), f.Verdict, f.Detail)
				}
			}
		})
	}
}

// A right jitter is not failed by chance, order kept or not.
func TestJitterRaisesNoFalseAlarms(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 11))
	for _, reorder := range []bool{false, true} {
		shape := link.Shape{Delay: 40 * ms, Jitter: link.Jitter{Amount: 5 * ms, Distribution: link.Normal, Reorder: reorder}}
		s := ask(shape)
		p := newPlan(s, time.Second, 1e-9)
		alarms := 0
		for range 300 {
			j := &judge{subject: s, plan: p, falseAlarm: 0.05}
			delay, jitter := j.judgeJitter(seeJitter(p, shape, r, func() time.Duration { return 0 }), &Measured{})
			if delay.Verdict == Failed || jitter.Verdict == Failed {
				alarms++
			}
		}
		// 5% of 300 are 15.
		if alarms > 15 {
			t.Errorf("reordering %v: %d false alarms in 300 runs, at a bound of one in twenty", reorder, alarms)
		}
	}
}

func TestKindsOfPacketAreJudgedEach(t *testing.T) {
	d := link.Direction{Paths: []link.Path{{Name: "web", Match: link.Match{Port: 443}, Shape: link.Shape{Delay: 20 * ms}}}}
	s := subjects(d, 1500, false)[1]
	p := newPlan(s, time.Second, 1e-9)
	p.trains = nil
	for wrong := range len(s.kinds) + 1 {
		seen := observation{counted: p.counted, armed: 1}
		for i := range p.delayProbes + p.counted {
			sent := time.Second + time.Duration(i)*ms
			delay := 20 * ms
			if i%len(s.kinds) == wrong {
				delay = 25 * ms
			}
			seen.frames = append(seen.frames, sighting{sent: sent, arrived: sent + delay, copies: 1})
		}
		want := Failed
		if wrong == len(s.kinds) {
			want = Passed
		}
		f := (&judge{subject: s, plan: p, falseAlarm: 1e-9}).judge(seen).Findings[Delay]
		if f.Verdict != want {
			t.Errorf("kind %d delayed otherwise: %v, want %v: %s", wrong, f.Verdict, want, f.Detail)
		}
	}
}
