// Package prompt has threads run on time: the kernel wakes them so, and the Go runtime has room for them.
package prompt

import "golang.org/x/sys/unix"

// Thread asks the kernel to wake the calling thread on time: timers without slack
// (50 µs by default, prctl(2)), and a place before all ordinary threads where the process may
// take one. It reports whether it got that place. A thread started from this one
// does not inherit it. The caller's goroutine is locked to its thread, and ends locked.
func Thread() (realTime bool) {
	// Refused by no kernel; without it what waits is 50 µs late.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	err := unix.SchedSetAttr(0, &unix.SchedAttr{
		Size:     unix.SizeofSchedAttr,
		Policy:   unix.SCHED_FIFO,
		Flags:    unix.SCHED_FLAG_RESET_ON_FORK,
		Priority: 1,
	}, 0)
	return err == nil
}
