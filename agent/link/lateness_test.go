package link

import (
	"slices"
	"testing"
	"time"
)

func TestLatenessQuantilesAreAnEighthOffAtMost(t *testing.T) {
	for _, scale := range []time.Duration{1, 13, time.Microsecond, time.Millisecond, time.Second} {
		var late Lateness
		for i := 1; i <= 1000; i++ {
			late.Add(time.Duration(i) * scale)
		}
		for _, q := range []float64{0.5, 0.9, 0.99, 1} {
			exact := time.Duration(q*1000) * scale
			// The rank is the first above the share: one step more is as right.
			if got := late.Quantile(q); got < exact || got > (exact+scale)*9/8 {
				t.Errorf("of 1..1000 × %v the quantile %v is %v", scale, q, got)
			}
		}
		if late.Max() != 1000*scale || late.Min() != scale || late.Count() != 1000 || late.Mean() != 1001*scale/2 {
			t.Errorf("max %v, min %v, mean %v, count %d", late.Max(), late.Min(), late.Mean(), late.Count())
		}
	}
}

func TestLatenessOfNothingAndOfTheEarly(t *testing.T) {
	var late Lateness
	if late.Quantile(0.5) != 0 || late.Mean() != 0 {
		t.Error("no frames have a lateness")
	}
	late.Add(-time.Second)
	late.Add(1000 * time.Hour)
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

func TestLatenessMerges(t *testing.T) {
	var all, odd, even, none Lateness
	for i := range 10_000 {
		late := time.Duration(i*i) + 7
		all.Add(late)
		if i%2 == 0 {
			even.Add(late)
		} else {
			odd.Add(late)
		}
	}
	odd.Merge(&none)
	odd.Merge(&even)
	none.Merge(&odd)
	if odd != all || none != all {
		t.Errorf("merged it is %v, %v, %v of %d", odd.Min(), odd.Mean(), odd.Max(), odd.Count())
	}
}

func TestLatenessBuckets(t *testing.T) {
	var late Lateness
	for _, ns := range []time.Duration{3, 3, 100, 1 << 50} {
		late.Add(ns)
	}
	var uppers []time.Duration
	var counts []uint64
	for upper, n := range late.Buckets() {
		uppers, counts = append(uppers, upper), append(counts, n)
	}
	if !slices.Equal(uppers, []time.Duration{3, 103, 1 << 50}) || !slices.Equal(counts, []uint64{2, 1, 1}) {
		t.Errorf("the buckets end at %v and hold %v", uppers, counts)
	}
	for upper := range late.Buckets() {
		if upper != 3 {
			t.Error("it goes on after it was stopped")
		}
		break
	}
}
