package wire

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

const ms = int64(time.Millisecond)

// overload offers a frame of 1000 bytes each interval to a bottleneck that sends one a ms, for a
// time, and returns when frames were struck: dropped early, or marked.
func overload(m *model, interval, until int64, frame []byte) (struck []int64) {
	before := m.early + m.marked
	for at := int64(0); at < until; at += interval {
		// Each ms is looked at for itself, so that it is known when a frame was struck.
		for f := m.next(at); f != nil; f = m.next(at) {
			m.giveBack(f)
		}
		for ; m.early+m.marked > before; before++ {
			struck = append(struck, at)
		}
		buf := m.store.reserve()
		clear(buf[:1000])
		copy(buf, frame)
		f := m.store.commit(1000)
		f.size = 1000
		m.offer(at, f)
	}
	return struck
}

func codelShape(ecn bool) link.Shape {
	return link.Shape{Rate: 8e6, Queue: link.Queue{Packets: 100_000, Discipline: link.CoDel, ECN: ecn}}
}

// Against traffic that takes no notice CoDel drops its first frame when the wait has been above the
// target for an interval, and from then on with intervals that fall as 1/√n
// (RFC 8289, 4.1 and 5.3).
func TestCoDelsControlLaw(t *testing.T) {
	m := newModel(codelShape(false), 1)
	got := overload(m, ms/2, 3000*ms, nil)
	// Two frames come each ms and one goes. A frame sent at k ms was the kth to come
	// and came at k/2 ms, so that it waited k/2 ms: 5 ms are reached at 10 ms, and the first is
	// dropped at 110 ms.
	want := []int64{110 * ms}
	next := float64(110 + 100)
	for n := 2; next < 2990; n++ {
		want = append(want, int64(math.Ceil(next-1e-9))*ms)
		next += 100 / math.Sqrt(float64(n))
	}
	if len(got) < len(want) {
		t.Fatalf("%d were dropped, want %d", len(got), len(want))
	}
	for i := range want {
		// Looked at each half ms, and the law's times round down to a ns each.
		if d := got[i] - want[i]; d < 0 || d > ms {
			t.Fatalf("drop %d came at %v, want %v", i+1, time.Duration(got[i]), time.Duration(want[i]))
		}
	}
	if m.overflow != 0 || m.marked != 0 {
		t.Errorf("%+v", m.tally)
	}
}

func TestCoDelMarksWhatTakesMarks(t *testing.T) {
	for name, test := range map[string]struct {
		ecn   bool
		frame []byte
		marks bool
	}{
		"capable":            {true, tcp4(t, 2, 0), true},
		"capable over IPv6":  {true, tcp6(t, 1, 0), true},
		"not capable":        {true, tcp4(t, 0, 0), false},
		"not asked for":      {false, tcp4(t, 2, 0), false},
		"no IP, so no marks": {true, nil, false},
	} {
		m := newModel(codelShape(test.ecn), 1)
		n := uint64(len(overload(m, ms/2, 1000*ms, test.frame)))
		if n < 20 {
			t.Fatalf("%s: only %d were struck", name, n)
		}
		if test.marks && (m.marked != n || m.early != 0) || !test.marks && (m.early != n || m.marked != 0) {
			t.Errorf("%s: %d struck: %+v", name, n, m.tally)
		}
	}
}

func TestCoDelLeavesShortQueuesAlone(t *testing.T) {
	for name, test := range map[string]struct {
		shape    link.Shape
		interval int64
	}{
		"below the rate": {codelShape(false), 2 * ms},
		"at the rate":    {codelShape(false), ms},
		// 100 ms are not over yet.
		"for a short time": {codelShape(false), ms / 2},
	} {
		until := 10_000 * ms
		if test.interval < ms {
			until = 109 * ms
		}
		m := newModel(test.shape, 1)
		if got := overload(m, test.interval, until, nil); got != nil || m.overflow != 0 {
			t.Errorf("%s: struck at %v, %+v", name, got, m.tally)
		}
	}
	// One frame that waits is no queue, however slow the link.
	slow := codelShape(false)
	slow.Rate = 80e3 // 100 ms a frame
	m := newModel(slow, 1)
	for at := int64(0); at < 100_000*ms; at += 200 * ms {
		m.until(at)
		m.arrive(at, 1000, 0)
		m.arrive(at, 1000, 0)
	}
	if m.early != 0 {
		t.Errorf("%d dropped of queues of one", m.early)
	}
}

func TestCoDelTakesItsTargetAndInterval(t *testing.T) {
	shape := codelShape(false)
	shape.Queue.Target, shape.Queue.Interval = 20*time.Millisecond, 50*time.Millisecond
	got := overload(newModel(shape, 1), ms/2, 200*ms, nil)
	// 20 ms are reached at 40 ms.
	if len(got) < 2 || got[0] != 90*ms || got[1] != 140*ms {
		t.Errorf("dropped at %v", got)
	}
}

func TestRestartForgetsWhatCoDelKnew(t *testing.T) {
	m := newModel(codelShape(false), 1)
	before := m.own.waiting.codel
	overload(m, ms/2, 1500*ms, nil)
	if got := m.own.waiting.codel; got.count < 20 || !got.dropping {
		t.Fatalf("overloaded it is %+v", got)
	}
	m.restart(0)
	if got := m.own.waiting.codel; got != before {
		t.Errorf("restarted it is %+v, was %+v", got, before)
	}
}

// The limit is the limit: so many frames wait, whatever is in flight, and one more is dropped.
func TestLimitIsExact(t *testing.T) {
	for _, discipline := range []link.Discipline{link.FIFO, link.HeadDrop, link.CoDel} {
		for _, limit := range []int{1, 2, 7, 100, 1000} {
			m := newModel(link.Shape{Rate: 8e6, Delay: time.Second, Queue: link.Queue{Packets: limit, Discipline: discipline}}, 1)
			for range limit + 6 {
				m.arrive(0, 1000, 0)
			}
			m.next(int64(time.Second))
			if m.own.waiting.frames != limit || m.overflow != 5 || m.peak != limit {
				t.Errorf("%v of %d: %d wait, %+v", discipline, limit, m.own.waiting.frames, m.tally)
			}
		}
	}
}

func TestChangeOfDisciplineKeepsTheQueue(t *testing.T) {
	m := newModel(link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 10}}, 1)
	for i := range 4 {
		m.arrive(0, 100, byte(i))
	}
	m.until(0)
	m.change(0, link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 10, Discipline: link.CoDel}})
	m.until(50)
	m.change(50, link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 10, Discipline: link.HeadDrop}})
	want := []departure{{100, 0}, {200, 1}, {300, 2}, {400, 3}}
	if diff := cmp.Diff(want, m.until(1000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
}
