// Package observe reads what the kernel knows about TCP: the state of a
// connection ([ReadInfo], sampled by a [Sampler]), a namespace's sockets ([Diag]) and the
// states they go through ([Sockets]), its counters ([ReadCounters]), and what waits at a
// link ([Queues]). It keeps what was sampled ([Recorder]) and makes Parquet of it once the
// trial is over, and shows the newest while it runs ([Live]).
//
// It refuses to guess. A field that the kernel does not report is 0, as the
// contract says, and a file of /proc that does not have the form that the
// kernel gives it is an error.
package observe

import (
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Sample is TCP_INFO of one end of a flow at one moment.
type Sample struct {
	Flow string    // the flow's name
	End  string    // "client" or "server"
	Time time.Time // when it was read
	Info Info
	// Congestion is all zero unless it was asked for.
	Congestion Congestion
}

// Sink takes samples. Add is called from several goroutines, so it must be safe for
// concurrent use, and it must not block: all sockets are sampled by one thread, which waits
// for it. The sample is the caller's again when it returns.
type Sink interface {
	Add(*Sample)
}

// Sinks hands samples to each of several.
type Sinks []Sink

// Add implements [Sink].
func (all Sinks) Add(s *Sample) {
	for _, sink := range all {
		sink.Add(s)
	}
}

// Window is a congestion window, from a moment on.
type Window struct {
	Time      time.Time // when it was first seen
	Segments  uint32    // snd_cwnd
	Threshold uint32    // snd_ssthresh; 2147483647 while infinite
}

// Series is what a [Watch] saw of one end.
type Series struct {
	// Count of samples taken, the last one among them.
	Count uint64
	// Missed samples were due and could not be taken before the next was.
	Missed uint64
	// Windows are the changes of congestion window or slow-start threshold as
	// sampled, oldest first, the first MaxWindows.
	Windows []Window
	// Last sample of all.
	Last Info
}

// MaxWindows bounds Series.Windows (FlowEnd.cwnd_series of the contract).
const MaxWindows = 512

// add counts a sample and keeps what changed.
func (s *Series) add(now time.Time, info *Info) {
	s.Count++
	s.Last = *info
	if len(s.Windows) == MaxWindows {
		return
	}
	if n := len(s.Windows); n > 0 && s.Windows[n-1].Segments == info.SndCwnd && s.Windows[n-1].Threshold == info.SndSsthresh {
		return
	}
	s.Windows = append(s.Windows, Window{Time: now, Segments: info.SndCwnd, Threshold: info.SndSsthresh})
}

// Changes are the series' windows as the contract sends them, counted from
// start, which is when the client called connect(2).
func (s *Series) Changes(start time.Time) []*tcplabv1.CwndChange {
	changes := make([]*tcplabv1.CwndChange, len(s.Windows))
	for i, w := range s.Windows {
		changes[i] = &tcplabv1.CwndChange{At: duration(w.Time.Sub(start)), SndCwnd: w.Segments, SndSsthresh: w.Threshold}
	}
	return changes
}
