package link

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rich is a shape in which everything is set that can be beside the rest.
func rich() Shape {
	return Shape{
		Rate: 10e6, Overhead: Overhead{Bytes: 24, MinBytes: 84, ATM: true}, Burst: 3000,
		Delay: 20 * time.Millisecond,
		Jitter: Jitter{
			Amount: time.Millisecond, Distribution: Table, Correlation: 0.25, Quantiles: []float64{-1, 0, 2}, Reorder: true,
		},
		Reorder:   Reorder{Chance: Chance{Probability: 0.01, Correlation: 0.5}, Gap: 5},
		Loss:      Loss{Chance: Chance{Probability: 0.02, Correlation: 0.25}},
		Duplicate: Chance{Probability: 0.001, Correlation: 0.1},
		Corrupt:   Chance{Probability: 0.002, Correlation: 0.1},
		Down:      true,
		Queue:     Queue{Packets: 100, Discipline: CoDel, ECN: true, Target: 4 * time.Millisecond, Interval: 80 * time.Millisecond},
	}
}

func TestShapeDrift(t *testing.T) {
	tests := []struct {
		name       string
		change     func(*Shape)
		resolution Resolution
		want       []string
	}{
		{name: "nothing", change: func(*Shape) {}},
		{name: "rate", change: func(s *Shape) { s.Rate += 8 }, want: []string{"rate: 10000000 bit/s was asked, 10000008 bit/s is in force"}},
		{name: "rate within the resolution", change: func(s *Shape) { s.Rate += 7 }, resolution: Resolution{Rate: 7}},
		{name: "rate beyond the resolution", change: func(s *Shape) { s.Rate -= 8 }, resolution: Resolution{Rate: 7}, want: []string{"rate: 10000000 bit/s was asked, 9999992 bit/s is in force"}},
		{name: "no rate, however coarse", change: func(s *Shape) { s.Rate = 0 }, resolution: Resolution{Rate: 1e12}, want: []string{"rate: 10000000 bit/s was asked, unlimited is in force"}},
		{name: "overhead", change: func(s *Shape) { s.Overhead = Overhead{} }, want: []string{
			"overhead in bytes: 24 was asked, 0 is in force", "least cost of a packet in bytes: 84 was asked, 0 is in force", "ATM cells: true was asked, false is in force",
		}},
		{name: "burst", change: func(s *Shape) { s.Burst-- }, want: []string{"burst in bytes: 3000 was asked, 2999 is in force"}},
		{name: "burst within the resolution", change: func(s *Shape) { s.Burst -= 9 }, resolution: Resolution{Bytes: 9}},
		{name: "delay", change: func(s *Shape) { s.Delay++ }, want: []string{"delay: 20ms was asked, 20.000001ms is in force"}},
		{name: "delay within the resolution", change: func(s *Shape) { s.Delay-- }, resolution: Resolution{Time: 1}},
		{name: "jitter", change: func(s *Shape) { s.Jitter = Jitter{} }, want: []string{
			"jitter: 1ms was asked, 0s is in force", "distribution of jitter: table was asked, uniform is in force",
			"correlation of jitter: 0.25 was asked, 0 is in force", "reordering by jitter: true was asked, false is in force",
		}},
		{name: "quantiles", change: func(s *Shape) { s.Jitter.Quantiles = []float64{-1, 0.125, 2} }, want: []string{"quantile 2 of jitter: 0 was asked, 0.125 is in force"}},
		{name: "quantiles within the resolution", change: func(s *Shape) { s.Jitter.Quantiles = []float64{-1, 0.125, 2} }, resolution: Resolution{Deviation: 0.125}},
		{name: "fewer quantiles", change: func(s *Shape) { s.Jitter.Quantiles = []float64{-1, 2} }, want: []string{"quantiles of jitter: 3 was asked, 2 is in force"}},
		{name: "reorder", change: func(s *Shape) { s.Reorder = Reorder{} }, want: []string{
			"reorder probability: 0.01 was asked, 0 is in force", "reorder correlation: 0.5 was asked, 0 is in force", "reorder gap: 5 was asked, 1 is in force",
		}},
		{name: "loss", change: func(s *Shape) { s.Loss.Probability = 0.03 }, want: []string{"loss probability: 0.02 was asked, 0.03 is in force"}},
		{name: "loss within the resolution", change: func(s *Shape) { s.Loss.Probability = 0.0200001 }, resolution: Resolution{Probability: 1e-6}},
		{name: "no loss, however coarse", change: func(s *Shape) { s.Loss = Loss{} }, resolution: Resolution{Probability: 1}, want: []string{
			"loss probability: 0.02 was asked, 0 is in force", "loss correlation: 0.25 was asked, 0 is in force",
		}},
		{name: "duplicate", change: func(s *Shape) { s.Duplicate.Probability = 0.5 }, want: []string{"duplicate probability: 0.001 was asked, 0.5 is in force"}},
		{name: "corrupt", change: func(s *Shape) { s.Corrupt.Correlation = 0.5 }, want: []string{"corrupt correlation: 0.1 was asked, 0.5 is in force"}},
		{name: "down", change: func(s *Shape) { s.Down = false }, want: []string{"down: true was asked, false is in force"}},
		{name: "queue's unit", change: func(s *Shape) { s.Queue.Packets, s.Queue.Bytes = 0, 1000 }, want: []string{
			"queue in packets: 100 was asked, 0 is in force", "queue: 0 bytes was asked, 1000 bytes is in force",
		}},
		{name: "discipline", change: func(s *Shape) { s.Queue = Queue{Packets: 100} }, want: []string{"queue discipline: codel was asked, fifo is in force"}},
		{name: "codel", change: func(s *Shape) { s.Queue = Queue{Packets: 100, Discipline: CoDel} }, want: []string{
			"marking: true was asked, false is in force", "target: 4ms was asked, 5ms is in force", "interval: 80ms was asked, 100ms is in force",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			applied := rich()
			test.change(&applied)
			if diff := cmp.Diff(test.want, rich().Drift(applied, test.resolution)); diff != "" {
				t.Errorf("drift (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShapeDriftOfLossPatterns(t *testing.T) {
	patterns := []Loss{
		{},
		RandomLoss(0.1),
		{GilbertElliott: &GilbertElliott{0.1, 0.2, 1, 0}},
		{FourState: &FourState{0.1, 0.2, 0.3, 0.4, 0.5}},
		{Packets: []uint64{3, 5}},
		{Every: 10},
	}
	for i, asked := range patterns {
		for j, applied := range patterns {
			got := (Shape{Loss: asked}).Drift(Shape{Loss: applied}, Resolution{})
			if (len(got) > 0) != (i != j) {
				t.Errorf("%+v was asked, %+v is in force: %q", asked, applied, got)
			}
		}
	}
	// Each number of a pattern counts.
	asked := GilbertElliott{0.1, 0.2, 0.9, 0.05}
	for i := range reflect.TypeFor[GilbertElliott]().NumField() {
		applied := asked
		reflect.ValueOf(&applied).Elem().Field(i).SetFloat(0.5)
		if got := (Shape{Loss: Loss{GilbertElliott: &asked}}).Drift(Shape{Loss: Loss{GilbertElliott: &applied}}, Resolution{}); len(got) != 1 {
			t.Errorf("%+v was asked, %+v is in force: %q", asked, applied, got)
		}
	}
	four := FourState{0.1, 0.2, 0.3, 0.4, 0.05}
	for i := range reflect.TypeFor[FourState]().NumField() {
		applied := four
		reflect.ValueOf(&applied).Elem().Field(i).SetFloat(0.5)
		if got := (Shape{Loss: Loss{FourState: &four}}).Drift(Shape{Loss: Loss{FourState: &applied}}, Resolution{}); len(got) != 1 {
			t.Errorf("%+v was asked, %+v is in force: %q", four, applied, got)
		}
	}
	long := Loss{Packets: []uint64{1, 2, 3, 4, 5, 6, 7}}
	want := []string{"lost packets: [1 2 3 4 5] and 2 more was asked, [] is in force"}
	if diff := cmp.Diff(want, (Shape{Loss: long}).Drift(Shape{}, Resolution{})); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
}

// A time is as good as its bytes, and a default as its value.
func TestShapeDriftTakesEqualsForEqual(t *testing.T) {
	tests := []struct{ asked, applied Queue }{
		{Queue{Time: 10 * time.Millisecond}, Queue{Bytes: 12500}},
		{Queue{Packets: 1, Discipline: CoDel}, Queue{Packets: 1, Discipline: CoDel, Target: 5 * time.Millisecond, Interval: 100 * time.Millisecond}},
		{Queue{Packets: 1, Discipline: PIE}, Queue{Packets: 1, Discipline: PIE, Target: 15 * time.Millisecond}},
		{Queue{Packets: 1, Discipline: CAKE}, Queue{Packets: 1, Discipline: CAKE, Interval: 100 * time.Millisecond}},
		{Queue{Bytes: 12000, Discipline: RED}, Queue{Bytes: 12000, Discipline: RED, RED: REDThresholds{1000, 3000, 0.02}}},
	}
	for _, test := range tests {
		if got := (Shape{Rate: 10e6, Queue: test.asked}).Drift(Shape{Rate: 10e6, Queue: test.applied}, Resolution{}); got != nil {
			t.Errorf("%+v was asked, %+v is in force: %q", test.asked, test.applied, got)
		}
	}
	red := Queue{Bytes: 12000, Discipline: RED, RED: REDThresholds{1000, 3000, 0.1}}
	got := (Shape{Rate: 10e6, Queue: red}).Drift(Shape{Rate: 10e6, Queue: Queue{Bytes: 12000, Discipline: RED, RED: REDThresholds{1001, 3001, 0.2}}}, Resolution{})
	if len(got) != 3 {
		t.Errorf("three thresholds differ: %q", got)
	}
	if got := (Shape{Rate: 10e6, Queue: Queue{Time: 10 * time.Millisecond}}).Drift(Shape{Rate: 10e6, Queue: Queue{Bytes: 12501}}, Resolution{}); len(got) != 1 || got[0] != "queue: 10ms (12500 bytes) was asked, 12501 bytes is in force" {
		t.Errorf("a byte differs: %q", got)
	}
}

func TestDirectionDrift(t *testing.T) {
	web := Path{Name: "web", Match: Match{Protocol: TCP, Port: 80}, Shape: Shape{Delay: time.Millisecond}}
	net := Path{Name: "net", Match: Match{Destination: netip.MustParsePrefix("10.1.0.0/16")}, Shape: Shape{Delay: 2 * time.Millisecond}}
	trace := &Trace{Opportunities: []time.Duration{1, 2, 3}}
	asked := Direction{Paths: []Path{web, net}, Trace: trace, Seed: 1, Schedule: Schedule{Steps: []Step{{At: 1}}}}
	other, moved := web, net
	other.Match.Port = 443
	moved.Shape.Delay++
	tests := []struct {
		name    string
		applied Direction
		want    map[string][]string
	}{
		{"nothing; seed and schedule do not count", Direction{Paths: []Path{web, net}, Trace: &Trace{Opportunities: []time.Duration{1, 2, 3}, Bytes: 1514}}, map[string][]string{}},
		{"a path's match and another's shape", Direction{Paths: []Path{other, moved}, Trace: trace}, map[string][]string{
			"web": {"match: tcp port 80 was asked, tcp port 443 is in force"}, "net": {"delay: 2ms was asked, 2.000001ms is in force"},
		}},
		{"paths in another order", Direction{Paths: []Path{net, web}, Trace: trace}, map[string][]string{
			"web": {"place among the paths: 1 was asked, 2 is in force"}, "net": {"place among the paths: 2 was asked, 1 is in force"},
		}},
		{"one is not there, another is", Direction{Paths: []Path{web, {Name: "x"}}, Trace: trace}, map[string][]string{
			"net": {"the path was asked for and is not in force"}, "": {"a path x is in force and was not asked for"},
		}},
		{"no trace", Direction{Paths: []Path{web, net}}, map[string][]string{"": {"trace: one was asked, none is in force"}}},
		{"another trace", Direction{Paths: []Path{web, net}, Trace: &Trace{Opportunities: []time.Duration{1, 5, 6}, Bytes: 1, Once: true}}, map[string][]string{"": {
			"bytes of an opportunity of the trace: 1514 was asked, 1 is in force", "trace followed once: false was asked, true is in force",
			"opportunity 2 of the trace: 2ns was asked, 5ns is in force",
		}}},
		{"a longer trace", Direction{Paths: []Path{web, net}, Trace: &Trace{Opportunities: []time.Duration{1, 2, 3, 4}}}, map[string][]string{"": {
			"opportunities of the trace: 3 was asked, 4 is in force",
		}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, asked.Drift(test.applied, Resolution{})); diff != "" {
				t.Errorf("drift (-want +got):\n%s", diff)
			}
		})
	}
	if got := (Match{Destination: netip.MustParsePrefix("fd00::/8")}).String() + (Match{}).String(); got != "to fd00::/8anything" {
		t.Errorf("matches say %q", got)
	}
}

// No field of a shape can differ unseen: each one set alone is drift.
func TestShapeDriftSeesEveryField(t *testing.T) {
	full := rich()
	full.Queue.RED = REDThresholds{MinBytes: 1}
	var walk func(path string, set func(*Shape) reflect.Value)
	walk = func(path string, set func(*Shape) reflect.Value) {
		var probe Shape
		switch kind := set(&probe); kind.Kind() {
		case reflect.Struct:
			for i := range kind.NumField() {
				walk(path+"."+kind.Type().Field(i).Name, func(s *Shape) reflect.Value { return set(s).Field(i) })
			}
		default:
			var asked, applied Shape
			value := set(&applied)
			switch path {
			case ".Queue.Target", ".Queue.Interval", ".Queue.RED.MinBytes", ".Queue.RED.MaxBytes", ".Queue.RED.Probability", ".Queue.Time":
				return // of a discipline or a rate, see above
			case ".Jitter.Quantiles":
				value.Set(reflect.ValueOf([]float64{1, 2}))
			case ".Loss.GilbertElliott":
				value.Set(reflect.ValueOf(&GilbertElliott{}))
			case ".Loss.FourState":
				value.Set(reflect.ValueOf(&FourState{}))
			case ".Loss.Packets":
				value.Set(reflect.ValueOf([]uint64{1}))
			default:
				switch value.Kind() {
				case reflect.Bool:
					value.SetBool(true)
				case reflect.String:
					value.SetString("other")
				case reflect.Float64:
					value.SetFloat(0.5)
				case reflect.Uint64:
					value.SetUint(5)
				default:
					value.SetInt(5)
				}
			}
			if len(asked.Drift(applied, Resolution{})) == 0 {
				t.Errorf("%s differs and nobody says so", path)
			}
		}
	}
	walk("", func(s *Shape) reflect.Value { return reflect.ValueOf(s).Elem() })
}
