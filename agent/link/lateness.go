package link

import (
	"iter"
	"math/bits"
	"time"
)

// Lateness says how much later than due frames were handed to the receiver, as a
// histogram: how well an engine kept time on this machine. Frames are due from
// their arrival on, so what an engine read late is late. Zero is a ready value; a copy is a snapshot.
type Lateness struct {
	counts [lateBuckets]uint64
	total  uint64
	sum    time.Duration
	min    time.Duration
	max    time.Duration
}

// Buckets are log-linear: eight to each power of two of nanoseconds, so that a
// quantile is off by an eighth at most; what is later than 2^40 ns (18 min) counts
// into the last.
const (
	lateSteps   = 8
	lateBuckets = lateSteps * 38
)

// Add counts one frame. What is early counts as in time.
func (l *Lateness) Add(late time.Duration) {
	late = max(0, late)
	l.counts[lateBucket(uint64(late))]++
	if l.total == 0 || late < l.min {
		l.min = late
	}
	l.total++
	l.sum += late
	l.max = max(l.max, late)
}

// Merge adds all that the other has counted.
func (l *Lateness) Merge(other *Lateness) {
	if other.total == 0 {
		return
	}
	if l.total == 0 || other.min < l.min {
		l.min = other.min
	}
	for i, n := range other.counts {
		l.counts[i] += n
	}
	l.total += other.total
	l.sum += other.sum
	l.max = max(l.max, other.max)
}

func lateBucket(ns uint64) int {
	exp := max(0, bits.Len64(ns)-4)
	return min(lateBuckets-1, exp*lateSteps+int(ns>>exp))
}

// lateUpper is the greatest value that counts into a bucket.
func lateUpper(bucket int) time.Duration {
	exp := max(0, bucket/lateSteps-1)
	return time.Duration((uint64(bucket-exp*lateSteps)+1)<<exp - 1)
}

// Buckets yields the buckets that hold frames, rising: the greatest lateness that counts
// into each, which for the last is [Lateness.Max], and how many frames did.
func (l *Lateness) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for bucket, n := range l.counts {
			if n > 0 && !yield(l.upper(bucket), n) {
				return
			}
		}
	}
}

// upper is the greatest lateness that a bucket may hold.
func (l *Lateness) upper(bucket int) time.Duration {
	if bucket == lateBuckets-1 {
		return l.max
	}
	return min(l.max, lateUpper(bucket))
}

// Count is the number of frames that were handed over.
func (l *Lateness) Count() uint64 { return l.total }

// Min is the least lateness of all; 0 where there were no frames.
func (l *Lateness) Min() time.Duration { return l.min }

// Mean is the arithmetic mean; 0 where there were no frames.
func (l *Lateness) Mean() time.Duration {
	if l.total == 0 {
		return 0
	}
	return l.sum / time.Duration(l.total)
}

// Max is the greatest lateness of all.
func (l *Lateness) Max() time.Duration { return l.max }

// Quantile is the lateness that the share q of the frames, in [0,1], did not exceed; at
// most an eighth above the true value, and 0 where there were no frames.
func (l *Lateness) Quantile(q float64) time.Duration {
	rank := min(l.total, uint64(max(0, q)*float64(l.total))+1)
	var seen uint64
	for bucket, n := range l.counts {
		if seen += n; n > 0 && seen >= rank {
			return l.upper(bucket)
		}
	}
	return 0
}
