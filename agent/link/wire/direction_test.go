package wire

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

// model is a direction with its store, driven in virtual time.
type model struct {
	*direction
	store *store
}

func newModel(shape link.Shape, seed uint64) *model {
	m := &model{store: newStore(1523)}
	m.direction = newDirection(link.Direction{Shape: shape, Seed: seed}, 1523, m.store.release)
	return m
}

// giveBack is what the lane does with frames that it has handed over.
func (m *model) giveBack(f *frame) {
	if !m.takes(f) {
		m.store.release(f)
	}
}

// change is a change of the direction's own shape.
func (m *model) change(now int64, shape link.Shape) {
	prepared, err := m.prepare(link.Direction{Shape: shape})
	if err != nil {
		panic(err)
	}
	m.direction.change(now, prepared)
}

func (m *model) arrive(at int64, size int, id byte) { m.offer(at, put(m.store, size, id)) }

// departure is one frame that came through.
type departure struct {
	At int64
	ID byte
}

// until takes what has come through by the given time.
func (m *model) until(now int64) []departure {
	var out []departure
	for f := m.next(now); f != nil; f = m.next(now) {
		out = append(out, departure{f.leaves, f.data[0]})
		m.giveBack(f)
	}
	return out
}

func TestDirection(t *testing.T) {
	type arrival struct {
		at   int64
		size int
	}
	tests := []struct {
		name     string
		shape    link.Shape
		arrivals []arrival // frames 1, 2, …
		want     []departure
		overflow uint64
		peak     int
	}{
		{
			name:     "at once",
			arrivals: []arrival{{5, 100}, {5, 100}, {9, 60}},
			want:     []departure{{5, 1}, {5, 2}, {9, 3}},
		},
		{
			name:     "delay",
			shape:    link.Shape{Delay: 1000},
			arrivals: []arrival{{5, 100}, {7, 1500}},
			want:     []departure{{1005, 1}, {1007, 2}},
		},
		{
			name:     "rate: 1 byte takes 1 ns",
			shape:    link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 10}},
			arrivals: []arrival{{0, 100}, {10, 60}, {500, 60}},
			want:     []departure{{100, 1}, {160, 2}, {560, 3}},
			peak:     1,
		},
		{
			name:     "delay before rate",
			shape:    link.Shape{Rate: 8e9, Delay: 1000, Queue: link.Queue{Packets: 10}},
			arrivals: []arrival{{0, 100}, {10, 60}},
			want:     []departure{{1100, 1}, {1160, 2}},
			peak:     1,
		},
		{
			name:     "a full queue drops the tail; what is being sent does not count",
			shape:    link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 2}},
			arrivals: []arrival{{0, 100}, {0, 100}, {0, 100}, {0, 100}, {99, 100}, {100, 100}},
			want:     []departure{{100, 1}, {200, 2}, {300, 3}, {400, 6}},
			overflow: 2, peak: 2,
		},
		{
			name:     "what is in the delay does not count",
			shape:    link.Shape{Rate: 8e9, Delay: 1000, Queue: link.Queue{Packets: 1}},
			arrivals: []arrival{{0, 100}, {100, 100}, {200, 100}, {300, 100}},
			want:     []departure{{1100, 1}, {1200, 2}, {1300, 3}, {1400, 4}},
			peak:     0,
		},
		{
			name:     "a limit in bytes",
			shape:    link.Shape{Rate: 8e9, Queue: link.Queue{Bytes: 150}},
			arrivals: []arrival{{0, 100}, {0, 100}, {0, 60}, {0, 50}, {0, 1}},
			want:     []departure{{100, 1}, {200, 2}, {250, 4}},
			overflow: 2, peak: 2,
		},
		{
			name:     "a limit in time",
			shape:    link.Shape{Rate: 8e9, Queue: link.Queue{Time: 150}},
			arrivals: []arrival{{0, 100}, {0, 100}, {0, 60}, {0, 50}, {0, 1}},
			want:     []departure{{100, 1}, {200, 2}, {250, 4}},
			overflow: 2, peak: 2,
		},
		{
			name:     "a frame read late does not overtake the one being sent",
			shape:    link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 2}},
			arrivals: []arrival{{0, 100}, {300, 100}, {250, 100}},
			want:     []departure{{100, 1}, {400, 2}, {500, 3}},
			peak:     1,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newModel(test.shape, 1)
			for i, a := range test.arrivals {
				m.arrive(a.at, a.size, byte(i+1))
			}
			var got []departure
			// Woken exactly when due, as the loop is.
			for at, some := m.due(); some; at, some = m.due() {
				if early := m.until(at - 1); early != nil {
					t.Fatalf("due at %d, but %v came before", at, early)
				}
				now := m.until(at)
				if now == nil && m.underWay() > 0 {
					t.Fatalf("due at %d, but nothing came", at)
				}
				got = append(got, now...)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("departures (-want +got):\n%s", diff)
			}
			if m.overflow != test.overflow || m.peak != test.peak {
				t.Errorf("overflow %d, peak %d; want %d, %d", m.overflow, m.peak, test.overflow, test.peak)
			}
			// Woken once, long after, the result is the same.
			late := newModel(test.shape, 1)
			for i, a := range test.arrivals {
				late.arrive(a.at, a.size, byte(i+1))
			}
			if diff := cmp.Diff(test.want, late.until(1e9)); diff != "" {
				t.Errorf("departures, woken late (-want +got):\n%s", diff)
			}
			if late.tally != m.tally {
				t.Errorf("woken late it counts %+v, in time %+v", late.tally, m.tally)
			}
		})
	}
}

