package latency

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestSummary(t *testing.T) {
	ms := func(n float64) *durationpb.Duration {
		return durationpb.New(time.Duration(n * float64(time.Millisecond)))
	}
	for name, test := range map[string]struct {
		ms   []float64
		want *tcplabv1.LatencySummary
	}{
		"none":  {nil, &tcplabv1.LatencySummary{Min: ms(0), Mean: ms(0), P50: ms(0), P90: ms(0), P99: ms(0), Max: ms(0)}},
		"one":   {[]float64{7}, &tcplabv1.LatencySummary{Count: 1, Min: ms(7), Mean: ms(7), P50: ms(7), P90: ms(7), P99: ms(7), Max: ms(7)}},
		"two":   {[]float64{3, 1}, &tcplabv1.LatencySummary{Count: 2, Min: ms(1), Mean: ms(2), P50: ms(1), P90: ms(3), P99: ms(3), Max: ms(3)}},
		"three": {[]float64{9, 1, 2}, &tcplabv1.LatencySummary{Count: 3, Min: ms(1), Mean: ms(4), P50: ms(2), P90: ms(9), P99: ms(9), Max: ms(9)}},
		"below a microsecond": {[]float64{0.0001, 0.0003}, &tcplabv1.LatencySummary{
			Count: 2, Min: ms(0.0001), Mean: ms(0.0002), P50: ms(0.0001), P90: ms(0.0003), P99: ms(0.0003), Max: ms(0.0003),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Set
			for _, d := range test.ms {
				l.Add(ms(d).AsDuration())
			}
			if diff := cmp.Diff(test.want, l.Summary(), protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Beyond exactLimit percentiles come from the histogram, with three digits.
func TestSummaryOfMany(t *testing.T) {
	const count = exactLimit + 100_000
	var l Set
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(count) {
		l.Add(time.Duration(i+1) * time.Microsecond)
	}
	s := l.Summary()
	if s.GetCount() != count || s.GetMin().AsDuration() != time.Microsecond || s.GetMax().AsDuration() != count*time.Microsecond ||
		s.GetMean().AsDuration() != (count+1)*time.Microsecond/2 {
		t.Errorf("what is exact: %v", s)
	}
	for _, p := range []struct {
		got  *durationpb.Duration
		want time.Duration
	}{{s.GetP50(), count / 2 * time.Microsecond}, {s.GetP90(), count / 10 * 9 * time.Microsecond}, {s.GetP99(), count / 100 * 99 * time.Microsecond}} {
		if off := (p.got.AsDuration() - p.want).Abs(); off > p.want/1000 {
			t.Errorf("%s, not %s", p.got.AsDuration(), p.want)
		}
	}
}

// Sets that are merged are as one that took everything, before and beyond exactLimit.
func TestMerge(t *testing.T) {
	for name, sizes := range map[string][]int{
		"nothing": {0, 0}, "into nothing": {0, 7}, "nothing more": {7, 0}, "few": {5, 3, 9},
		"just exact": {exactLimit / 2, exactLimit / 2}, "too many": {exactLimit/2 + 1, exactLimit / 2},
		"many and few": {exactLimit + 10, 3}, "few and many": {3, exactLimit + 10}, "many": {exactLimit + 1, exactLimit + 2},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			var merged, whole Set
			for _, n := range sizes {
				var part Set
				for range n {
					d := time.Duration(random.IntN(5_000_000)) * time.Microsecond / 100
					part.Add(d)
					whole.Add(d)
				}
				merged.Merge(&part)
			}
			if diff := cmp.Diff(whole.Summary(), merged.Summary(), protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
