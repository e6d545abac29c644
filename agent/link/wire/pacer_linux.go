package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pacer decides when a loop stops for a moment though there may be work.
//
// To wake for a frame costs as much as to carry it. So a loop may wake for a few
// frames as they come, but in the long run not more often than once in a nap; where frames come faster
// than that, it lets them gather for one nap and is late by that much.
//
// And a thread with real-time priority that always has work would leave ordinary
// threads of its processor the 5% that sched(7) keeps for them, in one piece of
// 50 ms. The loop leaves them that share in small pieces.
type pacer struct {
	credit int64 // ns since the loop was made that wakings have not used
	last   int64 // when credit was reckoned
	since  int64 // since when the loop has worked without a pause
}

const (
	nap    = 40_000    // ns
	naps   = 32        // wakings in a row that are not held back
	breath = 100_000   // ns
	stint  = 1_900_000 // ns of work without a breath
)

// doze takes a nap where the loop has woken too often of late, and reports whether it did.
func (p *pacer) doze(now int64) bool {
	p.credit = min(naps*nap, p.credit+now-p.last)
	p.last = now
	if p.credit >= nap {
		p.credit -= nap
		return false
	}
	pause(nap)
	p.since = now
	return true
}

// rested says that the loop has just slept.
func (p *pacer) rested(now int64) { p.since = now }

// breathe takes a breath where the loop has worked for a stint.
func (p *pacer) breathe(now int64) {
	if now-p.since < stint {
		return
	}
	pause(breath)
	p.since = now + breath
}

// pause stops the thread. The Go scheduler is not told: this is shorter than
// what it would do. Cut short by a signal it is still a pause.
func pause(ns int64) {
	ts := unix.NsecToTimespec(ns)
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
