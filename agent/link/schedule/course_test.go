package schedule

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

const ms = time.Millisecond

// walk is the course's moments before the given time.
func walk(c *Course, until time.Duration) (all []Moment) {
	for m, ok := c.Next(); ok && m.At < until; m, ok = c.Next() {
		all = append(all, m)
	}
	return all
}

func delayed(d time.Duration) link.Shape { return link.Shape{Delay: d} }

// at is when the direction's own shape, and that of its path "p" where it has one, have which delays.
type at struct {
	At, Delay, Path time.Duration
}

func delays(moments []Moment) (all []at) {
	for _, m := range moments {
		a := at{At: m.At, Delay: m.To.Shape.Delay}
		if p := m.To.ShapeOf("p"); p != nil {
			a.Path = p.Delay
		}
		all = append(all, a)
	}
	return all
}

func TestCourse(t *testing.T) {
	step := func(at, delay time.Duration) link.Step { return link.Step{At: at, Shape: delayed(delay)} }
	on := func(path string, s link.Step) link.Step { s.Path = path; return s }
	ramp := func(s link.Step, over time.Duration) link.Step { s.Ramp = over; return s }
	paths := []link.Path{{Name: "p", Match: link.Match{Protocol: link.UDP}, Shape: delayed(1 * ms)}}
	for name, test := range map[string]struct {
		direction link.Direction
		until     time.Duration
		want      []at
	}{
		"nothing": {link.Direction{Shape: delayed(5 * ms)}, time.Hour, nil},
		"steps": {
			link.Direction{Shape: delayed(5 * ms), Schedule: link.Schedule{Steps: []link.Step{step(0, 6*ms), step(100*ms, 7*ms), step(100*ms, 8*ms)}}},
			time.Hour,
			[]at{{0, 6 * ms, 0}, {100 * ms, 8 * ms, 0}},
		},
		"a step that changes nothing": {
			link.Direction{Shape: delayed(5 * ms), Schedule: link.Schedule{Steps: []link.Step{step(10*ms, 5*ms), step(20*ms, 6*ms)}}},
			time.Hour,
			[]at{{20 * ms, 6 * ms, 0}},
		},
		"two paths, at once and apart": {
			link.Direction{Shape: delayed(5 * ms), Paths: paths, Schedule: link.Schedule{Steps: []link.Step{
				step(10*ms, 6*ms), on("p", step(10*ms, 2*ms)), on("p", step(20*ms, 3*ms)),
			}}},
			time.Hour,
			[]at{{10 * ms, 6 * ms, 2 * ms}, {20 * ms, 6 * ms, 3 * ms}},
		},
		"a ramp beside a step": {
			link.Direction{Shape: delayed(0), Paths: paths, Schedule: link.Schedule{Steps: []link.Step{
				ramp(step(100*ms, 40*ms), 40*ms), on("p", step(115*ms, 9*ms)),
			}}},
			time.Hour,
			[]at{
				{110 * ms, 10 * ms, 1 * ms}, {115 * ms, 10 * ms, 9 * ms}, {120 * ms, 20 * ms, 9 * ms}, {130 * ms, 30 * ms, 9 * ms}, {140 * ms, 40 * ms, 9 * ms},
			},
		},
		"a period": {
			link.Direction{Shape: delayed(5 * ms), Schedule: link.Schedule{Steps: []link.Step{step(10*ms, 6*ms), step(20*ms, 7*ms)}, Period: 50 * ms}},
			115 * ms,
			[]at{{10 * ms, 6 * ms, 0}, {20 * ms, 7 * ms, 0}, {50 * ms, 5 * ms, 0}, {60 * ms, 6 * ms, 0}, {70 * ms, 7 * ms, 0}, {100 * ms, 5 * ms, 0}, {110 * ms, 6 * ms, 0}},
		},
		"a period that begins with a step": {
			link.Direction{Shape: delayed(5 * ms), Schedule: link.Schedule{Steps: []link.Step{step(0, 6*ms), step(20*ms, 7*ms)}, Period: 50 * ms}},
			101 * ms,
			[]at{{0, 6 * ms, 0}, {20 * ms, 7 * ms, 0}, {50 * ms, 6 * ms, 0}, {70 * ms, 7 * ms, 0}, {100 * ms, 6 * ms, 0}},
		},
		"a ramp until the period ends": {
			link.Direction{Shape: delayed(0), Schedule: link.Schedule{Steps: []link.Step{ramp(step(5*ms, 20*ms), 20*ms)}, Period: 25 * ms}},
			50 * ms,
			[]at{{15 * ms, 10 * ms, 0}, {25 * ms, 0, 0}, {40 * ms, 10 * ms, 0}},
		},
		"a period without a change": {
			link.Direction{Shape: delayed(5 * ms), Schedule: link.Schedule{Steps: []link.Step{step(10*ms, 5*ms)}, Period: 50 * ms}}, time.Hour, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.direction.Validate(); err != nil {
				t.Fatal(err)
			}
			before := test.direction.Resolve(0, 1500)
			got := walk(New(test.direction, nil), test.until)
			if diff := cmp.Diff(test.want, delays(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, m := range got {
				if len(m.To.Schedule.Steps) > 0 {
					t.Errorf("at %v the change has a schedule of its own", m.At)
				}
			}
			if !reflect.DeepEqual(before, test.direction.Resolve(0, 1500)) {
				t.Errorf("the direction itself was changed: %+v", test.direction)
			}
		})
	}
}

// Every shape on the way is one that an engine takes, and what slopes does so evenly.
func TestRampIsEvenAndValid(t *testing.T) {
	from := link.Shape{Rate: 10e6, Loss: link.RandomLoss(0), Queue: link.Queue{Packets: 100}}
	to := link.Shape{
		Rate: 2e6, Delay: 80 * ms, Queue: link.Queue{Packets: 50}, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.1}},
		Loss: link.Loss{Chance: link.Chance{Probability: 0.2, Correlation: 0.5}}, Duplicate: link.Chance{Probability: 0.1},
	}
	moments := walk(New(link.Direction{Shape: from, Schedule: link.Schedule{Steps: []link.Step{{At: time.Second, Shape: to, Ramp: 3 * time.Second}}}}, nil), time.Hour)
	if len(moments) != 301 { // the first has what does not slope
		t.Errorf("%d moments, want 301", len(moments))
	}
	for i, m := range moments {
		s := m.To.Shape
		if err := m.To.Validate(); err != nil {
			t.Errorf("at %v: %v", m.At, err)
		}
		share := float64(i) / 300
		if m.At != time.Second+time.Duration(i)*10*ms ||
			math.Abs(float64(s.Rate)-(10e6-8e6*share)) > 1 || math.Abs(s.Loss.Probability-0.2*share) > 1e-9 ||
			(s.Delay-time.Duration(80*float64(ms)*share)).Abs() > 1 || s.Duplicate.Probability != 0.1 {
			t.Errorf("moment %d at %v: %+v", i, m.At, s)
		}
		if passing := i > 0 && i < 300; m.Passing != passing {
			t.Errorf("moment %d: passing %v", i, m.Passing)
		}
	}
	if last := moments[len(moments)-1].To.Shape; !last.Equal(to) {
		t.Errorf("the ramp ends at %+v, not %+v", last, to)
	}
}

