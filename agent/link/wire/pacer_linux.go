package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pacer decides when a loop stops for a moment though there may be work.
//
// To wake for a frame costs more than to carry it. So a loop waits attentively for each
// frame as long as they come seldom, or in a short burst; where they keep coming it
// lets them gather for a nap, and is late by that much at most.
//
// And a thread with real-time priority that always has work would leave ordinary
// threads of its processor the 5% that sched(7) keeps for them, in one piece of
// 50 ms. The loop leaves them that share in small pieces.
type pacer struct {
	credit int64 // ns of the loop's clock that waits have not used
	last   int64 // when credit was reckoned
	paid   bool  // for the wait that goes on
	since  int64 // since when the loop has worked without a pause
}

const (
	nap    = 40_000    // ns
	seldom = 200_000   // ns from one wait to the next that are no burst
	burst  = 32        // waits
	breath = 100_000   // ns
	stint  = 1_900_000 // ns of work without a breath
)

// doze is called where there is no work. It takes a nap where there were too many waits of late, and reports whether it did.
func (p *pacer) doze(now int64) bool {
	p.credit = min(burst*seldom, p.credit+now-p.last)
	p.last = now
	enough := p.credit >= seldom
	if !p.paid {
		p.credit = max(0, p.credit-seldom)
		p.paid = true
	}
	if enough {
		return false
	}
	pause(nap)
	p.since = now + nap
	return true
}

// slept says that the loop has slept until now.
func (p *pacer) slept(now int64) { p.since = now }

// worked says that there was work. A loop that must leave time for others
// takes a breath where it has worked for a stint.
func (p *pacer) worked(now int64, leave bool) {
	p.paid = false
	if !leave || now-p.since < stint {
		return
	}
	pause(breath)
	p.since = now + breath
}

// pause stops the thread. The Go scheduler is not told: this is shorter than
// what it would do. Cut short by a signal it is still a pause.
func pause(ns int64) {
	ts := unix.NsecToTimespec(ns)
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