func TestChange(t *testing.T) {
	slow := link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 10}}
	tests := []struct {
		name          string
		before, after link.Shape
		want          []departure // of frames 1, 2, 3 of 100 bytes at 0, change at 150, frames 4 and 5 at 150
	}{
		{
			"the delay falls",
			link.Shape{Delay: 1000},
			link.Shape{},
			[]departure{{1000, 1}, {1000, 2}, {1000, 3}, {1000, 4}, {1000, 5}},
		},
		{
			"the delay rises",
			link.Shape{Delay: 200},
			link.Shape{Delay: 1000},
			[]departure{{200, 1}, {200, 2}, {200, 3}, {1150, 4}, {1150, 5}},
		},
		{
			"the rate doubles", slow,
			link.Shape{Rate: 16e9, Queue: slow.Queue},
			[]departure{{100, 1}, {175, 2}, {225, 3}, {275, 4}, {325, 5}},
		},
		{
			"the rate goes", slow,
			link.Shape{},
			[]departure{{100, 1}, {150, 2}, {150, 3}, {150, 4}, {150, 5}},
		},
		{
			"a rate comes",
			link.Shape{Delay: 200},
			slow,
			[]departure{{300, 1}, {400, 2}, {500, 3}, {600, 4}, {700, 5}},
		},
		{
			"the queue shrinks: who waits stays", slow,
			link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 1}},
			[]departure{{100, 1}, {200, 2}, {300, 3}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newModel(test.before, 1)
			for i := range 3 {
				m.arrive(0, 100, byte(i+1))
			}
			got := m.until(150)
			m.change(150, test.after)
			m.arrive(150, 100, 4)
			m.arrive(150, 100, 5)
			got = append(got, m.until(1e6)...)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("departures (-want +got):\n%s", diff)
			}
		})
	}
}

// lostOf are the numbers of the frames, of n, that are lost.
func lostOf(m *model, n int) map[int]bool {
	lost := map[int]bool{}
	for i := range n {
		before := m.lost
		m.arrive(int64(i), 100, 0)
		if m.lost > before {
			lost[i] = true
		}
		m.until(int64(i))
	}
	return lost
}

func TestLossIsTheSeeds(t *testing.T) {
	const n = 10_000
	few, many := lostOf(newModel(link.Shape{Loss: link.RandomLoss(0.01)}, 7), n), lostOf(newModel(link.Shape{Loss: link.RandomLoss(0.05)}, 7), n)
	// Six standard deviations of the binomial distribution.
	if len(few) < 40 || len(few) > 160 || len(many) < 370 || len(many) > 630 {
		t.Errorf("1%% of %d lost %d, 5%% lost %d", n, len(few), len(many))
	}
	for i := range few {
		if !many[i] {
			t.Errorf("frame %d is lost at 1%% and not at 5%%", i)
		}
	}
	if diff := cmp.Diff(few, lostOf(newModel(link.Shape{Loss: link.RandomLoss(0.01)}, 7), n)); diff != "" {
		t.Errorf("the same seed lost others (-first +second):\n%s", diff)
	}
	if cmp.Equal(few, lostOf(newModel(link.Shape{Loss: link.RandomLoss(0.01)}, 8), n)) {
		t.Error("another seed lost the same")
	}
	again := newModel(link.Shape{Loss: link.RandomLoss(0.01)}, 7)
	lostOf(again, 123)
	again.restart(0)
	if diff := cmp.Diff(few, lostOf(again, n)); diff != "" {
		t.Errorf("restarted it lost others (-first +second):\n%s", diff)
	}
	if got := lostOf(newModel(link.Shape{Loss: link.RandomLoss(1)}, 7), 100); len(got) != 100 {
		t.Errorf("of 100 frames at 100%% %d were lost", len(got))
	}
}

