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
	client, server := loopback(t)
	file, err := client.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sink := make(kept, 10_000)
	w := NewWatch(Watched{Flow: "f", End: "client", Interval: time.Millisecond, Sink: sink, FD: int(file.Fd()), Sampler: sampler(t)})
	if s := <-sink; s.Flow != "f" || s.End != "client" || s.Time.IsZero() || s.Info.State != StateEstablished || s.Info.BytesReceived != 0 {
		t.Errorf("the first sample is %+v", s)
	}
	if _, err := server.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	for s := range sink {
		if s.Info.BytesReceived == 1000 {
			break
		}
	}
	series := w.Stop()
	if series.Count < 3 || series.Last.BytesReceived != 1000 || len(series.Windows) == 0 || series.Windows[0].Segments == 0 {
		t.Errorf("%+v", series)
	}
	if diff := cmp.Diff(series, w.Stop()); diff != "" {
		t.Errorf("stopped again: %s", diff)
	}
}

// The last sample is its owner's to give, as of a connection that was interrupted.
func TestWatchOfAnInterruptedSocket(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	fd := connected(t)
	w := NewWatch(Watched{Interval: time.Hour, FD: fd, Last: func() (Info, error) { return Info{State: 7}, nil }})
	if series := w.Stop(); series.Count != 2 || series.Last.State != 7 {
		t.Errorf("%+v", series)
	}
	w = NewWatch(Watched{Interval: time.Hour, FD: fd, Last: func() (Info, error) { return Info{}, errors.New("closed") }})
	if series := w.Stop(); series.Count != 1 || series.Last.State != StateEstablished {
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
