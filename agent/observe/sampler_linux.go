package observe

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/prompt"
)

// Sampler reads the sockets of any number of watches, each as often as it asks for, on one thread of its own.
// Sockets of one interval that began at about the same time are read together, so that a hundred of them cost
// one waking of the thread. Where the process may, the thread comes before all ordinary ones: samples
// are then on time on a machine that flows keep busy. What it read, an ordinary goroutine decodes and hands to the
// watches' sinks, within a tenth of a second.
type Sampler struct {
	wake  int // eventfd
	begin time.Time
	zero  int64         // begin, of the runtime's clock
	spare chan *batch   // empty ones
	news  chan struct{} // there are batches; closed when there will be no more
	ended chan struct{} // closed when all that was read is handed on

	delivery sync.Mutex // held while batches are handed on, in their order; taken before mu

	mu      sync.Mutex // guards what is below
	added   []*Watch   // since the thread last looked
	removed []*Watch   // since the thread last looked
	full    []*batch   // that the thread handed over, oldest first
	ending  bool
	closed  bool
}

const (
	// readyBatches are there from the start, in memory that has been touched: to make one takes time that the thread does not have.
	readyBatches = 3
	// mostBatches is how many may wait for a processor at most, some 20 MB; the samples that come beyond are missed.
	mostBatches = 64
)

// NewSampler starts a sampler, which reads nothing yet. The caller closes it.
func NewSampler() (*Sampler, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start sampling: make an event descriptor: %w", err)
	}
	prompt.MakeWay()
	s := &Sampler{
		wake: wake, begin: time.Now(), zero: nanotime(),
		spare: make(chan *batch, readyBatches), news: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	for range readyBatches {
		b := &batch{}
		clear(b.records[:])
		s.spare <- b
	}
	go s.run()
	go s.deliver()
	return s, nil
}

// Watch takes a first sample at once, the next half an interval later, give or take a quarter unless there are
// many, and from then on one each interval. Round trips are often whole multiples of the interval; half an interval off,
// samples are taken while packets are on their way and not in the moment in which they arrive. The caller
// stops the watch. After Close there is the first and the last sample alone.
func (s *Sampler) Watch(what Watched) *Watch {
	w := &Watch{what: what, sampler: s, part: partOf(what.Control), ended: make(chan struct{})}
	w.what.Interval = max(w.what.Interval, time.Microsecond)
	now := time.Now()
	if !w.take(now, func() (Info, error) { return ReadInfo(what.FD) }) {
		w.sampler = nil // there is nothing to read
		return w
	}
	w.next = int64(now.Sub(s.begin) + w.what.Interval/2)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.added = append(s.added, w)
		s.call()
	}
	return w
}

// remove returns when all samples of the watch are handed on and there will be no more. It waits for the thread alone.
func (s *Sampler) remove(w *Watch) {
	s.mu.Lock()
	until := s.ended
	if !s.closed {
		s.removed = append(s.removed, w)
		s.call()
		until = w.ended
	}
	s.mu.Unlock()
	<-until
	s.drain()
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
	at       int    // which is read next; beyond the last while the turn is over
	missed   uint32 // turns before this one
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
		if nearest.at == len(nearest.watches) {
			nearest.at++ // its turn is over
		}
		nearest.watches = append(nearest.watches, w)
		return herds
	}
	return append(herds, &herd{interval: interval, next: w.next, watches: []*Watch{w}, at: 1})
}

func abs(n int64) int64 { return max(n, -n) }

// leave takes watches out of their herds, and returns the herds that are left.
func leave(herds []*herd, gone []*Watch) []*herd {
	for _, w := range gone {
		w.gone = true
	}
	for _, h := range herds {
		kept := h.watches[:0]
		for i, w := range h.watches {
			if !w.gone {
				kept = append(kept, w)
			} else if i < h.at {
				h.at--
			}
		}
		clear(h.watches[len(kept):])
		h.watches = kept
	}
	return slices.DeleteFunc(herds, func(h *herd) bool { return len(h.watches) == 0 })
}

// run reads until Close.
func (s *Sampler) run() {
	// Never unlocked: the thread, with its priority, ends with the goroutine.
	runtime.LockOSThread()
	defer close(s.news)
	prompt.Thread()
	var herds []*herd
	b := <-s.spare
	for {
		var count [8]byte
		_, _ = unix.Read(s.wake, count[:]) // only resets it
		s.mu.Lock()
		added, removed, ending := s.added, s.removed, s.ending
		s.added, s.removed = nil, nil
		s.mu.Unlock()
		if b.count > 0 {
			b = s.hand(b)
		}
		for _, w := range removed {
			close(w.ended)
		}
		if ending {
			return
		}
		if len(added)+len(removed) > 0 {
			for _, w := range added {
				herds = join(herds, w)
			}
			herds = leave(herds, removed)
			b.watches = nil
			for _, h := range herds {
				for _, w := range h.watches {
					w.index = uint32(len(b.watches))
					b.watches = append(b.watches, w)
				}
			}
		}
		s.sweep(herds, b)
	}
}

// hand has a batch delivered, and returns an empty one for the same watches.
func (s *Sampler) hand(b *batch) *batch {
	watches := b.watches
	s.mu.Lock()
	if len(s.full) >= mostBatches {
		for i := range b.count {
			watches[b.records[i].watch].dropped += 1 + b.records[i].missed
		}
		b.count = 0
		s.mu.Unlock()
		return b
	}
	s.full = append(s.full, b)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default: // it is told already
	}
	select {
	case b = <-s.spare:
	default:
		b = &batch{}
	}
	b.watches = watches
	return b
}

// deliver hands on what was read, until run ends.
func (s *Sampler) deliver() {
	defer close(s.ended)
	for range s.news {
		s.drain()
	}
	s.drain()
}

// drain hands on what was read so far.
func (s *Sampler) drain() {
	s.delivery.Lock()
	defer s.delivery.Unlock()
	s.mu.Lock()
	full := s.full
	s.full = nil
	s.mu.Unlock()
	var sample Sample
	for _, b := range full {
		for i := range b.count {
			r := &b.records[i]
			b.watches[r.watch].record(s.begin.Add(time.Duration(r.time)), r, &sample)
		}
		b.count, b.watches = 0, nil
		select {
		case s.spare <- b:
		default:
		}
	}
}
