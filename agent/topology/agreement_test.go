package topology

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// TestValidationsAgree holds that package labs, which tells a user where a lab
// file is wrong, and package link, which guards the engines, have the same
// rules.
func TestValidationsAgree(t *testing.T) {
	base := func() link.Direction {
		return link.Direction{
			Shape: link.Shape{Rate: 1e7, Delay: 20 * time.Millisecond, Queue: link.Queue{Packets: 100}},
			Paths: []link.Path{{Name: "web", Match: link.Match{Port: 80}, Shape: link.Shape{Delay: time.Millisecond}}},
		}
	}
	traced := func(d *link.Direction) {
		d.Shape.Rate = 0
		d.Trace = &link.Trace{Opportunities: []time.Duration{time.Millisecond, 2 * time.Millisecond}}
	}
	step := func(at time.Duration) link.Step { return link.Step{At: at, Shape: base().Shape} }
	tests := []struct {
		name  string
		right bool
		edit  func(*link.Direction)
	}{
		{"base", true, func(*link.Direction) {}},
		{"trace", true, traced},
		{"trace and rate", false, func(d *link.Direction) { traced(d); d.Shape.Rate = 1e6 }},
		{"trace and schedule", false, func(d *link.Direction) { traced(d); d.Schedule.Steps = []link.Step{step(0)} }},
		{"trace and time", false, func(d *link.Direction) { traced(d); d.Shape.Queue = link.Queue{Time: time.Second} }},
		{"trace and burst", false, func(d *link.Direction) { traced(d); d.Shape.Burst = 3000 }},
		{"no moments", false, func(d *link.Direction) { traced(d); d.Trace.Opportunities = nil }},
		{"moments at 0", false, func(d *link.Direction) { traced(d); d.Trace.Opportunities = []time.Duration{0} }},
		{"moments fall", false, func(d *link.Direction) {
			traced(d)
			d.Trace.Opportunities = []time.Duration{2 * time.Millisecond, time.Millisecond}
		}},
		{"queue without rate", false, func(d *link.Direction) { d.Shape.Rate = 0 }},
		{"overhead", true, func(d *link.Direction) { d.Shape.Overhead = link.Overhead{Bytes: -4, MinBytes: 84, ATM: true} }},
		{"overhead of 257", false, func(d *link.Direction) { d.Shape.Overhead = link.Overhead{Bytes: 257} }},
		{"overhead without rate", false, func(d *link.Direction) { d.Paths[0].Shape.Overhead = link.Overhead{ATM: true} }},
		{"reorder without delay", false, func(d *link.Direction) { d.Shape.Delay = 0; d.Shape.Reorder.Probability = 0.1 }},
		{"jitter", true, func(d *link.Direction) {
			d.Shape.Jitter = link.Jitter{Amount: 1, Distribution: link.Table, Quantiles: []float64{-4, 0, 4}, Correlation: 0.5}
		}},
		{"table without quantiles", false, func(d *link.Direction) { d.Shape.Jitter = link.Jitter{Amount: 1, Distribution: link.Table} }},
		{"quantiles without table", false, func(d *link.Direction) { d.Shape.Jitter = link.Jitter{Amount: 1, Quantiles: []float64{-1, 1}} }},
		{"quantiles fall", false, func(d *link.Direction) {
			d.Shape.Jitter = link.Jitter{Amount: 1, Distribution: link.Table, Quantiles: []float64{1, -1}}
		}},
		{"quantile of 5", false, func(d *link.Direction) {
			d.Shape.Jitter = link.Jitter{Amount: 1, Distribution: link.Table, Quantiles: []float64{1, 5}}
		}},
		{"correlation of 1", false, func(d *link.Direction) { d.Shape.Jitter = link.Jitter{Amount: 1, Correlation: 1} }},
		{"loss of NaN", false, func(d *link.Direction) { d.Shape.Loss.Probability = math.NaN() }},
		{"two losses", false, func(d *link.Direction) { d.Shape.Loss.Probability = 0.1; d.Shape.Loss.Every = 3 }},
		{"correlation of no loss", false, func(d *link.Direction) { d.Shape.Loss.Correlation = 0.1 }},
		{"packets do not rise", false, func(d *link.Direction) { d.Shape.Loss.Packets = []uint64{3, 3} }},
		{"packet 0", false, func(d *link.Direction) { d.Shape.Loss.Packets = []uint64{0} }},
		{"four states", true, func(d *link.Direction) { d.Shape.Loss.FourState = &link.FourState{P13: 0.5, P14: 0.5, P31: 1} }},
		{"more than certain", false, func(d *link.Direction) { d.Shape.Loss.FourState = &link.FourState{P13: 0.6, P14: 0.5} }},
		{"Gilbert above 1", false, func(d *link.Direction) { d.Shape.Loss.GilbertElliott = &link.GilbertElliott{ToBad: 1.1} }},
		{"duplicate above 1", false, func(d *link.Direction) { d.Shape.Duplicate.Probability = 1.1 }},
		{"ECN of fifo", false, func(d *link.Direction) { d.Shape.Queue.ECN = true }},
		{"ECN of cake", false, func(d *link.Direction) { d.Shape.Queue.ECN, d.Shape.Queue.Discipline = true, link.CAKE }},
		{"ECN of codel", true, func(d *link.Direction) { d.Shape.Queue.ECN, d.Shape.Queue.Discipline = true, link.CoDel }},
		{"target of cake", false, func(d *link.Direction) { d.Shape.Queue.Target, d.Shape.Queue.Discipline = 1, link.CAKE }},
		{"interval of pie", false, func(d *link.Direction) { d.Shape.Queue.Interval, d.Shape.Queue.Discipline = 1, link.PIE }},
		{"interval of cake", true, func(d *link.Direction) { d.Shape.Queue.Interval, d.Shape.Queue.Discipline = 1, link.CAKE }},
		{"red of codel", false, func(d *link.Direction) {
			d.Shape.Queue.Discipline, d.Shape.Queue.RED.MinBytes = link.CoDel, 3000
		}},
		{"red falls", false, func(d *link.Direction) {
			d.Shape.Queue.Discipline, d.Shape.Queue.RED = link.RED, link.REDThresholds{MinBytes: 9000, MaxBytes: 3000}
		}},
		{"path twice", false, func(d *link.Direction) { d.Paths = append(d.Paths, d.Paths[0]) }},
		{"match of nothing", false, func(d *link.Direction) { d.Paths[0].Match = link.Match{} }},
		{"bits behind the prefix", false, func(d *link.Direction) { d.Paths[0].Match.Destination = netip.MustParsePrefix("10.0.0.1/8") }},
		{"port of icmp", false, func(d *link.Direction) { d.Paths[0].Match.Protocol = link.ICMP }},
		{"schedule", true, func(d *link.Direction) {
			d.Schedule = link.Schedule{Period: 2 * time.Second, Steps: []link.Step{step(0), step(2 * time.Second)}}
		}},
		{"steps out of order", false, func(d *link.Direction) { d.Schedule.Steps = []link.Step{step(2), step(1)} }},
		{"step of no path", false, func(d *link.Direction) { d.Schedule.Steps = []link.Step{{Path: "x"}} }},
		{"step that is wrong", false, func(d *link.Direction) {
			d.Schedule.Steps = []link.Step{{Shape: link.Shape{Queue: link.Queue{Packets: 1}}}}
		}},
		{"period too short", false, func(d *link.Direction) { d.Schedule = link.Schedule{Period: 1, Steps: []link.Step{step(2)}} }},
		{"ramp too long", false, func(d *link.Direction) {
			d.Schedule.Steps = []link.Step{step(1), step(2)}
			d.Schedule.Steps[0].Ramp = 2
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := base()
			tt.edit(&d)
			if err := d.Validate(); (err == nil) != tt.right {
				t.Errorf("package link says %v", err)
			}
			lab := &tcplabv1.Lab{
				Name:  "test",
				Nodes: []*tcplabv1.Node{{Name: "a"}, {Name: "b"}},
				Links: []*tcplabv1.Link{{Name: "a-b", A: &tcplabv1.LinkEnd{Node: "a"}, B: &tcplabv1.LinkEnd{Node: "b"}, Forward: DirectionMessage(d)}},
				Experiments: []*tcplabv1.Experiment{{Flows: []*tcplabv1.Flow{{
					Name: "up", Client: "a", Server: "b", Kind: &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: 1}}},
				}}}},
			}
			labs.Complete(lab)
			if err := labs.Validate(lab); (err == nil) != tt.right {
				t.Errorf("package labs says %v", err)
			}
		})
	}
}
