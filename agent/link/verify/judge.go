package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// sighting is what was seen of one frame.
type sighting struct {
	sent, arrived time.Duration // since the epoch; arrived is that of the first copy
	copies        int           // that arrived
	damaged       int           // of them
	rank          int           // place among the first copies in the order of their arrival, from 1
	overtaken     bool          // a frame that was sent later arrived before
}

// delay is how long it took.
func (s sighting) delay() time.Duration { return s.arrived - s.sent }

// observation is what probing one stream saw in one attempt.
type observation struct {
	frames   []sighting // in the order in which they were sent: for delay, counted, in trains
	counted  int        // probes sent
	trains   []train    // those sent whole
	armed    time.Duration
	overrun  bool // the receiver, or this host before it, lost frames: counts and trains are void
	cut      bool // time was up while something that is missing might still have come
	overflow bool // the link's queue dropped frames, or its engine did
	foreign  bool // other frames than probes crossed the link
}

// singles is how many frames were sent that are in no train.
func (o observation) singles() int {
	n := len(o.frames)
	for _, t := range o.trains {
		n -= t.frames
	}
	return max(0, n)
}

// void says why the probes cannot be counted; "" if they can.
func (o observation) void() string {
	singles := o.frames[:o.singles()]
	switch {
	case o.counted == 0:
		return "no probe was sent"
	case !slices.ContainsFunc(singles, func(s sighting) bool { return s.copies == 0 }):
		return ""
	case o.overrun:
		return "this host was too busy to receive all probes"
	case o.overflow:
		return "this host stood still and probes overflowed the queue"
	case o.cut:
		return "time was up before all probes could arrive"
	default:
		return ""
	}
}

// judge compares what is seen of a stream, in one attempt after another, with what was asked.
type judge struct {
	subject
	plan       plan
	falseAlarm float64

	// Of all attempts so far, since losses know no attempts.
	frames []counted
	trains []train
}

// counted is a frame that counts, or of which it is not known what became.
type counted struct {
	sighting
	known bool
	first bool // of an attempt
}

// judge takes one attempt, and judges by all so far what is counted, by this one what is
// timed.
func (j *judge) judge(seen observation) Stream {
	s := Stream{Path: j.path, Asked: j.shape}
	if j.hidden != nil {
		s.Findings[Delay] = Finding{Verdict: Unproven, Detail: j.hidden.Error()}
		return s
	}
	void := seen.void()
	for i, f := range seen.frames {
		j.frames = append(j.frames, counted{f, void == "" && i < seen.singles(), i == 0})
	}
	if !seen.overrun {
		j.trains = append(j.trains, seen.trains...)
	}
	m, f := &s.Measured, &s.Findings
	f[Loss] = j.judgeLoss(seen, void, m)
	if j.shape.Down {
		for _, q := range []Quantity{Delay, Rate} {
			f[q] = Finding{Verdict: Unproven, Detail: "the link is down"}
		}
		return s
	}
	f[Delay], f[Jitter] = j.judgeDelay(seen, m)
	f[Order] = j.judgeOrder(seen, m)
	f[Duplicate] = j.judgeDuplicates(m)
	f[Corrupt] = j.judgeDamage(m)
	f[Reorder] = j.judgeReorder()
	switch {
	case j.trace != nil:
		f[Rate] = j.judgeTrace(seen, m)
	case j.shape.Rate == 0:
		f[Rate] = j.judgeFree(seen, m)
	default:
		f[Rate] = j.judgeRate(seen, m)
		f[Overhead] = j.judgeOverhead(seen)
		f[Burst] = j.judgeBurst()
	}
	return s
}

// again reports whether another attempt may tell more.
func (s Stream) again() bool {
	return slices.ContainsFunc(s.Findings[:], func(f Finding) bool { return f.again })
}

// merge joins an earlier judgement with that of a later attempt. What passed once
// has passed, for it takes more than a host's lateness to make a wrong link look
// right in steady trains or by its least delay; what failed
// stays failed where the later attempt proved nothing. What is counted is counted over
// all attempts, so that the later finding is the right one unless it proved nothing.
func merge(earlier, later Stream) Stream {
	for q := range quantities {
		was, is := earlier.Findings[q].Verdict, later.Findings[q].Verdict
		switch q {
		case Loss, Duplicate, Corrupt, Reorder:
			if is != Unproven || was == Unproven {
				continue
			}
		default:
			if is == Passed || was == Unproven || was == Failed && is == Failed {
				continue
			}
		}
		later.Findings[q] = earlier.Findings[q]
		later.Measured.take(q, earlier.Measured)
	}
	return later
}

// take takes over what the other says of the quantity.
func (m *Measured) take(q Quantity, from Measured) {
	switch q {
	case Delay:
		m.Delay = from.Delay
	case Jitter:
		m.Jitter = from.Jitter
	case Order:
		m.Reordered = from.Reordered
	case Rate:
		m.RateBps = from.RateBps
	case Loss:
		m.Loss, m.Sent, m.Received = from.Loss, from.Sent, from.Received
	case Duplicate:
		m.Duplicated = from.Duplicated
	case Corrupt:
		m.Corrupted = from.Corrupted
	}
}

// percent writes a share for people.
func percent(share float64) string { return fmt.Sprintf("%.3g%%", 100*share) }

// share is part of whole; 0 of nothing.
func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// inOrder reports whether nothing that the shape asks lets packets overtake one another; flows that
// are queued apart do.
func inOrder(s link.Shape) bool {
	d := s.Queue.Discipline
	return s.Reorder.IsZero() && !s.Jitter.Reorder && d != link.FQCoDel && d != link.CAKE
}
