package wire

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

func newTraced(trace *link.Trace, shape link.Shape) *model {
	m := &model{store: newStore(1523)}
	m.direction = newDirection(link.Direction{Shape: shape, Seed: 1, Trace: trace}, 1523, m.store.release)
	return m
}

func moments(at ...time.Duration) []time.Duration { return at }

func TestTrace(t *testing.T) {
	type arrival struct {
		at   int64
		size int
	}
	ten := link.Queue{Packets: 10}
	tests := []struct {
		name     string
		trace    link.Trace
		shape    link.Shape
		arrivals []arrival
		want     []departure
		overflow uint64
	}{
		{
			name:     "a full packet a moment, unused ones are lost",
			trace:    link.Trace{Opportunities: moments(100, 200, 300, 1000)},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{50, 1514}, {60, 1514}, {250, 1514}, {500, 1514}, {500, 1514}},
			want:     []departure{{100, 0}, {200, 1}, {300, 2}, {1000, 3}, {1100, 4}},
		},
		{
			name:     "small packets share a moment; what is left of it is lost",
			trace:    link.Trace{Opportunities: moments(100, 200, 300, 400), Bytes: 1000},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{0, 400}, {0, 400}, {150, 900}, {350, 100}},
			want:     []departure{{100, 0}, {100, 1}, {200, 2}, {400, 3}},
		},
		{
			name:     "a packet goes on with the next moment",
			trace:    link.Trace{Opportunities: moments(100, 200, 300), Bytes: 1000},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{0, 600}, {0, 600}, {0, 1400}, {0, 100}},
			want:     []departure{{100, 0}, {200, 1}, {300, 2}, {300, 3}},
		},
		{
			name:     "several moments at once",
			trace:    link.Trace{Opportunities: moments(0, 100, 100, 100), Bytes: 1000},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{10, 1000}, {10, 1000}, {10, 1000}, {10, 1000}, {10, 1000}},
			want:     []departure{{100, 0}, {100, 1}, {100, 2}, {100, 3}, {200, 4}}, // the round's last and the next one's first
		},
		{
			name:     "one that comes in the moment is too late",
			trace:    link.Trace{Opportunities: moments(100)},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{100, 100}, {299, 100}},
			want:     []departure{{200, 0}, {300, 1}},
		},
		{
			name:     "once",
			trace:    link.Trace{Opportunities: moments(100, 200), Once: true},
			shape:    link.Shape{Queue: ten},
			arrivals: []arrival{{0, 1514}, {150, 1514}, {150, 1514}},
			want:     []departure{{100, 0}, {200, 1}},
		},
		{
			name:     "the queue waits for the first moment too",
			trace:    link.Trace{Opportunities: moments(100)},
			shape:    link.Shape{Queue: link.Queue{Packets: 2}},
			arrivals: []arrival{{0, 1514}, {0, 1514}, {0, 1514}, {110, 1514}},
			want:     []departure{{100, 0}, {200, 1}, {300, 3}},
			overflow: 1,
		},
		{
			name:     "delay before the trace",
			trace:    link.Trace{Opportunities: moments(100)},
			shape:    link.Shape{Delay: 250, Queue: ten},
			arrivals: []arrival{{0, 100}, {100_000_000, 100}},
			want:     []departure{{300, 0}, {100_000_300, 1}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, late := newTraced(&test.trace, test.shape), newTraced(&test.trace, test.shape)
			for i, a := range test.arrivals {
				m.arrive(a.at, a.size, byte(i))
				late.arrive(a.at, a.size, byte(i))
			}
			var got []departure
			for at, some := m.due(); some && len(got) < 100; at, some = m.due() {
				if early := m.until(at - 1); early != nil {
					t.Fatalf("due at %d, but %v came before", at, early)
				}
				got = append(got, m.until(at)...)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("departures (-want +got):\n%s", diff)
			}
			if m.overflow != test.overflow {
				t.Errorf("%d dropped", m.overflow)
			}
			if diff := cmp.Diff(test.want, late.until(1e9)); diff != "" {
				t.Errorf("departures, woken late (-want +got):\n%s", diff)
			}
		})
	}
}

