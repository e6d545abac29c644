package observe

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// kept is a Sink that hands on what it gets.
type kept chan Sample

func (k kept) Add(s *Sample) { k <- *s }

// sampler is one that ends with the test.
func sampler(t testing.TB) *Sampler {
	t.Helper()
	s, err := NewSampler()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestWatchSamplesUntilItIsStopped(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	var reads uint32
	sink := make(kept, 1000)
	w := sampler(t).Watch(Watched{Flow: "f", End: "client", Interval: time.Millisecond, Sink: sink, Read: func() (Info, error) {
		reads++
		return Info{State: 1, SndCwnd: reads / 2, SndSsthresh: 7}, nil
	}})
	for range 5 {
		if s := <-sink; s.Flow != "f" || s.End != "client" || s.Time.IsZero() {
			t.Errorf("sample %+v", s)
		}
	}
	series := w.Stop()
	if series.Count != uint64(reads) || series.Count < 6 || series.Last.SndCwnd != reads/2 {
		t.Errorf("%d reads: %+v", reads, series)
	}
	for i, window := range series.Windows {
		if window.Segments != uint32(i) || window.Threshold != 7 {
			t.Errorf("change %d: %+v", i, window)
		}
	}
	if diff := cmp.Diff(series, w.Stop()); diff != "" {
		t.Errorf("stopped again: %s", diff)
	}
}

func TestWatchEndsWithItsSocket(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	ended := make(chan struct{})
	reads := 0
	w := sampler(t).Watch(Watched{Interval: time.Millisecond, Read: func() (Info, error) {
		if reads++; reads < 3 {
			return Info{State: 1}, nil
		}
		if reads == 3 {
			close(ended)
		}
		return Info{}, errors.New("closed")
	}})
	<-ended
	if series := w.Stop(); series.Count != 2 || series.Last.State != 1 {
		t.Errorf("%+v", series)
	}
}

func TestSeriesIsBounded(t *testing.T) {
	var s Series
	start := time.Now()
	for i := range uint32(2 * MaxWindows) {
		s.add(start.Add(time.Duration(i)*time.Millisecond), &Info{SndCwnd: i, SndSsthresh: 1})
	}
	if s.Count != 2*MaxWindows || len(s.Windows) != MaxWindows || s.Last.SndCwnd != 2*MaxWindows-1 {
		t.Errorf("%d samples, %d changes, last %d", s.Count, len(s.Windows), s.Last.SndCwnd)
	}
	changes := s.Changes(start)
	last := changes[len(changes)-1]
	if last.GetAt().AsDuration() != (MaxWindows-1)*time.Millisecond || last.GetSndCwnd() != MaxWindows-1 || last.GetSndSsthresh() != 1 {
		t.Errorf("last change %v", last)
	}
}
