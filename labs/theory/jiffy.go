package theory

import "time"

// Jiffy is the time between two timer interrupts of a kernel, 1/HZ: 10 ms at
// HZ 100, 4 ms at 250, 1 ms at 1000.
func Jiffy(hz int) time.Duration {
	if hz <= 0 {
		return 0
	}
	return time.Second / time.Duration(hz)
}

// Jiffies is d in jiffies, rounded up as msecs_to_jiffies does.
func Jiffies(d time.Duration, hz int) int {
	return int((d*time.Duration(hz) + time.Second - 1) / time.Second)
}

// TimerSlack is how coarse a kernel timer of length d is, and so how late it may be: the wheel has
// levels of 64 buckets, each eight times as coarse as the one below it.
//
//	8^n·j for 63·8^(n−1) jiffies and more, 1 jiffy below 63
//
// 2.05 s for 60 s at HZ 250, 4.1 s at 1000, 5.12 s at 100. kernel/time/timer.c (LVL_GRAN, LVL_START).
func TimerSlack(d time.Duration, hz int) time.Duration {
	slack := Jiffy(hz)
	for start := 63; Jiffies(d, hz) >= start && start < 63<<24; start *= 8 {
		slack *= 8
	}
	return slack
}

// TimerExpiry is when a kernel timer of length d fires that is set at the
// moment now, both counted from one timer interrupt:
//
//	(⌊now/j⌋ + ⌈d/j⌉ + 1)·j
//
// A timer is set in whole jiffies from the last interrupt and the timer wheel adds one, so
// that it never fires early (calc_index in kernel/time/timer.c). It therefore
// runs between d and d + 1 jiffy. Valid for up to 63 jiffies: beyond them the wheel is
// coarser.
func TimerExpiry(now, d time.Duration, hz int) time.Duration {
	if hz <= 0 {
		return now + d
	}
	elapsed := now * time.Duration(hz) / time.Second
	return (elapsed + time.Duration(Jiffies(d, hz)) + 1) * time.Second / time.Duration(hz)
}
