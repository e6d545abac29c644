package cli

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

func TestQuantity(t *testing.T) {
	for _, test := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "s", "0 s"},
		{0.0841, "s", "84.1 ms"},
		{1, "s", "1 s"},
		{60, "s", "60 s"},
		{-0.0021, "s", "-2.1 ms"},
		{1e-3, "s", "1 ms"},
		{20e-3, "s", "20 ms"},
		{1.5e-9, "s", "1.5 ns"},
		{1e-12, "s", "0.001 ns"},
		// Four digits are rounded before a prefix is chosen.
		{0.99994, "s", "999.9 ms"},
		{0.99995, "s", "1 s"},
		{0.999951, "s", "1 s"},
		{0.00099996, "s", "1 ms"},
		{9.9996e-7, "s", "1 µs"},
		{999960, "bit/s", "1 Mbit/s"},
		{999940, "bit/s", "999.9 kbit/s"},
		{9.9996, "s", "10 s"},
		{0.0999951, "s", "100 ms"},
		{100e6, "bit/s", "100 Mbit/s"},
		{2.9183e9, "bit/s", "2.918 Gbit/s"},
		{0, "bit/s", "0 bit/s"},
		{12, "bit/s", "12 bit/s"},
		{65536, "B", "65.54 kB"},
		{1e9, "B", "1 GB"},
		{0.5, "%", "0.5 %"},
		{0, "%", "0 %"},
		{0.4993, "", "0.4993"},
		{40, "", "40"},
		{123456, "", "123456"},
		{12345.6, "", "12346"},
		{3, "packets", "3 packets"},
		{math.NaN(), "s", "NaN"},
		{math.Inf(1), "s", "+Inf"},
	} {
		if got := quantity(test.v, test.unit); got != test.want {
			t.Errorf("quantity(%v, %q) = %q, want %q", test.v, test.unit, got, test.want)
		}
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                        "under 1 s",
		999 * time.Millisecond:   "under 1 s",
		time.Second:              "about 1 s",
		3600 * time.Millisecond:  "about 4 s",
		89 * time.Second:         "about 89 s",
		89500 * time.Millisecond: "about 90 s",
		90 * time.Second:         "about 2 min",
		89 * time.Minute:         "about 89 min",
		90 * time.Minute:         "about 1.5 h",
	} {
		if got := about(d); got != want {
			t.Errorf("about(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestPoints(t *testing.T) {
	point := func(values map[string]any) map[string]*structpb.Value {
		s, err := structpb.NewStruct(values)
		if err != nil {
			t.Fatal(err)
		}
		return s.GetFields()
	}
	a := point(map[string]any{"rtt": "20ms", "count": 25, "no_delay": false})
	b := point(map[string]any{"rtt": "20ms", "count": 25, "no_delay": true})
	if got, want := pointText(a), "count=25 no_delay=false rtt=20ms"; got != want {
		t.Errorf("the point is %q, want %q", got, want)
	}
	if got := pointText(nil); got != "" {
		t.Errorf("no parameters are %q", got)
	}
	points := []map[string]*structpb.Value{a, b}
	if got := varying(paramNames(points), points); len(got) != 1 || got[0] != "no_delay" {
		t.Errorf("%v vary, want no_delay", got)
	}
	if got, want := pointText(without(b, []string{"count", "rtt"})), "no_delay=true"; got != want || len(b) != 3 {
		t.Errorf("the rest is %q of %v, want %q", got, b, want)
	}
}
