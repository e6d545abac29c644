package observe

import (
	"sync"
	"time"
)

// Watched names what a [Watch] samples.
type Watched struct {
	Flow     string        // the flow's name
	End      string        // "client" or "server"
	Interval time.Duration // between samples, greater than 0
	// FD is the TCP socket, which stays open, and the caller's, until Stop returns.
	FD int
	// Control is the congestion control whose account is read with each sample; "": none.
	Control string
	// Last is TCP_INFO of the last sample, when the watch is stopped; nil: that of FD.
	Last func() (Info, error)
	Sink Sink // may be nil
	// Sampler reads it; nil: one of its own, which ends with the watch.
	Sampler *Sampler
}

// Watch is one end of a connection that a [Sampler] samples until Stop.
type Watch struct {
	what    Watched
	own     *Sampler      // ends with the watch; nil: none
	sampler *Sampler      // nil: nobody reads
	part    part          // of what its congestion control says
	ended   chan struct{} // closed when the sampler's thread reads it no more

	// The sampler's thread's own.
	next    int64  // when it is due first, of the sampler's clock
	index   uint32 // among the watches of a batch
	dropped uint32 // samples that nobody could take
	closed  bool   // the socket is, against the terms
	gone    bool   // it is stopped

	series  Series // the sampler's until there is no more of it
	mu      sync.Mutex
	stopped bool // guarded by mu
}

// NewWatch begins to sample, as [Sampler.Watch] says. The caller stops it.
func NewWatch(what Watched) *Watch {
	if what.Sampler != nil {
		return what.Sampler.Watch(what)
	}
	own, err := NewSampler()
	if err != nil {
		// Out of descriptors: there is the first sample and the last.
		w := &Watch{what: what, part: partOf(what.Control)}
		w.take(time.Now(), func() (Info, error) { return ReadInfo(what.FD) })
		return w
	}
	w := own.Watch(what)
	w.own = own
	return w
}

// Stop takes a last sample, ends the watch and returns what it saw. Stopping
// again returns the same.
func (w *Watch) Stop() Series {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return w.series
	}
	w.stopped = true
	if w.own != nil {
		// It has nothing else to end, and an error of its descriptor harms nobody.
		_ = w.own.Close()
	}
	if w.sampler != nil {
		w.sampler.remove(w)
	}
	last := w.what.Last
	if last == nil {
		last = func() (Info, error) { return ReadInfo(w.what.FD) }
	}
	w.take(time.Now(), last)
	return w.series
}

// take reads once, and reports whether there was something to read. An error says that the socket is closed: there is no more
// to see, and its owner knows why.
func (w *Watch) take(now time.Time, read func() (Info, error)) bool {
	info, err := read()
	if err != nil {
		return false
	}
	sample := Sample{Time: now, Info: info}
	if w.part != noPart {
		// What it does not say is all zero, as the contract has it.
		sample.Congestion, _ = ReadCongestion(w.what.FD, w.what.Control)
	}
	w.add(&sample)
	return true
}

// record takes what the sampler's thread read at that time; the sample is room for it.
func (w *Watch) record(now time.Time, r *record, sample *Sample) {
	w.series.Missed += uint64(r.missed)
	if r.size == 0 {
		return
	}
	sample.Time, sample.Info, sample.Congestion = now, DecodeInfo(r.info[:r.size]), decodeCongestion(w.part, r.congestion[:r.control])
	w.add(sample)
}

func (w *Watch) add(sample *Sample) {
	w.series.add(sample.Time, &sample.Info)
	if w.what.Sink != nil {
		sample.Flow, sample.End = w.what.Flow, w.what.End
		w.what.Sink.Add(sample)
	}
}
