package wire

import (
	"testing"
	"time"
)

func TestLatenessQuantilesAreAnEighthOffAtMost(t *testing.T) {
	for _, scale := range []time.Duration{1, 13, time.Microsecond, time.Millisecond, time.Second} {
		var late Lateness
		for i := 1; i <= 1000; i++ {
			late.add(time.Duration(i) * scale)
		}
		for _, q := range []float64{0.5, 0.9, 0.99, 1} {
			exact := time.Duration(q*1000) * scale
			// The rank is the first above the share: one step more is as right.
			if got := late.Quantile(q); got < exact || got > (exact+scale)*9/8 {
				t.Errorf("of 1..1000 × %v the quantile %v is %v", scale, q, got)
			}
		}
		if late.Max() != 1000*scale || late.Count() != 1000 {
			t.Errorf("max %v, count %d", late.Max(), late.Count())
		}
	}
}

func TestLatenessOfNothingAndOfTheEarly(t *testing.T) {
	var late Lateness
	if late.Quantile(0.5) != 0 {
		t.Error("no frames have a lateness")
	}
	late.add(-time.Second)
	late.add(1000 * time.Hour)
	if late.Quantile(0) != 0 || late.Max() != 1000*time.Hour {
		t.Errorf("least %v, most %v", late.Quantile(0), late.Max())
	}
}

func TestLateBucketsHoldWhatTheySay(t *testing.T) {
	for bucket := range lateBuckets - 1 {
		upper := uint64(lateUpper(bucket))
		if lateBucket(upper) != bucket || lateBucket(upper+1) != bucket+1 {
			t.Fatalf("bucket %d ends at %d, which is counted into %d and the next into %d",
				bucket, upper, lateBucket(upper), lateBucket(upper+1))
		}
	}
}
