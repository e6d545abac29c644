package wire

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

// port is one end of a link as the loop sees it. Its methods do not block and
// are called by the loop's thread alone.
type port interface {
	// fd becomes readable when a frame waits.
	fd() int
	// read puts the frame that waited longest into buf, behind the port's header
	// where it has one, and says when it arrived: now, where the port does not know. n = 0: none
	// waits. An error is the port's end.
	read(buf []byte, now int64) (n int, arrival int64, err error)
	// fault is asked when poll reports an error, and now and then: it is the error
	// that is the port's end, or nil.
	fault() error
	// write hands frames with their headers to the receiver, in order, and says which of them
	// were lost. It took the first n, and will soon take more where those are not all.
	write(frames []*frame, lost []bool) (n int)
}

// lane is a direction between two ports. Two loops turn it, one at each port:
// a port's stack runs within its loop's writes, and what it answers the same
// loop reads, on the same processor. It also shares out a bulk transfer evenly,
// whose data cost about as much to send as to receive. A loop for each direction
// had one of them busy and the other half idle: 15% less throughput.
type lane struct {
	in, out port
	header  int    // bytes in front of each frame that are not of the wire
	wake    func() // wakes the loop of out

	// The loop's of in.
	store   *store
	read    list  // not yet handed over
	empty   int64 // when in was last seen empty
	back    list  // to be released
	refused uint64

	handover handover

	// The loop's of out.
	dir       *direction
	arrived   list // not yet offered
	done      list // not yet handed back
	ready     list // frames that are due, and when in their leaves
	delivered uint64
	failed    uint64
	late      link.Lateness
	batch     [batch]*frame // that are being written
	lost      [batch]bool   // of those
}

// newLane makes a lane for frames with so much room, header included.
func newLane(in, out port, room int) *lane {
	return &lane{in: in, out: out, store: newStore(room)}
}

// shaped gives the lane its direction.
func (l *lane) shaped(d link.Direction) {
	l.dir = newDirection(d, l.store.room, l.done.push)
}

// batch is how many frames a lane takes or gives before the others have their
// turn: some 100 µs.
const batch = 32

// receive takes in what has arrived, a batch at most, and hands it over. It
// reports whether there is more to do.
func (l *lane) receive(now func() int64) (bool, error) {
	some, err := l.gather(now)
	passed, wake := l.handover.pass(&l.read, &l.back, &l.refused)
	if wake {
		l.wake()
	}
	for f := l.back.pop(); f != nil; f = l.back.pop() {
		l.store.release(f)
	}
	return some || !passed, err
}

// gather reads a batch.
func (l *lane) gather(now func() int64) (bool, error) {
	for i := range batch {
		buf := l.store.reserve()
		at := now()
		n, arrival, err := l.in.read(buf, at)
		if err != nil {
			return i > 0, err
		}
		if n == 0 {
			l.empty = at
			return i > 0, nil
		}
		if n <= l.header || n == len(buf) {
			l.refused++ // no frame, or one that is longer than the MTU allows
			continue
		}
		f := l.store.commit(n)
		f.size = n - l.header
		f.leaves = arrival
		if arrival == at {
			// A TAP has no time stamps: it came since the port was last seen empty, in the
			// middle of that for all that is known.
			f.unseen = (at - l.empty) / 2
		}
		l.read.push(f)
	}
	return true, nil
}

// deliver hands over what is due, a batch at most, and reports whether there was any.
func (l *lane) deliver(now func() int64) bool {
	collected := l.handover.collect(&l.arrived, &l.done, &l.failed)
	l.offer()
	begin := now()
	for l.ready.frames < batch {
		f := l.dir.next(begin)
		if f == nil {
			break
		}
		l.ready.push(f)
	}
	if l.ready.head == nil {
		return !collected
	}
	due := l.batch[:0]
	for f := l.ready.head; f != nil && len(due) < batch; f = f.next {
		due = append(due, f)
	}
	lost := l.lost[:len(due)]
	n := l.out.write(due, lost)
	// They took their time one after another.
	step := (now() - begin) / int64(max(1, n))
	for i, f := range due[:n] {
		if lost[i] {
			l.failed++
		} else {
			l.delivered++
			l.late.Add(time.Duration(begin + int64(i)*step - f.leaves + f.unseen))
		}
		l.finish(l.ready.pop())
	}
	return n > 0
}

// finish gives back a frame that has been written or lost.
func (l *lane) finish(f *frame) {
	if !l.dir.takes(f) {
		l.done.push(f)
	}
}

// offer gives the direction what has arrived.
func (l *lane) offer() {
	for f := l.arrived.pop(); f != nil; f = l.arrived.pop() {
		l.dir.offer(f.leaves, f)
	}
}

// due is when deliver has work next; false: only after another frame has come in.
func (l *lane) due(now int64) (int64, bool) {
	if l.ready.head != nil {
		return now + busyRetry, true
	}
	return l.dir.due()
}

// busyRetry is how long a busy port is left alone, in ns: the time of some frames.
const busyRetry = 20_000

// settle gives the direction all that was handed over, and takes all that is due
// by now out of it, so that it can be asked or changed. Calls may wait for the lock.
func (l *lane) settle(now int64) {
	l.handover.mu.Lock()
	l.handover.exchange(&l.arrived, &l.done, &l.failed)
	l.handover.mu.Unlock()
	l.offer()
	for f := l.dir.next(now); f != nil; f = l.dir.next(now) {
		l.ready.push(f)
	}
}

// drain throws away the frames that wait in the port. It is the loop's of in.
func (l *lane) drain() error {
	for range drainMost {
		n, _, err := l.in.read(l.store.reserve(), 0)
		if err != nil {
			return fmt.Errorf("empty the port: %w", err)
		}
		if n == 0 {
			break
		}
	}
	return nil
}

// restart empties the lane and its counters, after the port was drained.
func (l *lane) restart(now int64) {
	l.settle(now)
	for f := l.ready.pop(); f != nil; f = l.ready.pop() {
		l.finish(f)
	}
	l.dir.restart(now)
	l.delivered, l.failed = 0, 0
	l.late = link.Lateness{}
}

// drainMost bounds how many frames a port can have waiting.
const drainMost = 1 << 17

// writeEach has one system call write each frame. What answers EAGAIN is busy.
func writeEach(frames []*frame, lost []bool, write func(data []byte) unix.Errno) (n int) {
	for i, f := range frames {
		e := write(f.data)
		if e == unix.EAGAIN {
			return i
		}
		lost[i] = e != 0
	}
	return len(frames)
}
