package observe

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// record is one reading of one socket, as the kernel gave it.
type record struct {
	time    int64  // of the sampler's clock
	watch   uint32 // which of the batch's
	missed  uint32 // before it
	size    uint16 // of info; 0: the socket is closed
	control uint16 // size of congestion
	info    [rawSize]byte
	// congestion is union tcp_cc_info, of the watches that ask for it.
	congestion [congestionSize]byte
}

// rawSize is as much of struct tcp_info as DecodeInfo knows.
const rawSize = 232

// batchRecords is how many records are handed over at a time: some 300 KB, which a processor's cache holds.
const batchRecords = 1024

// handEvery bounds the time that a record waits to be handed over.
const handEvery = 100 * time.Millisecond

// batch is records on their way from the thread that reads to the goroutine that keeps.
type batch struct {
	count   int
	records [batchRecords]record
	watches []*Watch // that the records are of
}

// These are the runtime's own, by which package syscall says that a thread enters the kernel for long, and is back.
// The runtime keeps them for those outside that link to them (go.dev/issue/67401).

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

//go:linkname nanotime runtime.nanotime
func nanotime() int64

// sweep reads the herds whenever they are due, until somebody calls, the batch is full or has waited for long enough.
//
// To the Go runtime all of it is one system call. A thread that comes back from its sleep each ms as Go code
// must find a processor of the runtime's each time, which wakes the runtime's monitor, which soon sees a goroutine that
// has not been scheduled for 10 ms and has it make way: to come back it needs two other threads, which are
// ordinary ones and wait for the flows. That was a third of what sampling cost, and samples missed. Neither does the garbage
// collector stop it, or wait for it.
//
// Therefore nothing here may allocate, store a pointer in the heap, grow the stack, or call what might:
// without a processor of the runtime's there is no write barrier. The race detector needs one, too, and is kept out. Nobody
// else touches the herds, their watches' fields for the sampler, and the batch meanwhile.
//
//go:nosplit
//go:norace
func (s *Sampler) sweep(herds []*herd, b *batch) {
	entersyscall()
	begun := nanotime() - s.zero
	for called := false; !called; {
		next := int64(math.MaxInt64)
		for _, h := range herds {
			now := nanotime() - s.zero
			if h.at == len(h.watches) && now >= h.next {
				// Turns whose time has passed too are missed, not made up for.
				missed := (now - h.next) / h.interval
				h.next += (1 + missed) * h.interval
				h.at, h.missed = 0, uint32(missed)
			}
			for ; h.at < len(h.watches) && b.count < batchRecords; h.at++ {
				if h.at%sameTime == sameTime-1 {
					now = nanotime() - s.zero
				}
				if w := h.watches[h.at]; !w.closed {
					r := &b.records[b.count]
					r.watch, r.missed, r.time = w.index, h.missed+w.dropped, now
					w.dropped = 0
					w.closed = !r.read(w.what.FD, w.part)
					b.count++
				}
			}
			next = min(next, h.next)
		}
		if b.count == batchRecords || b.count > 0 && next >= begun+int64(handEvery) {
			break
		}
		called = pollUntil(s.wake, max(0, next-(nanotime()-s.zero)))
	}
	exitsyscall()
}

// sameTime is how many sockets are read for one reading of the clock: some 10 µs.
const sameTime = 8

// read asks the kernel, and reports whether the socket is open.
//
//go:nosplit
//go:norace
func (r *record) read(fd int, which part) bool {
	size := uint32(rawSize)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&r.info[0])), uintptr(unsafe.Pointer(&size)), 0)
	r.size, r.control = uint16(size), 0
	if errno != 0 {
		r.size = 0
		return false
	}
	if which != noPart {
		size = congestionSize
		// What it does not say is all zero, as the contract has it.
		if _, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_CC_INFO,
			uintptr(unsafe.Pointer(&r.congestion[0])), uintptr(unsafe.Pointer(&size)), 0); errno == 0 {
			r.control = uint16(size)
		}
	}
	return true
}

// longestSleep bounds a sleep with nothing to do.
const longestSleep = time.Hour

// pollUntil sleeps so many ns, or until the event descriptor is called, and reports whether it was.
//
//go:nosplit
//go:norace
func pollUntil(wake int, pause int64) bool {
	pause = min(pause, int64(longestSleep))
	timeout := unix.Timespec{Sec: pause / int64(time.Second), Nsec: pause % int64(time.Second)}
	polled := unix.PollFd{Fd: int32(wake), Events: unix.POLLIN}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&polled)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	return errno == 0 && n > 0
}
