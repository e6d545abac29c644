package topology

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// full are shapes that together set every field.
func full() []link.Shape {
	plain := link.Shape{
		Rate: 1e7, Overhead: link.Overhead{Bytes: -4, MinBytes: 84, ATM: true}, Burst: 3000, Delay: 20 * time.Millisecond,
		Jitter: link.Jitter{
			Amount: time.Millisecond, Distribution: link.Table, Correlation: 0.25, Quantiles: []float64{-1, 0, 3}, Reorder: true,
		},
		Reorder:   link.Reorder{Chance: link.Chance{Probability: 0.25, Correlation: 0.5}, Gap: 5},
		Loss:      link.Loss{Chance: link.Chance{Probability: 0.01, Correlation: 0.5}},
		Duplicate: link.Chance{Probability: 0.02, Correlation: 0.1},
		Corrupt:   link.Chance{Probability: 0.03, Correlation: 0.2},
		Down:      true,
		Queue:     link.Queue{Bytes: 1 << 16, Discipline: link.RED, ECN: true, RED: link.REDThresholds{MinBytes: 3000, MaxBytes: 9000, Probability: 0.1}},
	}
	other := func(change func(*link.Shape)) link.Shape {
		s := plain
		change(&s)
		return s
	}
	return []link.Shape{
		plain,
		other(func(s *link.Shape) {
			s.Loss = link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.01, ToGood: 0.3, BadLoss: 0.7, GoodLoss: 0.001}}
		}),
		other(func(s *link.Shape) {
			s.Loss = link.Loss{FourState: &link.FourState{P13: 0.01, P31: 0.2, P32: 0.3, P23: 0.4, P14: 0.05}}
		}),
		other(func(s *link.Shape) { s.Loss = link.Loss{Packets: []uint64{3, 5}} }),
		other(func(s *link.Shape) { s.Loss = link.Loss{Every: 7} }),
		other(func(s *link.Shape) {
			s.Queue = link.Queue{Time: time.Second, Discipline: link.CoDel, Target: 2 * time.Millisecond, Interval: 50 * time.Millisecond}
		}),
		other(func(s *link.Shape) { s.Queue = link.Queue{Packets: 9, Discipline: link.HeadDrop} }),
	}
}

func TestDirectionMessage(t *testing.T) {
	for _, d := range []link.Direction{
		{Shape: full()[0], Trace: &link.Trace{Opportunities: []time.Duration{0, time.Millisecond}, Bytes: 1514, Once: true}},
		{
			Paths: []link.Path{
				{Name: "web", Match: link.Match{Destination: netip.MustParsePrefix("10.0.0.0/8"), Protocol: link.TCP, Port: 80}, Shape: full()[1]},
				{Name: "pings", Match: link.Match{Protocol: link.ICMP}, Shape: full()[2]},
			},
			Schedule: link.Schedule{Period: time.Minute, Steps: []link.Step{
				{At: time.Second, Path: "web", Shape: full()[3], Ramp: time.Second}, {At: 2 * time.Second, Shape: full()[4]},
			}},
		},
	} {
		got, err := directionOf(DirectionMessage(d))
		if err != nil || !reflect.DeepEqual(d, got) {
			t.Errorf("%v\n%+v became\n%+v", err, d, got)
		}
	}
	for i, s := range full() {
		got, err := shapeOf(ShapeMessage(s))
		if err != nil || !got.Equal(s) {
			t.Errorf("%d: %v\n%+v became\n%+v", i, err, s, got)
		}
	}
}

// TestFullSetsEverything holds that no field of a shape is forgotten above.
func TestFullSetsEverything(t *testing.T) {
	var missing []string
	var walk func(path string, values []reflect.Value)
	walk = func(path string, values []reflect.Value) {
		var inside []reflect.Value
		for _, v := range values {
			if v.Kind() == reflect.Pointer && !v.IsNil() {
				v = v.Elem()
			}
			if !v.IsZero() {
				inside = append(inside, v)
			}
		}
		if len(inside) == 0 {
			missing = append(missing, path)
			return
		}
		if inside[0].Kind() == reflect.Struct {
			for i := range inside[0].NumField() {
				var fields []reflect.Value
				for _, v := range inside {
					fields = append(fields, v.Field(i))
				}
				walk(path+"."+inside[0].Type().Field(i).Name, fields)
			}
		}
	}
	var all []reflect.Value
	for _, s := range full() {
		all = append(all, reflect.ValueOf(s))
	}
	walk("Shape", all)
	if len(missing) > 0 {
		t.Errorf("no shape sets %s", strings.Join(missing, ", "))
	}
}