func TestWhatHasNoMiddleChangesAtOnce(t *testing.T) {
	pattern := link.Shape{Delay: 10 * ms, Loss: link.Loss{Every: 3}}
	for _, test := range []struct{ from, to link.Shape }{
		{link.Shape{}, link.Shape{Rate: 1e6, Queue: link.Queue{Packets: 10}}},
		{link.Shape{Rate: 1e6, Queue: link.Queue{Packets: 10}}, link.Shape{}},
		{pattern, link.Shape{Loss: link.RandomLoss(0.1)}},
		{link.Shape{Loss: link.RandomLoss(0.1)}, pattern},
		{link.Shape{}, link.Shape{Down: true}},
	} {
		s := between(test.from, test.to, 0.5)
		if s.Rate != test.to.Rate || !cmp.Equal(s.Loss, test.to.Loss) || s.Down != test.to.Down {
			t.Errorf("between %+v and %+v is %+v", test.from, test.to, s)
		}
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestLongRampsAreNotEndless(t *testing.T) {
	d := link.Direction{Schedule: link.Schedule{Steps: []link.Step{{Shape: delayed(time.Hour), Ramp: 24 * time.Hour}}}}
	if n := len(walk(New(d, nil), 100*time.Hour)); n != rampSteps {
		t.Errorf("a ramp of a day has %d steps, want %d", n, rampSteps)
	}
}

func FuzzCourse(f *testing.F) {
	f.Add(uint16(10), uint16(20), uint16(5), uint16(7), uint16(50))
	f.Add(uint16(0), uint16(0), uint16(100), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, at1, at2, ramp1, ramp2, period uint16) {
		d := link.Direction{Shape: delayed(1 * ms), Schedule: link.Schedule{
			Steps: []link.Step{
				{At: time.Duration(at1) * ms, Shape: delayed(50 * ms), Ramp: time.Duration(ramp1) * ms},
				{At: time.Duration(at2) * ms, Shape: link.Shape{Delay: 9 * ms, Down: true}, Ramp: time.Duration(ramp2) * ms},
			},
			Period: time.Duration(period) * ms,
		}}
		if d.Validate() != nil {
			return
		}
		moments := walk(New(d, nil), 10*time.Second)
		for i, m := range moments {
			if i > 0 && m.At <= moments[i-1].At {
				t.Fatalf("moment %d at %v comes after %v", i, m.At, moments[i-1].At)
			}
			if err := m.To.Validate(); err != nil {
				t.Fatalf("at %v: %v", m.At, err)
			}
		}
		if len(moments) > 0 && period == 0 && !slices.ContainsFunc(moments, func(m Moment) bool { return m.To.Shape.Down }) {
			t.Fatal("the last step was never taken")
		}
	})
}

// An engine that pays for each change gets fewer, but a slope all the same.
func TestPaceSetsTheStepsApart(t *testing.T) {
	from, to := link.Shape{Rate: 10e6}, link.Shape{Rate: 20e6}
	for _, test := range []struct {
		pace, ramp time.Duration
		want       int
	}{
		{0, time.Second, 100},
		{time.Millisecond, time.Second, 100},
		{50 * time.Millisecond, time.Second, 20},
		{time.Minute, time.Second, fewSteps},
		{time.Minute, 30 * time.Millisecond, 3},
	} {
		d := link.Direction{Shape: from, Schedule: link.Schedule{Steps: []link.Step{{At: time.Second, Shape: to, Ramp: test.ramp}}}}
		moments := walk(New(d, func(a, b link.Shape) time.Duration {
			if a.Rate != from.Rate || b.Rate != to.Rate {
				t.Errorf("asked for the pace from %d to %d bit/s", a.Rate, b.Rate)
			}
			return test.pace
		}), time.Hour)
		if len(moments) != test.want {
			t.Errorf("at a pace of %v a ramp of %v has %d steps, want %d", test.pace, test.ramp, len(moments), test.want)
		}
	}
}
