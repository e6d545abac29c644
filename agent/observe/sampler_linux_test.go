package observe

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counted is a Sink that only counts.
type counted struct{ atomic.Uint64 }

func (c *counted) Add(*Sample) { c.Uint64.Add(1) }

// Each watch keeps its own interval, and those that are stopped are let go.
func TestSamplerKeepsIntervals(t *testing.T) {
	s := sampler(t)
	fd := connected(t)
	var slow, stopped counted
	fast := make(kept, 10_000)
	start := time.Now()
	s.Watch(Watched{Interval: time.Millisecond, Sink: &stopped, FD: fd}).Stop()
	a := s.Watch(Watched{Interval: time.Millisecond, Sink: fast, FD: fd})
	b := s.Watch(Watched{Interval: 20 * time.Millisecond, Sink: &slow, FD: fd})
	var before time.Time
	for range 200 {
		sample := <-fast
		if !sample.Time.After(before) {
			t.Errorf("a sample at %s after one at %s", sample.Time, before)
		}
		before = sample.Time
	}
	series, elapsed := a.Stop(), time.Since(start)
	// The first and the last are beside those of the interval.
	if due := uint64(elapsed / time.Millisecond); series.Count+series.Missed > due+3 || series.Count+series.Missed < 200 {
		t.Errorf("%d samples each ms and %d missed in %s", series.Count, series.Missed, elapsed)
	}
	if n := b.Stop().Count; n < 3 || n > 3+uint64(time.Since(start)/(20*time.Millisecond)) || n != slow.Load() {
		t.Errorf("%d samples each 20 ms in %s, of which the sink got %d", n, elapsed, slow.Load())
	}
	if n := stopped.Load(); n != 2 {
		t.Errorf("%d samples of a watch that was stopped at once: the first and the last are two", n)
	}
}

func TestSamplerThatIsClosed(t *testing.T) {
	s, err := NewSampler()
	if err != nil {
		t.Fatal(err)
	}
	fd := connected(t)
	before := s.Watch(Watched{Interval: time.Hour, FD: fd})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, w := range []*Watch{before, s.Watch(Watched{Interval: time.Millisecond, FD: fd})} {
		if n := w.Stop().Count; n != 2 {
			t.Errorf("%d samples, want the first and the last", n)
		}
	}
	if n := s.Watch(Watched{Interval: time.Millisecond, FD: -1}).Stop().Count; n != 0 {
		t.Errorf("%d samples of no socket", n)
	}
}

// Sockets are more than one batch takes, come and go while others are read, and none is forgotten or read for another.
func TestSamplerOfManySockets(t *testing.T) {
	s := sampler(t)
	const many = batchRecords + 100
	fds := [2]int{connected(t), connected(t)}
	var all counted
	var watches []*Watch
	for i := range many {
		watches = append(watches, s.Watch(Watched{Interval: 5 * time.Millisecond, Sink: &all, FD: fds[i%2]}))
	}
	seen := make(kept, 10_000)
	last := s.Watch(Watched{Interval: 5 * time.Millisecond, Sink: seen, FD: fds[0]})
	for i, w := range watches {
		if i%2 == 0 {
			w.Stop()
		}
	}
	for range 20 {
		<-seen
	}
	last.Stop()
	var count uint64
	for i, w := range watches {
		series := w.Stop()
		if count += series.Count; i%2 == 1 && series.Count+series.Missed < 10 {
			t.Errorf("watch %d has %d samples and %d missed", i, series.Count, series.Missed)
		}
	}
	if count != all.Load() {
		t.Errorf("the series have %d samples, the sink got %d", count, all.Load())
	}
}

// What nobody has time to take is missed, and counted.
func TestSamplerThatNobodyKeepsUpWith(t *testing.T) {
	w := &Watch{}
	s := &Sampler{spare: make(chan *batch, 1), news: make(chan struct{}, 1), ended: make(chan struct{})}
	b := &batch{watches: []*Watch{w}}
	for range mostBatches {
		b.count = 1
		b = s.hand(b)
	}
	if w.dropped != 0 {
		t.Fatalf("%d samples dropped", w.dropped)
	}
	b.count = 2
	b.records[1].missed = 3
	s.hand(b)
	if w.dropped != 5 || len(s.full) != mostBatches {
		t.Errorf("%d samples dropped, %d batches", w.dropped, len(s.full))
	}
}

// connected is a socket of a connection that stands until the test ends.
func connected(t *testing.T) int {
	t.Helper()
	client, _ := loopback(t)
	file, err := client.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return int(file.Fd())
}

// BenchmarkSampler is what sampling both ends of so many connections costs, with all that is kept, as a share of a
// processor; and how many samples were missed.
func BenchmarkSampler(b *testing.B) {
	for _, test := range []struct {
		connections int
		interval    time.Duration
	}{{100, 10 * time.Millisecond}, {1, time.Millisecond}, {10, time.Millisecond}} {
		b.Run(fmt.Sprintf("%d every %v", test.connections, test.interval), func(b *testing.B) {
			ns := node(b)
			keep := NewSamples(scratch(b))
			s := sampler(b)
			var watches []*Watch
			for i := range test.connections {
				_, client, server := pair(b, ns, "127.0.0.1")
				for end, conn := range map[string]*net.TCPConn{"client": client, "server": server} {
					file, err := conn.File() // a descriptor to read without Go's poller
					if err != nil {
						b.Fatal(err)
					}
					defer file.Close()
					fd := int(file.Fd())
					watches = append(watches, s.Watch(Watched{
						Flow: fmt.Sprintf("flow%d", i), End: end, Interval: test.interval, Sink: keep, FD: fd,
					}))
				}
			}
			var missed uint64
			b.ResetTimer()
			before, start := spent(b), time.Now()
			<-time.After(2 * time.Second)
			share, elapsed := spent(b)-before, time.Since(start)
			for _, w := range watches {
				missed += w.Stop().Missed
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(100*share.Seconds()/elapsed.Seconds(), "%core")
			b.ReportMetric(float64(missed), "missed")
			if err := keep.Discard(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// spent is the processor time of this process so far.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
