package observe

import (
	"context"
	"errors"
	"testing"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// A watcher gets the newest of each end, and is told what it missed; rates are between what it got.
func TestWatcherTakesTheNewest(t *testing.T) {
	w := &watcher{newest: map[source]*sighting{}}
	start := time.Now()
	add := func(end string, after time.Duration, received uint64) {
		w.add(&Sample{Flow: "f", End: end, Time: start.Add(after), Info: Info{State: 1, BytesReceived: received}})
	}
	add("client", 0, 0)
	add("server", 0, 500)
	add("server", time.Millisecond, 1000)
	news := w.take()
	if len(news.GetSamples()) != 2 || news.GetLeftOut() != 1 || news.GetSamples()[1].GetTcpInfo().GetBytesReceived() != 1000 || news.GetSamples()[1].GetReceiveBps() != 0 {
		t.Errorf("first %v", news)
	}
	if again := w.take(); len(again.GetSamples()) != 0 || again.GetLeftOut() != 0 {
		t.Errorf("nothing new: %v", again)
	}
	add("server", time.Second+time.Millisecond, 2000)
	if news = w.take(); len(news.GetSamples()) != 1 || news.GetSamples()[0].GetReceiveBps() != 8000 {
		t.Errorf("a second later: %v", news)
	}
	add("server", 2*time.Second, 10) // of another connection
	if news = w.take(); news.GetSamples()[0].GetReceiveBps() != 0 {
		t.Errorf("another connection: %v", news)
	}
	for i := range 2 * mostSightings {
		w.add(&Sample{Flow: string(rune('0' + i)), Time: start})
	}
	if news = w.take(); len(news.GetSamples()) > mostSightings || news.GetLeftOut() < mostSightings {
		t.Errorf("%d of %d ends, %d left out", len(news.GetSamples()), 2*mostSightings, news.GetLeftOut())
	}
}

func TestLiveEnds(t *testing.T) {
	l := NewLive()
	l.Add(&Sample{Flow: "f"}) // nobody watches
	l.End()
	l.End()
	if err := l.Follow(t.Context(), time.Hour, func(*tcplabv1.LiveSamples) error { return errors.New("sent") }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewLive().Follow(ctx, time.Hour, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n := l.watched.Load(); n != 0 {
		t.Errorf("%d still watch", n)
	}
}
