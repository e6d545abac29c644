package flow

import (
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	// exactLimit is how many durations are kept as they are: 800 KB. From there
	// on percentiles come from a histogram with three significant digits.
	exactLimit = 100_000

	longestLatency = time.Hour
)

// latencies collects durations in bounded memory. Count, least, greatest and
// mean are always exact. The zero value is empty.
type latencies struct {
	exact     []time.Duration // while histogram is nil
	histogram *hdrhistogram.Histogram
	count     uint32
	min, max  time.Duration
	sum       float64 // ns: 10^7 times an hour does not fit an int64
}

func (l *latencies) add(d time.Duration) {
	if l.count == 0 || d < l.min {
		l.min = d
	}
	l.max = max(l.max, d)
	l.sum += float64(d)
	l.count++
	if l.histogram == nil && len(l.exact) < exactLimit {
		l.exact = append(l.exact, d)
		return
	}
	if l.histogram == nil {
		l.histogram = hdrhistogram.New(int64(time.Microsecond), int64(longestLatency), 3)
		for _, d := range l.exact {
			l.record(d)
		}
		l.exact = nil
	}
	l.record(d)
}

func (l *latencies) record(d time.Duration) {
	// Within the histogram's range there is no error.
	_ = l.histogram.RecordValue(int64(min(d, longestLatency)))
}

// summary describes what was collected. A percentile is the least duration
// that so many per cent do not exceed (nearest rank).
func (l *latencies) summary() *tcplabv1.LatencySummary {
	s := &tcplabv1.LatencySummary{Count: l.count}
	var mean time.Duration
	percentile := func(float64) time.Duration { return 0 }
	if l.count > 0 {
		mean = time.Duration(math.Round(l.sum / float64(l.count)))
		sorted := slices.Sorted(slices.Values(l.exact))
		percentile = func(q float64) time.Duration {
			if l.histogram != nil {
				return min(max(time.Duration(l.histogram.ValueAtQuantile(q)), l.min), l.max)
			}
			return sorted[int(math.Ceil(q/100*float64(len(sorted))))-1]
		}
	}
	s.Min = durationpb.New(l.min)
	s.Mean = durationpb.New(mean)
	s.P50 = durationpb.New(percentile(50))
	s.P90 = durationpb.New(percentile(90))
	s.P99 = durationpb.New(percentile(99))
	s.Max = durationpb.New(l.max)
	return s
}