func TestRestartEmpties(t *testing.T) {
	m := newModel(link.Shape{Rate: 8e9, Delay: 50, Queue: link.Queue{Packets: 100}}, 1)
	for i := range 10 {
		m.arrive(int64(i*20), 100, byte(i))
	}
	m.until(120)
	m.restart(0)
	if got := m.until(1e9); got != nil || m.underWay() != 0 || m.tally != (tally{}) {
		t.Errorf("restarted it holds %v, %d under way, %+v", got, m.underWay(), m.tally)
	}
	if m.store.inUse != 0 || m.store.open.live != 0 {
		t.Error("restarted it keeps memory")
	}
	m.arrive(0, 100, 1)
	if diff := cmp.Diff([]departure{{150, 1}}, m.until(1e9)); diff != "" {
		t.Errorf("restarted its clock goes on (-want +got):\n%s", diff)
	}
}

// script drives a direction by random bytes and checks what must hold whatever happens.
func script(t *testing.T, m *model, ops []byte) {
	now, lastDue, sent, nextID := int64(0), int64(0), 0, byte(0)
	var order []byte // of frames accepted, oldest first
	random := rand.New(rand.NewPCG(1, 2))
	shapes := []link.Shape{
		{},
		{Delay: 700},
		{Rate: 8e9, Queue: link.Queue{Packets: 3}},
		{Rate: 3e9, Delay: 5000, Queue: link.Queue{Bytes: 4000}},
		{Rate: 1e6, Queue: link.Queue{Time: time.Millisecond}},
		{Loss: link.RandomLoss(0.3), Delay: 10},
	}
	take := func() {
		for f := m.next(now); f != nil; f = m.next(now) {
			if f.leaves < lastDue || f.leaves > now {
				t.Fatalf("a frame came at %d, after %d, by %d", f.leaves, lastDue, now)
			}
			lastDue = f.leaves
			for len(order) > 0 && order[0] != f.data[0] {
				order = order[1:] // lost or dropped
			}
			if len(order) == 0 {
				t.Fatalf("frame %d came out of order", f.data[0])
			}
			order = order[1:]
			sent++
			m.giveBack(f)
		}
	}
	for _, op := range ops {
		switch {
		case op < 160:
			m.arrive(now-int64(op%3), 60+int(op)*9, nextID)
			order = append(order, nextID)
			nextID++
			if len(order) > 250 { // identities repeat after 256
				now += 1e9
				take()
			}
		case op < 240:
			now += random.Int64N(1 << (op % 20))
			take()
		default:
			take()
			m.change(now, shapes[int(op)%len(shapes)])
		}
		if got := uint64(sent+m.underWay()) + m.lost + m.overflow; got != m.received {
			t.Fatalf("received %d, but %d sent, %d under way, %d lost, %d dropped", m.received, sent, m.underWay(), m.lost, m.overflow)
		}
		if m.own.sending == nil && m.own.waiting.frames > 0 {
			t.Fatal("frames wait though nothing is being sent")
		}
	}
	now += 1e12
	take()
	if m.underWay() != 0 || m.store.inUse != 0 || m.store.open.live != 0 {
		t.Fatalf("in the end %d are under way and %d chunks in use", m.underWay(), m.store.inUse)
	}
}

func FuzzDirection(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 8 {
		ops := make([]byte, 400)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		script(t, newModel(link.Shape{Rate: 8e9, Delay: 100, Queue: link.Queue{Packets: 5}}, 1), ops)
	})
}

// The rate is never exceeded, over any stretch, nor the queue's limit.
func TestRateAndLimitHold(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, queue := range []link.Queue{{Packets: 7}, {Bytes: 9000}, {Time: 10 * time.Microsecond}} {
		t.Run(fmt.Sprintf("%+v", queue), func(t *testing.T) {
			shape := link.Shape{Rate: 6_999_999_999, Delay: 3000, Queue: queue}
			m := newModel(shape, 1)
			now, free := int64(0), int64(0)
			for range 20_000 {
				now += random.Int64N(1500)
				m.arrive(now, 60+random.IntN(1455), 0)
				if limit := shape.QueueBytes(); queue.Packets > 0 && m.own.waiting.frames > queue.Packets || limit > 0 && m.own.waiting.bytes > limit {
					t.Fatalf("%d frames, %d bytes wait", m.own.waiting.frames, m.own.waiting.bytes)
				}
				for f := m.next(now); f != nil; f = m.next(now) {
					// Each sees the wire for itself from the end of the one before, but for the rounding to a ns.
					if least := int64(float64(f.size) * 8e9 / float64(shape.Rate)); f.leaves < free+least-1 {
						t.Fatalf("a frame of %d bytes came %d ns after the one before, it takes %d", f.size, f.leaves-free, least)
					}
					free = f.leaves
					m.giveBack(f)
				}
			}
			if m.overflow == 0 || m.peak == 0 {
				t.Errorf("the load never filled the queue: %+v", m.tally)
			}
		})
	}
}
