package verify

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// seeTrains is what trains see of a bottleneck that works as the shape says.
func seeTrains(p plan, made link.Shape) observation {
	seen := observation{armed: 1}
	for _, row := range p.trains {
		t := train{tells: row.tells, frames: row.frames, bytes: row.size, lasts: row.lasts, sending: time.Duration(row.frames) * time.Microsecond}
		budget := float64(made.Burst)
		through := time.Duration(0)
		for range row.frames {
			cost := float64(made.Overhead.Cost(row.size))
			use := min(budget, cost)
			budget -= use
			through += time.Duration((cost - use) * 8e9 / float64(made.Rate))
			t.arrivals = append(t.arrivals, 10*ms+through)
		}
		seen.trains = append(seen.trains, t)
	}
	return seen
}

func TestOverheadAndBurst(t *testing.T) {
	plain := link.Shape{Rate: 20e6, Queue: link.Queue{Packets: 300}}
	with := func(change func(*link.Shape)) link.Shape {
		s := plain
		change(&s)
		return s
	}
	ethernet := with(func(s *link.Shape) { s.Overhead = link.Overhead{Bytes: 24, MinBytes: 84} })
	atm := with(func(s *link.Shape) { s.Overhead = link.Overhead{ATM: true} })
	burst := with(func(s *link.Shape) { s.Burst = 64 << 10 })
	twice := with(func(s *link.Shape) { s.Burst = 128 << 10 })
	small := with(func(s *link.Shape) { s.Burst = 100 })
	for name, test := range map[string]struct {
		asked, made          link.Shape
		rate, overhead, once Verdict
	}{
		"nothing":                {plain, plain, Passed, Passed, Passed},
		"Ethernet":               {ethernet, ethernet, Passed, Passed, Passed},
		"ATM":                    {atm, atm, Passed, Passed, Passed},
		"Ethernet, not applied":  {ethernet, plain, Passed, Failed, Passed},
		"ATM for Ethernet":       {ethernet, atm, Failed, Failed, Passed},
		"ATM, not applied":       {atm, plain, Failed, Failed, Passed},
		"burst":                  {burst, burst, Passed, Passed, Passed},
		"burst, not applied":     {burst, plain, Passed, Passed, Failed},
		"half the burst":         {twice, burst, Passed, Passed, Failed},
		"a burst where none was": {plain, burst, Failed, Passed, Failed},
		"too small a burst":      {small, small, Passed, Passed, Unproven},
	} {
		t.Run(name, func(t *testing.T) {
			s := ask(test.asked)
			j := &judge{subject: s, plan: newPlan(s, time.Second, 1e-9), falseAlarm: 1e-9}
			f := j.judge(seeTrains(j.plan, test.made)).Findings
			if f[Rate].Verdict != test.rate || f[Overhead].Verdict != test.overhead || f[Burst].Verdict != test.once {
				t.Errorf("rate %v: %s\noverhead %v: %s\nburst %v: %s\nwant %v, %v, %v", f[Rate].Verdict, f[Rate].Detail,
					f[Overhead].Verdict, f[Overhead].Detail, f[Burst].Verdict, f[Burst].Detail, test.rate, test.overhead, test.once)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	// 12 Mbit/s for half a second, 3 Mbit/s for the other half.
	asked := &link.Trace{}
	for at := ms; at <= 500*ms; at += ms {
		asked.Opportunities = append(asked.Opportunities, at)
	}
	for at := 504 * ms; at <= time.Second; at += 4 * ms {
		asked.Opportunities = append(asked.Opportunities, at)
	}
	even := &link.Trace{Opportunities: []time.Duration{ms, 2 * ms}}
	for name, test := range map[string]struct {
		made  *link.Trace
		armed time.Duration
		want  Verdict
	}{
		"as asked":          {asked, time.Second, Passed},
		"another":           {even, time.Second, Failed},
		"unknown beginning": {asked, 0, Unproven},
	} {
		t.Run(name, func(t *testing.T) {
			s := subjects(link.Direction{Trace: asked, Shape: link.Shape{Queue: link.Queue{Packets: 100}}}, 1500, false)[0]
			j := &judge{subject: s, plan: newPlan(s, time.Second, 1e-9), falseAlarm: 1e-9}
			seen := observation{armed: test.armed}
			begin := 1400 * ms // at 400 ms of the trace
			for _, row := range j.plan.trains {
				tr := train{tells: Rate, frames: row.frames, bytes: row.size, lasts: row.lasts}
				for at := begin; len(tr.arrivals) < row.frames; at += ms / 4 {
					if opportunities(test.made, at-ms/4-time.Second, at-time.Second) > 0 {
						tr.arrivals = append(tr.arrivals, at+100*time.Microsecond)
					}
				}
				begin = tr.arrivals[len(tr.arrivals)-1] + ms
				seen.trains = append(seen.trains, tr)
			}
			if f := j.judge(seen).Findings[Rate]; f.Verdict != test.want {
				t.Errorf("%v, want %v: %s", f.Verdict, test.want, f.Detail)
			}
		})
	}
}

func TestSendable(t *testing.T) {
	trace := &link.Trace{Opportunities: []time.Duration{0, 2 * ms, 2 * ms, 5 * ms}}
	once := *trace
	once.Once = true
	for at, want := range map[time.Duration][2]int{
		-1: {0, 0}, 0: {1, 1}, ms: {1, 1}, 2 * ms: {3, 3}, 4 * ms: {3, 3}, 5 * ms: {5, 4}, 7 * ms: {7, 4}, 10 * ms: {9, 4},
	} {
		if got := sendable(trace, at); got != want[0] {
			t.Errorf("at %v %d, want %d", at, got, want[0])
		}
		if got := sendable(&once, at); got != want[1] {
			t.Errorf("once, at %v %d, want %d", at, got, want[1])
		}
	}
}
