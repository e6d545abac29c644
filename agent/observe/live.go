package observe

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Live is a [Sink] that shows what is sampled to whoever watches, at the watcher's pace: of each end it keeps the
// newest sample alone, and counts the others. While nobody watches it keeps nothing.
type Live struct {
	watched atomic.Int32 // watchers

	mu       sync.Mutex // guards what is below
	watchers []*watcher
	ended    bool
	end      chan struct{} // closed when there will be no more
}

// watcher is one that watches.
type watcher struct {
	newest map[source]*sighting
	order  []*sighting // with a sample that is not sent yet
	left   uint64      // samples that newer ones took the place of, or that found no room
}

// sighting is the newest sample of one end.
type sighting struct {
	Sample
	fresh bool
	sent  *Sample // the last that was sent; nil: none
}

// mostSightings bounds the ends that one watcher sees at a time.
const mostSightings = 1000

// NewLive shows to nobody yet.
func NewLive() *Live { return &Live{end: make(chan struct{})} }

// Add implements [Sink].
func (l *Live) Add(s *Sample) {
	if l.watched.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.watchers {
		w.add(s)
	}
}

func (w *watcher) add(s *Sample) {
	from := source{s.Flow, s.End}
	seen, ok := w.newest[from]
	switch {
	case !ok && len(w.newest) == mostSightings:
		w.left++
		return
	case !ok:
		seen = &sighting{}
		w.newest[from] = seen
	case seen.fresh:
		w.left++
	}
	seen.Sample = *s
	if !seen.fresh {
		seen.fresh = true
		w.order = append(w.order, seen)
	}
}

// End says that there will be no more samples: those who watch get what there is, and return. It may be called
// again.
func (l *Live) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.end)
	}
}

// Follow calls send with the newest samples from now on, each interval at most and when there are any, until End.
// It returns the error of send or ctx. A send that takes long leaves the more out.
func (l *Live) Follow(ctx context.Context, interval time.Duration, send func(*tcplabv1.LiveSamples) error) error {
	w := &watcher{newest: map[source]*sighting{}}
	l.mu.Lock()
	l.watchers = append(l.watchers, w)
	l.watched.Add(1)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.watched.Add(-1)
		l.watchers = slices.DeleteFunc(l.watchers, func(other *watcher) bool { return other == w })
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ticker.C:
		case <-l.end:
			ended = true
		case <-ctx.Done():
			return ctx.Err()
		}
		l.mu.Lock()
		news := w.take()
		l.mu.Unlock()
		if len(news.GetSamples()) == 0 {
			continue
		}
		if err := send(news); err != nil {
			return err
		}
	}
	return nil
}

// take is what is new since the last time.
func (w *watcher) take() *tcplabv1.LiveSamples {
	news := &tcplabv1.LiveSamples{LeftOut: w.left}
	for _, seen := range w.order {
		news.Samples = append(news.Samples, seen.proto())
		last := seen.Sample
		seen.fresh, seen.sent = false, &last
	}
	w.order, w.left = w.order[:0], 0
	return news
}

func (s *sighting) proto() *tcplabv1.LiveSample {
	message := &tcplabv1.LiveSample{
		Flow: s.Flow, End: s.End, Time: timestamppb.New(s.Time), TcpInfo: s.Info.Proto(), CongestionInfo: s.Congestion.Proto(),
	}
	// Of another connection than before, the counts begin anew.
	if before := s.sent; before != nil && s.Info.BytesReceived >= before.Info.BytesReceived && s.Info.BytesAcked >= before.Info.BytesAcked {
		if took := s.Time.Sub(before.Time).Seconds(); took > 0 {
			message.ReceiveBps = float64(s.Info.BytesReceived-before.Info.BytesReceived) * 8 / took
			message.AckedBps = float64(s.Info.BytesAcked-before.Info.BytesAcked) * 8 / took
		}
	}
	return message
}
