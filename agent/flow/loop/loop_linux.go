package loop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Handler is told when a descriptor is ready.
type Handler interface {
	// Ready says for what: bits of epoll(7), such as EPOLLIN, EPOLLOUT, EPOLLHUP.
	Ready(events uint32)
}

// Loop calls handlers and timers on one thread. See the package's comment for its terms.
type Loop struct {
	epoll, clock, bell int // an epoll instance, a timerfd, an eventfd
	slots              []slot
	generation         int32
	began              time.Time
	timers             timers
	armed              time.Duration // when the timerfd goes off; 0: it does not
	watchful           watchfulness
	over               bool
	err                error // with which it is over

	mu     sync.Mutex
	posted []func()
	closed bool // nothing is posted any more
}

// slot is what is known of the descriptor whose number is its index.
type slot struct {
	handler    Handler // nil: not this loop's
	generation int32   // tells an event of this descriptor from one of its predecessor of the same number
}

// batch is how many events one call asks for.
const batch = 256

// Run runs a loop in the namespace: it calls start, and then handlers and timers until
// one of them, or start, calls End, start fails, or ctx ends. It returns the reason, with every
// descriptor of the loop closed.
func Run(ctx context.Context, ns *netns.Handle, start func(*Loop) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ns.Do(func() error {
		l, err := open()
		if err != nil {
			return fmt.Errorf("make an event loop: %w", err)
		}
		defer l.close()
		told := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(told)
			l.Post(func() { l.End(context.Cause(ctx)) })
		})
		defer func() {
			if !stop() {
				<-told
			}
		}()
		if err := start(l); err != nil {
			return err
		}
		return l.run()
	})
}

func open() (_ *Loop, err error) {
	l := &Loop{epoll: -1, clock: -1, bell: -1, began: time.Now()}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if l.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	// Each expiry and each ring is an edge: neither is ever read.
	for _, fd := range []int{l.clock, l.bell} {
		if err := l.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, 0); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// close closes all that the loop has.
func (l *Loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.posted = true, nil
	for fd, s := range l.slots {
		if s.handler != nil {
			unix.Close(fd)
		}
	}
	l.slots = nil
	for _, fd := range []int{l.epoll, l.clock, l.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// run waits and calls, until the loop is over.
func (l *Loop) run() error {
	events := make([]unix.EpollEvent, batch)
	for !l.over {
		l.timers.run(time.Since(l.began), func() bool { return l.over })
		if l.over {
			break
		}
		wait, err := l.arm()
		if err != nil {
			return err
		}
		n := 0
		if wait != 0 {
			n = l.watchful.look(l.epoll, events)
		}
		if n == 0 {
			n, err = unix.EpollWait(l.epoll, events, wait)
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		for _, e := range events[:n] {
			l.dispatch(e)
			if l.over {
				break
			}
		}
	}
	return l.err
}

// arm makes the timerfd go off when the first timer is due, and returns for how long to wait
// in epoll's terms: not at all, or without end. A timerfd that goes off before that is left to.
func (l *Loop) arm() (int, error) {
	const notAtAll, withoutEnd = 0, -1
	first, set := l.timers.first()
	if !set || l.armed != 0 && l.armed <= first {
		return withoutEnd, nil
	}
	left := first - time.Since(l.began)
	if left <= 0 {
		return notAtAll, nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(left))}
	if err := unix.TimerfdSettime(l.clock, 0, &spec, nil); err != nil {
		return 0, fmt.Errorf("timerfd_settime: %w", err)
	}
	l.armed = first
	return withoutEnd, nil
}

func (l *Loop) dispatch(e unix.EpollEvent) {
	switch fd := int(e.Fd); {
	case fd == l.clock:
		l.armed = 0
	case fd == l.bell:
		l.mu.Lock()
		posted := l.posted
		l.posted = nil
		l.mu.Unlock()
		for _, f := range posted {
			if !l.over {
				f()
			}
		}
	// A callback before this one may have closed the descriptor.
	case fd < len(l.slots) && l.slots[fd].handler != nil && l.slots[fd].generation == e.Pad:
		l.slots[fd].handler.Ready(e.Events)
	}
}

// Add hands a non-blocking descriptor over to the loop, which tells the handler when it is
// ready for any of the events, or broken. After an error it still is the caller's.
func (l *Loop) Add(fd int, events uint32, h Handler) error {
	l.generation++
	if err := l.control(unix.EPOLL_CTL_ADD, fd, events, l.generation); err != nil {
		return err
	}
	for len(l.slots) <= fd {
		l.slots = append(l.slots, slot{})
	}
	l.slots[fd] = slot{h, l.generation}
	return nil
}

// Rearm tells the handler of a descriptor again what it is ready for, of these events from now on.
func (l *Loop) Rearm(fd int, events uint32) error {
	return l.control(unix.EPOLL_CTL_MOD, fd, events, l.slots[fd].generation)
}

func (l *Loop) control(op, fd int, events uint32, generation int32) error {
	e := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: int32(fd), Pad: generation}
	if err := unix.EpollCtl(l.epoll, op, fd, &e); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	return nil
}

// Close closes a descriptor that was added; its handler is called no more.
func (l *Loop) Close(fd int) error {
	l.slots[fd] = slot{}
	return unix.Close(fd)
}

// Post has f called on the loop's thread, after all that was posted before. It may be called from
// any goroutine and never waits. It reports whether the loop took it: one that is over by the time
// f's turn comes does not call it.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) > 1 {
		return true // it has been rung for
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(l.bell, one[:])
	return err == nil
}

// End ends the loop when the callback returns; Run returns the error, which may be nil. The first
// call counts.
func (l *Loop) End(err error) {
	if !l.over {
		l.over, l.err = true, err
	}
}
