package wire

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/prompt"
)

// loop is the side of a link at one port: on a thread of its own it reads what
// the port's node sends and writes what has come for it.
//
// While there is work it makes only system calls that do not block, without
// telling the Go scheduler: it keeps its thread and its processor. When there
// is none it sleeps in ppoll until a frame arrives, the next one is due, or
// somebody calls.
type loop struct {
	from  *lane       // whose frames it reads
	to    *lane       // whose frames it writes, to the same port
	wake  int         // eventfd
	calls chan func() // run between two turns
	stop  bool        // set by a call

	running bool  // has been started
	idle    int64 // idle or never

	realTime bool
	started  time.Time
	polled   [2]unix.PollFd // wake, the port

	ended chan struct{}
	err   error // why it ended, once it has
}

// errEnded is what calls of a loop get after it has been closed.
var errEnded = errors.New("the link is closed")

// newLoop makes a loop. The clock of both loops of a link has the same start.
func newLoop(from, to *lane, started time.Time) (*loop, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an event descriptor: %w", err)
	}
	l := &loop{
		from:    from,
		to:      to,
		wake:    wake,
		calls:   make(chan func(), 1),
		started: started,
		idle:    idle,
		ended:   make(chan struct{}),
		polled: [2]unix.PollFd{
			{Fd: int32(wake), Events: unix.POLLIN},
			{Fd: int32(from.in.fd()), Events: unix.POLLIN},
		},
	}
	// An error says that it has been called often enough.
	to.wake = func() { _ = l.call() }
	return l, nil
}

// start starts the loop. It ends with end, or by itself when a port fails.
func (l *loop) start() {
	l.running = true
	ready := make(chan struct{})
	go func() {
		// Never unlocked: the thread, with its priority, ends with the goroutine.
		runtime.LockOSThread()
		defer close(l.ended)
		defer l.to.handover.end()
		l.realTime = prompt.Thread()
		close(ready)
		l.err = l.run()
	}()
	<-ready
}

// call ends the loop's sleep.
func (l *loop) call() error {
	one := [8]byte{1}
	_, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wake), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	if e != 0 && e != unix.EAGAIN {
		return e
	}
	return nil
}

// now is the loop's clock: monotonic, in ns since it was made.
func (l *loop) now() int64 { return int64(time.Since(l.started)) }

// run turns until a call stops it or a port fails.
func (l *loop) run() error {
	var pace pacer
	for !l.stop {
		worked, err := l.from.receive(l.now)
		if err != nil {
			return fmt.Errorf("read frames: %w", err)
		}
		if l.to.deliver(l.now) {
			worked = true
		}
		select {
		case call := <-l.calls:
			call()
			worked = true
		default:
		}
		switch now := l.now(); {
		case worked:
			pace.worked(now, l.realTime)
		case pace.doze(now) || l.imminent(now):
		default:
			if err := l.sleep(now); err != nil {
				return err
			}
			pace.slept(l.now())
		}
	}
	return errEnded
}

// early is how long before a frame is due the loop is awake, in ns: what a
// timer and a sleeping processor take to wake a thread on common machines.
const early = 60_000

// idle is after how long without any work the loop looks whether its port is
// still there, in ns: a packet socket is not woken when its interface goes. A TAP is, and its loop
// sleeps on: a look takes 60 µs, and a lab may have hundreds of loops with nothing to do.
const idle, never = 1_000_000_000, 3_600_000_000_000

// imminent reports whether the next frame is so nearly due that a sleep would
// end too late.
func (l *loop) imminent(now int64) bool {
	due, some := l.to.due(now)
	return some && due-now <= early
}

// sleep waits until a frame arrives, one is imminent, or somebody calls.
func (l *loop) sleep(now int64) error {
	limit := l.idle
	if due, some := l.to.due(now); some {
		// What arrives meanwhile leaves after what is under way.
		limit = min(limit, max(0, due-now-early))
	} else if !l.to.handover.rest() {
		return nil
	}
	timeout := unix.NsecToTimespec(limit)
	n, err := unix.Ppoll(l.polled[:], &timeout, nil)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for frames: %w", err)
	}
	if n == 0 && limit == l.idle || n > 0 && l.polled[1].Revents&^unix.POLLIN != 0 {
		if err := l.from.in.fault(); err != nil {
			return fmt.Errorf("read frames: %w", err)
		}
	}
	if n > 0 && l.polled[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(l.wake, count[:]) // only resets it
	}
	// A frame would have ended the sleep.
	l.from.empty = l.now()
	return nil
}

// do runs fn on the loop's thread, between two turns. It returns when fn has,
// which is at once: a turn takes some 100 µs.
func (l *loop) do(fn func()) error {
	done := make(chan struct{})
	call := func() { fn(); close(done) }
	select {
	case l.calls <- call:
	case <-l.ended:
		return l.err
	}
	if err := l.call(); err != nil {
		return fmt.Errorf("wake the link: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-l.ended:
		return l.err
	}
}

// end ends the loop and waits until its thread uses nothing any more. It
// returns the error by which the loop had ended before, if it had.
func (l *loop) end() error {
	if !l.running {
		return nil
	}
	err := l.do(func() { l.stop = true })
	<-l.ended
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// release closes what a loop that has ended had open.
func (l *loop) release() error { return unix.Close(l.wake) }
