package unit

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseAndFormat(t *testing.T) {
	tests := []struct {
		text      string
		value     float64
		dimension Dimension
		format    string // where it differs from text
	}{
		{"20ms", 0.02, Duration, ""},
		{"0.07s", 0.07, Duration, "70ms"},
		{"1.5s", 1.5, Duration, ""},
		{"100us", 1e-4, Duration, ""},
		{"100µs", 1e-4, Duration, "100us"},
		{"100μs", 1e-4, Duration, "100us"},
		{"2min", 120, Duration, "2m"},
		{"2m", 120, Duration, ""},
		{"90s", 90, Duration, ""},
		{"1h", 3600, Duration, ""},
		{"0s", 0, Duration, ""},
		{"-5ms", -0.005, Duration, ""},
		{"10Mbit", 1e7, Rate, ""},
		{"10Mbit/s", 1e7, Rate, "10Mbit"},
		{"2.5Gbit", 2.5e9, Rate, ""},
		{"1bit", 1, Rate, ""},
		{"64KiB", 65536, Size, ""},
		{"100B", 100, Size, ""},
		{"1500B", 1500, Size, ""},
		{"1MB", 1e6, Size, ""},
		{"1000000B", 1e6, Size, "1MB"},
		{"1%", 0.01, Ratio, ""},
		{"0.1%", 0.001, Ratio, ""},
		{"40", 40, Scalar, ""},
		{"1e3", 1000, Scalar, "1000"},
		{"1e300", 1e300, Scalar, ""},
		{"1e-300%", 1e-302, Ratio, ""},
		{".5", 0.5, Scalar, "0.5"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			q, err := Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if want := (Quantity{tt.value, tt.dimension}); q != want {
				t.Fatalf("Parse = %v, want %v", q, want)
			}
			want := tt.format
			if want == "" {
				want = tt.text
			}
			if got := Format(q); got != want {
				t.Errorf("Format = %q, want %q", got, want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "is not a number with a unit"},
		{"ms", "is not a number with a unit"},
		{"NaN", "is not a finite number"},
		{"-Inf", "is not a finite number"},
		{".inf", "is not a finite number"},
		{"1e999", "is too large"},
		{"1e99999", "is not a number"},
		{"20 ms", "write 20ms"},
		{"20MS", "did you mean 20ms?"},
		{"10mbit", "did you mean 10Mbit?"},
		{"10Mbps", "for bit/s write 10Mbit"},
		{"10MB/s", "1MB/s is 8Mbit"},
		{"10bps", "for bit/s write 10bit"},
		{"64KB", "KiB is 1024 bytes"},
		{"5sec", "write 5s"},
		{"1m30s", "is not one number with one unit"},
		{"3parsec", "units are"},
		{"0x10", "is not one number with one unit"},
		{"1_000", "is not one number"},
		{strings.Repeat("9", 200), "is too long"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			q, err := Parse(tt.text)
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("Parse = %v, %v; want an *Error", q, err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"20ms", "64KiB", "1%", "40", "1e-9Gbit", "-0", "1e308h", "4.9e-324B", "0.30000000000000004s", "1m30s", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := Parse(s)
		if err != nil {
			return
		}
		if math.IsNaN(q.Value) || math.IsInf(q.Value, 0) {
			t.Fatalf("Parse(%q) = %v", s, q)
		}
		text := Format(q)
		back, err := Parse(text)
		if err != nil || back != q {
			t.Fatalf("Parse(%q) = %v; Format = %q; Parse of that = %v, %v", s, q, text, back, err)
		}
	})
}
