package wire

import (
	"math/bits"
	"time"
)

// Lateness says how much later than due frames were handed to the receiver:
// how well the loop kept time on this machine. Zero is a ready value.
type Lateness struct {
	counts [lateBuckets]uint64
	total  uint64
	max    time.Duration
}

// Buckets are log-linear: eight to each power of two of nanoseconds, so that a
// quantile is off by an eighth at most; what is later than 2^40 ns (18 min) counts
// into the last.
const (
	lateSteps   = 8
	lateBuckets = lateSteps * 38
)

func (l *Lateness) add(late time.Duration) {
	late = max(0, late)
	l.counts[lateBucket(uint64(late))]++
	l.total++
	l.max = max(l.max, late)
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

// Count is the number of frames that were handed over.
func (l *Lateness) Count() uint64 { return l.total }

// Max is the greatest lateness of all.
func (l *Lateness) Max() time.Duration { return l.max }

// Quantile is the lateness that the share q of the frames, in [0,1], did not exceed; at
// most an eighth above the true value, and 0 where there were no frames.
func (l *Lateness) Quantile(q float64) time.Duration {
	rank := min(l.total, uint64(max(0, q)*float64(l.total))+1)
	var seen uint64
	for bucket, n := range l.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(l.max, lateUpper(bucket))
		}
	}
	return 0
}
