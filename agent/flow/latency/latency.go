// Package latency collects durations in bounded memory and describes them.
package latency

import (
	"encoding/base64"
	"errors"
	"fmt"
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

// Set collects durations in bounded memory. Count, least, greatest and
// mean are always exact. The zero value is empty.
type Set struct {
	exact     []time.Duration // while histogram is nil
	histogram *hdrhistogram.Histogram
	count     uint32
	min, max  time.Duration
	sum       float64 // ns: 10^7 times an hour does not fit an int64
}

// Add takes a duration in.
func (l *Set) Add(d time.Duration) {
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
	l.toHistogram()
	l.record(d)
}

// Histogram is the set as it can be added to others', named by what was measured and by which end. It has no more than
// three significant digits of each duration.
func (l *Set) Histogram(name, end string) *tcplabv1.LatencyHistogram {
	h := l.histogram
	if h == nil {
		whole := Set{}
		whole.toHistogram()
		h = whole.histogram
		for _, d := range l.exact {
			whole.record(d)
		}
	}
	message := &tcplabv1.LatencyHistogram{Name: name, End: end, Count: uint64(l.count)}
	// The library writes base64. Neither step fails of a histogram that it made.
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err == nil {
		message.Hdr, err = base64.StdEncoding.DecodeString(string(text))
	}
	if err != nil {
		message.Hdr = nil
	}
	return message
}

// toHistogram has what was kept as it is counted in a histogram from now on.
func (l *Set) toHistogram() {
	if l.histogram != nil {
		return
	}
	l.histogram = hdrhistogram.New(int64(time.Microsecond), int64(longestLatency), 3)
	for _, d := range l.exact {
		l.record(d)
	}
	l.exact = nil
}

func (l *Set) record(d time.Duration) {
	// Within the histogram's range there is no error.
	_ = l.histogram.RecordValue(int64(min(d, longestLatency)))
}

// Count is how many were added.
func (l *Set) Count() uint32 { return l.count }

// Merge adds all that another set has.
func (l *Set) Merge(other *Set) {
	if other.count == 0 {
		return
	}
	if l.count == 0 || other.min < l.min {
		l.min = other.min
	}
	l.max = max(l.max, other.max)
	l.sum += other.sum
	l.count += other.count
	if l.histogram == nil && other.histogram == nil && len(l.exact)+len(other.exact) <= exactLimit {
		l.exact = append(l.exact, other.exact...)
		return
	}
	l.toHistogram()
	if other.histogram != nil {
		// Both have the same range: nothing is dropped.
		l.histogram.Merge(other.histogram)
		return
	}
	for _, d := range other.exact {
		l.record(d)
	}
}

// ErrNotKept says that of some durations only a summary is left, which cannot be added to others.
var ErrNotKept = errors.New("the durations were not kept")

// AddSummarised adds the durations of a summary, by the histogram that was made of them where there are
// several. Without one it is ErrNotKept.
func (l *Set) AddSummarised(s *tcplabv1.LatencySummary, h *tcplabv1.LatencyHistogram) error {
	switch {
	case s.GetCount() == 0:
		return nil
	case s.GetCount() == 1:
		l.Add(s.GetMin().AsDuration())
		return nil
	case len(h.GetHdr()) == 0:
		return ErrNotKept
	}
	histogram, err := hdrhistogram.Decode([]byte(base64.StdEncoding.EncodeToString(h.GetHdr())))
	if err != nil {
		return fmt.Errorf("read the histogram %s: %w", h.GetName(), err)
	}
	l.Merge(&Set{
		histogram: histogram, count: s.GetCount(), min: s.GetMin().AsDuration(), max: s.GetMax().AsDuration(),
		sum: float64(s.GetMean().AsDuration()) * float64(s.GetCount()),
	})
	return nil
}

// Summary describes what was collected. A percentile is the least duration
// that so many per cent do not exceed (nearest rank).
func (l *Set) Summary() *tcplabv1.LatencySummary {
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
