package observe

import (
	"sync"
	"time"
)

// Watched names what a [Watch] samples.
type Watched struct {
	Flow     string               // the flow's name
	End      string               // "client" or "server"
	Interval time.Duration        // between samples, greater than 0
	Read     func() (Info, error) // the socket's TCP_INFO; called from one goroutine at a time
	Sink     Sink                 // may be nil
}

// Watch samples one end of a connection. Its goroutine ends at Stop, or before
// that when Read fails because the socket is closed.
type Watch struct {
	what   Watched
	series Series // the goroutine's until done is closed
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once
}

// NewWatch takes a first sample at once, the next half an interval later, and
// from then on one each interval. Round trips are often whole multiples of the
// interval; half an interval off, the samples are taken while packets are on
// their way and not in the moment in which they arrive. The caller stops the watch.
func NewWatch(what Watched) *Watch {
	w := &Watch{what: what, stop: make(chan struct{}), done: make(chan struct{})}
	w.sample()
	go w.run()
	return w
}

// Stop takes a last sample, ends the watch and returns what it saw. Stopping
// again returns the same.
func (w *Watch) Stop() Series {
	w.once.Do(func() {
		close(w.stop)
		<-w.done
		w.sample()
	})
	return w.series
}

func (w *Watch) run() {
	defer close(w.done)
	ticker := time.NewTicker(max(1, w.what.Interval/2))
	defer ticker.Stop()
	for first := true; ; first = false {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
			if first {
				ticker.Reset(w.what.Interval)
			}
			if !w.sample() {
				return
			}
		}
	}
}

// sample reads once and reports whether there was something to read.
func (w *Watch) sample() bool {
	info, err := w.what.Read()
	if err != nil {
		// The socket is closed: no more to see, and its owner knows why.
		return false
	}
	now := time.Now()
	w.series.add(now, info)
	if w.what.Sink != nil {
		w.what.Sink.Add(Sample{Flow: w.what.Flow, End: w.what.End, Time: now, Info: info})
	}
	return true
}
