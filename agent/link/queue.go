package link

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// MinQueuePackets is the least queue that the default gives a shaped direction, in packets.
const MinQueuePackets = 100

// Discipline says which packet a bottleneck sends next, and which it drops or marks.
type Discipline string

// The disciplines.
const (
	FIFO     Discipline = "" // the zero value: what finds the queue full is dropped
	HeadDrop Discipline = "head-drop"
	RED      Discipline = "red"
	CoDel    Discipline = "codel"
	FQCoDel  Discipline = "fq_codel"
	CAKE     Discipline = "cake"
	PIE      Discipline = "pie"
)

// String is the discipline's name; "fifo" for the zero value.
func (d Discipline) String() string {
	if d == FIFO {
		return "fifo"
	}
	return string(d)
}

// Queue is what waits for a bottleneck. Of the limits at most one is set; what is
// being sent and what is in flight (Delay) do not count. The zero value means the default,
// which [Direction.Resolve] fills in.
type Queue struct {
	Packets int           // frames
	Bytes   int           // sum of frame lengths
	Time    time.Duration // what Rate sends in this time

	Discipline Discipline
	ECN        bool          // mark (RFC 3168) instead of dropping early; with RED, CoDel, FQCoDel, PIE
	Target     time.Duration // waiting time that CoDel and FQCoDel (5 ms) and PIE (15 ms) hold; 0: that default
	Interval   time.Duration // how long CoDel and FQCoDel watch before they act; CAKE's round trip; 0: 100 ms
	RED        REDThresholds // of RED
}

// REDThresholds are those of random early detection. Zero fields mean the
// defaults, which depend on the limit.
type REDThresholds struct {
	MinBytes    int     // mean queue from which on packets are struck; 0: a twelfth of the limit
	MaxBytes    int     // mean queue at which Probability is reached; 0: a quarter of the limit
	Probability float64 // in (0,1]; 0: 0.02
}

// IsZero reports whether nothing is set.
func (q Queue) IsZero() bool { return q == Queue{} }

// Limited reports whether a limit is set.
func (q Queue) Limited() bool { return q.Packets != 0 || q.Bytes != 0 || q.Time != 0 }

// TargetOrDefault is Target, or the discipline's default (RFC 8289, 4.2; RFC 8033, 4.2 and 5.1).
func (q Queue) TargetOrDefault() time.Duration {
	switch {
	case q.Target > 0:
		return q.Target
	case q.Discipline == PIE:
		return 15 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// IntervalOrDefault is Interval, or 100 ms (RFC 8289, 4.2).
func (q Queue) IntervalOrDefault() time.Duration {
	if q.Interval > 0 {
		return q.Interval
	}
	return 100 * time.Millisecond
}

func (q Queue) validate() error {
	var errs []error
	if q.Packets < 0 || q.Bytes < 0 || q.Time < 0 {
		errs = append(errs, errors.New("the queue's limit is negative"))
	}
	set := 0
	for _, isSet := range []bool{q.Packets != 0, q.Bytes != 0, q.Time != 0} {
		if isSet {
			set++
		}
	}
	if set > 1 {
		errs = append(errs, errors.New("the queue has more than one limit: give packets, bytes or time"))
	}
	d := q.Discipline
	switch d {
	case FIFO, HeadDrop, RED, CoDel, FQCoDel, CAKE, PIE:
	default:
		return errors.Join(append(errs, fmt.Errorf("no queue discipline is called %q", d))...)
	}
	if q.ECN && (d == FIFO || d == HeadDrop || d == CAKE) {
		errs = append(errs, fmt.Errorf("%v has no choice of marking: leave ecn out, or take red, codel, fq_codel or pie", d))
	}
	if q.Target < 0 || q.Target > 0 && d != CoDel && d != FQCoDel && d != PIE {
		errs = append(errs, fmt.Errorf("a target of %v is none for %v", q.Target, d))
	}
	if q.Interval < 0 || q.Interval > 0 && d != CoDel && d != FQCoDel && d != CAKE {
		errs = append(errs, fmt.Errorf("an interval of %v is none for %v", q.Interval, d))
	}
	if q.RED != (REDThresholds{}) && d != RED {
		errs = append(errs, fmt.Errorf("thresholds of red are none for %v", d))
	}
	if r := q.RED; r.MinBytes < 0 || r.MaxBytes < 0 || r.MaxBytes > 0 && r.MaxBytes <= r.MinBytes || !isProbability(r.Probability) {
		errs = append(errs, errors.New("red's thresholds rise, and its probability is between 0 and 1"))
	}
	return errors.Join(errs...)
}

// QueueBytes is the queue's limit in bytes where it is one of bytes or time,
// and 0 where it is one of packets.
func (s Shape) QueueBytes() int {
	if s.Queue.Time > 0 {
		return int(math.Ceil(float64(s.Rate) / 8 * s.Queue.Time.Seconds()))
	}
	return s.Queue.Bytes
}
