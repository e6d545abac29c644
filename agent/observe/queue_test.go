package observe

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestTally(t *testing.T) {
	var all tally
	for n := range uint64(101) {
		all.add(n)
	}
	if all.mean() != 50 || all.quantile(0.5) != 50 || all.quantile(0.99) != 99 || all.quantile(1) != 100 {
		t.Errorf("mean %g, p50 %g, p99 %g, max %g", all.mean(), all.quantile(0.5), all.quantile(0.99), all.quantile(1))
	}
}

// Of more numbers than it has room for a tally still knows count, mean and greatest, and quantiles closely.
func TestTallyIsBounded(t *testing.T) {
	var all tally
	const many = 3 * mostNumbers
	for n := range uint64(many) {
		all.add(n)
	}
	if len(all.seen) > mostNumbers || all.count != many || all.quantile(1) != many-1 {
		t.Errorf("%d numbers, %d counted, greatest %g", len(all.seen), all.count, all.quantile(1))
	}
	if median := all.quantile(0.5); median < many/2-1 || median > many/2+16 {
		t.Errorf("the median of 0 to %d is %g", many-1, median)
	}
}

func TestQueuesAreLookedAt(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	enough := make(chan struct{})
	looks := uint32(0)
	q := NewQueues([]Queued{{Name: "a-b", Read: func() ([2]Backlog, error) {
		if looks++; looks == 20 {
			close(enough)
		}
		return [2]Backlog{{Packets: min(looks, 9), Bytes: 100}, {}}, nil
	}}}, scratch(t))
	q.Start(time.Millisecond)
	<-enough
	if err := q.Stop(); err != nil {
		t.Fatal(err)
	}
	forward, backward := q.Summary(0, 0), q.Summary(0, 1)
	if forward.GetCount() != uint64(looks) || forward.GetMax() != 9 || forward.GetP50() < 5 || forward.GetBytesP99() != 100 || backward.GetMax() != 0 {
		t.Errorf("%d looks: %v and %v", looks, forward, backward)
	}
	var files memory
	if err := q.Finish(&files); err != nil {
		t.Fatal(err)
	}
	rows := readRows[QueueRow](t, files.files[0])
	if len(rows) != 2*int(looks) || rows[0].Link != "a-b" || rows[0].Direction != "forward" || rows[0].Packets != 1 || rows[1].Direction != "backward" {
		t.Errorf("%d rows of %d looks: %+v", len(rows), looks, rows[:2])
	}
}

func TestQueueThatCannotBeRead(t *testing.T) {
	gone := errors.New("gone")
	q := NewQueues([]Queued{{Name: "a-b", Read: func() ([2]Backlog, error) { return [2]Backlog{}, gone }}}, scratch(t))
	q.Start(time.Millisecond)
	q.running.Wait()
	if err := q.Stop(); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	if err := q.Discard(); err != nil || q.Summary(0, 0) != nil {
		t.Errorf("%v, %v", err, q.Summary(0, 0))
	}
}
