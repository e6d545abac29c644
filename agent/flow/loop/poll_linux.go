package loop

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// looks is how often a loop looks for events before it sleeps: some 50 µs, what a peer on another
	// processor takes for a short answer. To sleep and be woken costs as much.
	looks = 100
	// trust is how many looks in vain in a row end the looking.
	trust = 8
	// seldom is how rarely a loop that has stopped looking tries whether it has become worthwhile.
	seldom = 256
)

// watchfulness decides whether to look for events before sleeping: as long as that finds some. The zero
// value is of a loop that has found none yet.
type watchfulness struct {
	credit int // looks in vain that are left
	waits  int // since the last try
}

// look looks for events: for a short while if that has been worthwhile, else once. A loop that has much to do
// finds some then, and need not tell Go's scheduler that it might sleep: whose monitor would watch it at every
// 20 µs. With one processor a while is never worthwhile: nobody could make any events meanwhile.
func (w *watchfulness) look(epoll int, events []unix.EpollEvent) int {
	times := looks
	if w.waits++; w.credit == 0 && w.waits%seldom != 0 || runtime.NumCPU() == 1 {
		times = 1
	}
	for range times {
		// It does not wait: Go's scheduler need not be told.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno == 0 && n > 0 {
			if times > 1 {
				w.credit = trust
			}
			return int(n)
		}
	}
	w.credit = max(0, w.credit-1)
	return 0
}
