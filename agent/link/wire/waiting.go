package wire

import "github.com/tcplab/tcplab/agent/link"

// waiting is the queue in front of a bottleneck. Frames in it have the time at which they came
// in leaves.
type waiting struct {
	list
	asked      link.Queue
	limitBytes int // of the sum of frames; 0: none
	codel      codel

	tally   *tally
	discard func(*frame) // takes back what is dropped
	strike  func(*frame) bool
}

// settle gives the queue its limits and discipline. What waits stays, even above a lower limit.
func (w *waiting) settle(shape link.Shape) {
	if w.asked.Discipline != shape.Queue.Discipline {
		w.codel = codel{}
	}
	w.asked = shape.Queue
	w.limitBytes = shape.QueueBytes()
	w.codel.target = int64(shape.Queue.TargetOrDefault())
	w.codel.interval = int64(shape.Queue.IntervalOrDefault())
}

// admit puts a frame into the queue; where it is full it, or with head-drop as many as
// needed of those that have waited longest, are dropped.
func (w *waiting) admit(f *frame) {
	if w.full(f) {
		for w.asked.Discipline == link.HeadDrop && w.head != nil && w.full(f) {
			w.tally.overflow++
			w.discard(w.pop())
		}
		if w.full(f) {
			w.tally.overflow++
			w.discard(f)
			return
		}
	}
	w.push(f)
	w.tally.peak = max(w.tally.peak, w.frames)
}

// full reports whether there is no room for the frame in the queue.
func (w *waiting) full(f *frame) bool {
	if limit := w.asked.Packets; limit > 0 && w.frames >= limit {
		return true
	}
	return w.limitBytes > 0 && w.bytes+f.size > w.limitBytes
}

// take is the frame that is sent next, at the given time, or nil.
func (w *waiting) take(now int64) *frame {
	if w.asked.Discipline != link.CoDel {
		return w.pop()
	}
	return w.codel.pop(now, &w.list, w.strike)
}

// passed says that a frame found the bottleneck free, and did not have to wait.
func (w *waiting) passed() {
	if w.asked.Discipline == link.CoDel {
		w.codel.passed()
	}
}

// early marks a frame, where marks are asked for and it takes one, or drops it.
func (w *waiting) early(f *frame) (marked bool) {
	if w.asked.ECN && mark(f.ethernet()) {
		w.tally.marked++
		return true
	}
	w.tally.early++
	w.discard(f)
	return false
}