// plain is a link with a trace in the fewest words: it looks at every moment.
func plain(trace *link.Trace, limit int, at []int64, sizes []int, until int64) (out []departure) {
	var queue []int
	left, came := 0, 0
	period := int64(trace.Opportunities[len(trace.Opportunities)-1])
	for round := int64(0); round < until; round += period {
		for _, o := range trace.Opportunities {
			moment := round + int64(o)
			for ; came < len(at) && at[came] < moment; came++ {
				// The one that has been begun is not in the queue.
				waiting := len(queue)
				if left > 0 {
					waiting--
				}
				if waiting < limit {
					queue = append(queue, came)
				}
			}
			for bytes := trace.Bytes; bytes > 0 && len(queue) > 0; {
				if left == 0 {
					left = sizes[queue[0]]
				}
				n := min(bytes, left)
				bytes, left = bytes-n, left-n
				if left == 0 {
					out = append(out, departure{moment, byte(queue[0])})
					queue = queue[1:]
				}
			}
		}
	}
	return out
}

func TestTraceIsWhatALookAtEveryMomentSays(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		trace := &link.Trace{Bytes: 200 + random.IntN(1500)}
		at := time.Duration(0)
		for range 1 + random.IntN(50) {
			at += time.Duration(random.IntN(300))
			trace.Opportunities = append(trace.Opportunities, at)
		}
		if at == 0 {
			continue
		}
		limit := 1 + random.IntN(20)
		m := newTraced(trace, link.Shape{Queue: link.Queue{Packets: limit}})
		var arrivals []int64
		var sizes []int
		var got []departure
		now := int64(0)
		for i := range 500 {
			now += random.Int64N(400)
			if random.IntN(30) == 0 {
				now += 5000
			}
			size := 60 + random.IntN(1455)
			arrivals, sizes = append(arrivals, now), append(sizes, size)
			got = append(got, m.until(now)...)
			m.arrive(now, size, byte(i))
		}
		end := now + 10_000_000
		got = append(got, m.until(end)...)
		if diff := cmp.Diff(plain(trace, limit, arrivals, sizes, end), got); diff != "" {
			t.Fatalf("seed %d: departures (-want +got):\n%s", seed, diff)
		}
	}
}

func TestTraceRestarts(t *testing.T) {
	m := newTraced(&link.Trace{Opportunities: moments(100, 1000), Bytes: 1000}, link.Shape{Queue: link.Queue{Packets: 5}})
	m.arrive(0, 1500, 0)
	m.until(100)
	m.restart(5050)
	m.arrive(5060, 100, 1)
	if diff := cmp.Diff([]departure{{5150, 1}}, m.until(10_000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}

func TestTraceIsNotChanged(t *testing.T) {
	trace := &link.Trace{Opportunities: moments(100, 1000)}
	m := newTraced(trace, link.Shape{Queue: link.Queue{Packets: 5}})
	for _, other := range []*link.Trace{nil, {Opportunities: moments(100, 1001)}, {Opportunities: moments(100, 1000), Once: true}, {Opportunities: moments(100, 1000), Bytes: 7}} {
		if _, err := m.prepare(link.Direction{Shape: m.own.shape(), Trace: other}); err == nil {
			t.Errorf("changed to %+v", other)
		}
	}
	same := &link.Trace{Opportunities: moments(100, 1000), Bytes: 1514}
	prepared, err := m.prepare(link.Direction{Shape: link.Shape{Delay: 7, Queue: link.Queue{Packets: 5}}, Trace: same})
	if err != nil {
		t.Fatal(err)
	}
	m.direction.change(0, prepared)
	if got := m.readBack(); got.Shape.Delay != 7 || got.Trace == nil {
		t.Errorf("in force is %+v", got)
	}
}

// Two million moments cost no more than two.
func TestLongTraceIsFast(t *testing.T) {
	trace := &link.Trace{Bytes: 1514}
	for i := range 2_000_000 {
		trace.Opportunities = append(trace.Opportunities, time.Duration(i)*time.Millisecond)
	}
	m := newTraced(trace, link.Shape{Queue: link.Queue{Packets: 5}})
	// Each frame comes hours after the one before: all that lies between would be looked at.
	for i := range int64(100_000) {
		at := i * int64(time.Hour) / 10
		m.arrive(at, 1514, 0)
		if m.until(at+2*ms) == nil {
			t.Fatalf("frame %d did not come", i)
		}
	}
}
