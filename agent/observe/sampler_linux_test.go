package observe

import (
	"errors"
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
	var fast, slow, stopped counted
	enough := make(chan struct{})
	start := time.Now()
	var took time.Duration
	watch := func(interval time.Duration, sink Sink) *Watch {
		return s.Watch(Watched{Interval: interval, Sink: sink, Read: func() (Info, error) {
			if fast.Load() == 200 && took == 0 {
				took = time.Since(start)
				close(enough)
			}
			return Info{State: 1}, nil
		}})
	}
	watch(time.Millisecond, &stopped).Stop()
	a, b := watch(time.Millisecond, &fast), watch(20*time.Millisecond, &slow)
	<-enough
	series := a.Stop()
	if series.Count+series.Missed < 200 || time.Duration(series.Count+series.Missed-3)*time.Millisecond > time.Since(start) {
		t.Errorf("%d samples each ms and %d missed in %s", series.Count, series.Missed, took)
	}
	if n := b.Stop().Count; n < 2 || n > 3+uint64(time.Since(start)/(20*time.Millisecond)) {
		t.Errorf("%d samples each 20 ms in %s", n, took)
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
	read := func() (Info, error) { return Info{State: 1}, nil }
	before := s.Watch(Watched{Interval: time.Hour, Read: read})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, w := range []*Watch{before, s.Watch(Watched{Interval: time.Millisecond, Read: read})} {
		if n := w.Stop().Count; n != 2 {
			t.Errorf("%d samples, want the first and the last", n)
		}
	}
	gone := s.Watch(Watched{Interval: time.Millisecond, Read: func() (Info, error) { return Info{}, errors.New("closed") }})
	if n := gone.Stop().Count; n != 0 {
		t.Errorf("%d samples of no socket", n)
	}
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
						Flow: fmt.Sprintf("flow%d", i), End: end, Interval: test.interval, Sink: keep,
						Read: func() (Info, error) { return ReadInfo(fd) },
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
