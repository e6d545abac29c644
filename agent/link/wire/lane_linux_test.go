package wire

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// memory is a port in memory: it always has frames to give, and counts what it takes.
type memory struct {
	frame []byte
	left  int // frames that may be read
	taken int
	busy  int // writes that it refuses before it takes one
	fails bool
}

func (m *memory) fd() int { return -1 }

func (m *memory) read(buf []byte, now int64) (int, int64, error) {
	if m.left == 0 {
		return 0, 0, nil
	}
	m.left--
	return copy(buf, m.frame), now, nil
}

func (m *memory) fault() error { return nil }

func (m *memory) write(frames []*frame, lost []bool) int {
	if m.busy > 0 {
		m.busy--
		return 0
	}
	for i := range frames {
		lost[i] = m.fails
		if !m.fails {
			m.taken++
		}
	}
	return len(frames)
}

func newMemoryLane(shape link.Shape, size int) (l *lane, in, out *memory) {
	in, out = &memory{frame: make([]byte, size)}, &memory{}
	l = newLane(in, out, 1523)
	l.shaped(link.Direction{Shape: shape, Seed: 1})
	return l, in, out
}

// turn runs the lane for a number of frames that come 5 µs apart, in virtual time from start.
func turn(t testing.TB, l *lane, in *memory, start int64, frames int) int64 {
	now := start
	clock := func() int64 { return now }
	for range frames {
		now += 5000
		in.left = 1
		if _, err := l.receive(clock); err != nil {
			t.Fatal(err)
		}
		l.deliver(clock)
	}
	return now
}

func TestLaneAllocatesNothingInSteadyState(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 500 * time.Millisecond} { // up to 100,000 under way
		l, in, out := newMemoryLane(link.Shape{Delay: delay, Rate: 4e9, Queue: link.Queue{Packets: 100}}, 1514)
		now := turn(t, l, in, 0, 300_000)
		allocs := testing.AllocsPerRun(10, func() { now = turn(t, l, in, now, 10_000) })
		if allocs != 0 {
			t.Errorf("delay %v: %v allocations in 10,000 frames", delay, allocs)
		}
		if out.taken == 0 || l.failed != 0 {
			t.Errorf("delay %v: %d delivered, %d failed", delay, out.taken, l.failed)
		}
	}
}

func TestLaneKeepsWhatABusyPortRefuses(t *testing.T) {
	l, in, out := newMemoryLane(link.Shape{}, 100)
	out.busy = 3
	for now := turn(t, l, in, 0, 10); out.taken < 10; now++ {
		if due, some := l.due(now); !some || due <= now || due > now+busyRetry {
			t.Fatalf("with frames held back the lane is due at %d (%v) of %d", due, some, now)
		}
		l.deliver(func() int64 { return now })
	}
	if l.delivered != 10 || l.failed != 0 || l.dir.received != 10 {
		t.Errorf("received %d, delivered %d, failed %d; want 10, 10, 0", l.dir.received, l.delivered, l.failed)
	}
}

func TestLaneCountsWhatItLoses(t *testing.T) {
	l, in, out := newMemoryLane(link.Shape{}, 100)
	out.fails = true
	turn(t, l, in, 0, 3)
	if l.failed != 3 || l.delivered != 0 {
		t.Errorf("three refused writes: failed %d, delivered %d", l.failed, l.delivered)
	}
	long, in, _ := newMemoryLane(link.Shape{}, 2000) // longer than the store's room
	turn(t, long, in, 0, 3)
	if long.failed != 3 || long.dir.received != 0 {
		t.Errorf("three frames that are too long: failed %d, received %d", long.failed, long.dir.received)
	}
}

// TestLatenessIsCountedFromTheArrival: a frame of a port without time stamps may have come as
// soon as the port was last seen empty.
func TestLatenessIsCountedFromTheArrival(t *testing.T) {
	l, in, _ := newMemoryLane(link.Shape{Delay: time.Millisecond}, 100)
	look := func(now int64, frames int) {
		t.Helper()
		in.left = frames
		if _, err := l.receive(func() int64 { return now }); err != nil {
			t.Fatal(err)
		}
	}
	const stall = int64(3 * time.Millisecond)
	look(1000, 0)
	look(1000+stall, batch+8) // more than one look takes
	look(2000+stall, in.left)
	look(3000+stall, 1)
	for now := 3000 + stall; l.delivered < batch+9; now += 1000 {
		l.deliver(func() int64 { return now })
	}
	late := l.late
	if got := late.Quantile(0.5); got < 1500*time.Microsecond {
		t.Errorf("after 3 ms without a look, half of the frames are said to be %v late", got)
	}
	if late.Max() < 1500*time.Microsecond || late.Min() > 20*time.Microsecond {
		t.Errorf("lateness is between %v and %v, want half of 3 ms of those that waited, and none of the last", late.Min(), late.Max())
	}
}

// BenchmarkLane is what the engine itself does for one frame, without system calls.
func BenchmarkLane(b *testing.B) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 500 * time.Millisecond} {
		b.Run(delay.String(), func(b *testing.B) {
			l, in, _ := newMemoryLane(link.Shape{Delay: delay, Rate: 4e9, Queue: link.Queue{Packets: 100}}, 1514)
			now := turn(b, l, in, 0, 300_000)
			b.ReportAllocs()
			for b.Loop() {
				now = turn(b, l, in, now, 1)
			}
		})
	}
}
