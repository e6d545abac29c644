package observe

import (
	"sync"
	"sync/atomic"
	"time"
)

// Watched names what a [Watch] samples.
type Watched struct {
	Flow     string        // the flow's name
	End      string        // "client" or "server"
	Interval time.Duration // between samples, greater than 0
	// Read is the socket's TCP_INFO. It is called from one goroutine at a time and must not wait, for
	// all other sockets wait for it.
	Read func() (Info, error)
	// Congestion is what its congestion control says of itself, read with each sample; nil: nothing.
	Congestion func() (Congestion, error)
	Sink       Sink // may be nil
	// Sampler reads it; nil: one of its own, which ends with the watch.
	Sampler *Sampler
}

// Watch is one end of a connection that a [Sampler] samples, until Stop, or until before that Read fails
// because the socket is closed.
type Watch struct {
	what Watched
	own  *Sampler    // ends with the watch; nil: none
	next int64       // when it is due, of the sampler's clock; the sampler's own
	gone atomic.Bool // stopped, or its socket is closed

	mu      sync.Mutex // guards what is below
	series  Series
	stopped bool
}

// NewWatch begins to sample, as [Sampler.Watch] says. The caller stops it.
func NewWatch(what Watched) *Watch {
	if what.Sampler != nil {
		return what.Sampler.Watch(what)
	}
	own, err := NewSampler()
	if err != nil {
		// Out of descriptors: there is the first sample and the last.
		w := &Watch{what: what}
		w.sample(time.Now(), 0)
		return w
	}
	w := own.Watch(what)
	w.own = own
	return w
}

// Stop takes a last sample, ends the watch and returns what it saw. Stopping
// again returns the same.
func (w *Watch) Stop() Series {
	if w.own != nil {
		// It has nothing else to end, and an error of its descriptor harms nobody.
		_ = w.own.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.stopped = true
		w.gone.Store(true)
		w.read(time.Now())
	}
	return w.series
}

// sample reads once, at a time that the sampler just read from its clock, and reports whether there was
// something to read.
func (w *Watch) sample(now time.Time, missed uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.series.Missed += missed
	if !w.read(now) {
		w.gone.Store(true)
		return false
	}
	return true
}

func (w *Watch) read(now time.Time) bool {
	info, err := w.what.Read()
	if err != nil {
		// The socket is closed: no more to see, and its owner knows why.
		return false
	}
	w.series.add(now, &info)
	sample := Sample{Flow: w.what.Flow, End: w.what.End, Time: now, Info: info}
	if w.what.Congestion != nil {
		// What it does not say is all zero, as the contract has it.
		sample.Congestion, _ = w.what.Congestion()
	}
	if w.what.Sink != nil {
		w.what.Sink.Add(&sample)
	}
	return true
}
