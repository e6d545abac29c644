package host

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// hz is the kernel's timer interrupts a second: the coarse clock moves with
// them (kernel: kernel/time/posix-timers.c, posix_get_coarse_res). 0: unknown.
func hz() uint32 {
	tick, err := resolution(unix.CLOCK_MONOTONIC_COARSE)
	if err != nil || tick <= 0 {
		return 0
	}
	return uint32((time.Second + tick/2) / tick)
}

func resolution(clock int32) (time.Duration, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(clock, &res); err != nil {
		return 0, fmt.Errorf("read the clock's resolution: %w", err)
	}
	return time.Duration(res.Nano()), nil
}

// clocks is how finely this host tells and keeps time.
func clocks() []*tcplabv1.Capability {
	fine, err := resolution(unix.CLOCK_MONOTONIC)
	// Without high resolution timers the clock is as coarse as the tick.
	if err == nil && fine > time.Microsecond {
		err = fmt.Errorf("timers have a resolution of %v", fine)
	}
	precise := attempt(groupClock, "hrtimer", fmt.Sprintf("timers have a resolution of %v", fine), err,
		"Take a kernel with high resolution timers (CONFIG_HIGH_RES_TIMERS), booted without highres=off: delays are a tick wrong otherwise.")
	precise.Resolution = durationpb.New(fine)

	tick := attempt(groupClock, "tick", fmt.Sprintf("HZ is %d: TCP's timers go by it", hz()), nil, "")
	if hz() > 0 {
		tick.Resolution = durationpb.New(time.Second / time.Duration(hz()))
	}

	realtime := attempt(groupClock, "realtime", "SCHED_FIFO is allowed: the wire engine is late by tens of microseconds at most", tryRealtime(),
		"Run as root of the host, or give the process CAP_SYS_NICE or a limit of real-time priority (ulimit -r 1). Without it the wire engine is late by hundreds of microseconds on a busy host.")
	return []*tcplabv1.Capability{precise, tick, realtime}
}

// tryRealtime gives this thread the least real-time priority and takes it away
// again.
func tryRealtime() error {
	runtime.LockOSThread()
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("take a real-time priority: %w", err)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_NORMAL}, 0); err != nil {
		// Still locked: the thread ends with its goroutine.
		return errors.Join(errors.New("give a real-time priority back"), err)
	}
	runtime.UnlockOSThread()
	return nil
}
