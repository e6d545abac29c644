package observe

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/prompt"
)

// Sampler reads the sockets of any number of watches, each as often as it asks for, on one thread of its own.
// Sockets of one interval that began at about the same time are read together, so that a hundred of them cost
// one waking of the thread. Where the process may, the thread comes before all ordinary ones: samples
// are then on time on a machine that flows keep busy.
type Sampler struct {
	wake  int // eventfd
	begin time.Time
	ended chan struct{}

	mu     sync.Mutex // guards what is below
	added  []*Watch   // since the thread last looked
	ending bool
	closed bool
}

// NewSampler starts a sampler, which reads nothing yet. The caller closes it.
func NewSampler() (*Sampler, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start sampling: make an event descriptor: %w", err)
	}
	prompt.MakeWay()
	s := &Sampler{wake: wake, begin: time.Now(), ended: make(chan struct{})}
	go s.run()
	return s, nil
}

// Watch takes a first sample at once, the next half an interval later, give or take a quarter unless there are
// many, and from then on one each interval. Round trips are often whole multiples of the interval; half an interval off,
// samples are taken while packets are on their way and not in the moment in which they arrive. The caller
// stops the watch. After Close there is the first and the last sample alone.
func (s *Sampler) Watch(what Watched) *Watch {
	w := &Watch{what: what}
	w.what.Interval = max(w.what.Interval, time.Microsecond)
	now := time.Now()
	w.sample(now, 0)
	w.next = int64(now.Sub(s.begin) + w.what.Interval/2)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return w
	}
	s.added = append(s.added, w)
	s.call()
	return w
}

// call ends the thread's sleep. The caller has mu, and s is not closed.
func (s *Sampler) call() {
	one := [8]byte{1}
	// An error says that it has been called often enough.
	_, _ = unix.Write(s.wake, one[:])
}

// Close ends the thread and waits for it. Watches that are not stopped yet still take their last sample.
// It may be called again.
func (s *Sampler) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.ending, s.closed = true, true
	s.call()
	s.mu.Unlock()
	<-s.ended
	return unix.Close(s.wake)
}

// herd is the watches of one interval that are read together.
type herd struct {
	interval int64
	next     int64 // when it is due
	watches  []*Watch
}

// mostHerds bounds the herds of one interval, and with them how often the thread wakes for many sockets.
const mostHerds = 2

// join adds a watch to the herd of its interval whose turn is nearest its own, and makes a herd for it where
// that is a quarter of the interval away and there is none too many.
func join(herds []*herd, w *Watch) []*herd {
	interval := int64(w.what.Interval)
	var nearest *herd
	count := 0
	for _, h := range herds {
		if h.interval != interval {
			continue
		}
		count++
		if nearest == nil || abs(h.next-w.next) < abs(nearest.next-w.next) {
			nearest = h
		}
	}
	if nearest != nil && (count == mostHerds || abs(nearest.next-w.next) <= interval/4) {
		nearest.watches = append(nearest.watches, w)
		return herds
	}
	return append(herds, &herd{interval: interval, next: w.next, watches: []*Watch{w}})
}

func abs(n int64) int64 { return max(n, -n) }

// run reads until Close.
func (s *Sampler) run() {
	// Never unlocked: the thread, with its priority, ends with the goroutine.
	runtime.LockOSThread()
	defer close(s.ended)
	prompt.Thread()
	var herds []*herd
	for {
		s.mu.Lock()
		added, ending := s.added, s.ending
		s.added = nil
		s.mu.Unlock()
		if ending {
			return
		}
		for _, w := range added {
			herds = join(herds, w)
		}
		next := int64(math.MaxInt64)
		for _, h := range herds {
			if now := int64(time.Since(s.begin)); now >= h.next {
				s.turn(h, now)
			}
			next = min(next, h.next)
		}
		herds = slices.DeleteFunc(herds, func(h *herd) bool { return len(h.watches) == 0 })
		s.sleep(next)
	}
}

// turn reads all of a herd. Turns whose time has passed too are missed, not made up for.
func (s *Sampler) turn(h *herd, now int64) {
	missed := (now - h.next) / h.interval
	h.next += (1 + missed) * h.interval
	kept := h.watches[:0]
	for _, w := range h.watches {
		if w.gone.Load() || !w.sample(s.begin.Add(time.Since(s.begin)), uint64(missed)) {
			continue
		}
		kept = append(kept, w)
	}
	clear(h.watches[len(kept):])
	h.watches = kept
}

// longestSleep bounds a sleep with nothing to do.
const longestSleep = time.Hour

// sleep waits until that time of the sampler's clock, or until somebody calls.
func (s *Sampler) sleep(next int64) {
	pause := min(longestSleep, time.Duration(next)-time.Since(s.begin))
	if pause <= 0 {
		return
	}
	timeout := unix.NsecToTimespec(int64(pause))
	polled := [1]unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}}
	n, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&polled[0])), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	if errno == 0 && n > 0 {
		var count [8]byte
		_, _ = unix.Read(s.wake, count[:]) // only resets it
	}
}
