package latency

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms of several sets add up to that of all, whether a set kept its durations exactly or not.
func TestHistogramsAddUp(t *testing.T) {
	var few, many, all Set
	for i := range exactLimit + 1000 {
		d := time.Duration(i) * time.Microsecond
		if i < 1000 {
			few.Add(d)
		} else {
			many.Add(d)
		}
		all.Add(d)
	}
	decode := func(s *Set) *hdrhistogram.Histogram {
		message := s.Histogram("latency", "client")
		h, err := hdrhistogram.Decode([]byte(base64.StdEncoding.EncodeToString(message.GetHdr())))
		if err != nil {
			t.Fatal(err)
		}
		if message.GetName() != "latency" || message.GetEnd() != "client" || message.GetCount() != uint64(s.Count()) || h.TotalCount() != int64(s.Count()) {
			t.Errorf("%d durations: %v of %d", s.Count(), message.GetCount(), h.TotalCount())
		}
		return h
	}
	sum, whole := decode(&few), decode(&all)
	if dropped := sum.Merge(decode(&many)); dropped != 0 {
		t.Errorf("%d were dropped", dropped)
	}
	if !sum.Equals(whole) {
		t.Errorf("the sum has %d with a p99 of %d, the whole %d with %d", sum.TotalCount(), sum.ValueAtQuantile(99), whole.TotalCount(), whole.ValueAtQuantile(99))
	}
	if few.histogram != nil || few.Summary().GetCount() != 1000 {
		t.Error("the set is another for having been told")
	}
	decode(&Set{})
}
