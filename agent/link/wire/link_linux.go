package wire

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// heldPort is a port with what the loop need not know of.
type heldPort interface {
	port
	// drops is how many frames the kernel dropped between the node and the
	// loop, since the port was made.
	drops() (uint64, error)
	// prepare has the port hold what may be under way in that direction.
	prepare(link.Direction) error
	// close removes the interface.
	close() error
}

// Link is a link that two loops carry. It is safe for concurrent use.
type Link struct {
	engine *Engine
	spec   link.Spec
	ports  [2]heldPort
	lanes  [2]*lane // the loops' while those run
	loops  [2]*loop // each at the port of the same index

	mu       sync.Mutex
	closed   bool
	baseline [2]uint64 // of missed
}

var _ link.Link = (*Link)(nil)

// Change replaces the shapes of one direction from now on. What is on its way stays in order and
// is not lost: frames in the delay keep their time, those in the queue stay even
// above a lower limit, and the frame being sent goes on at the new rate. Queues must be
// resolved. A chain of losses goes on in its state where it stays one of its kind. The
// schedule and the seed of the direction are left alone.
func (l *Link) Change(direction int, to link.Direction) error {
	if direction != 0 && direction != 1 {
		return fmt.Errorf("link %s has directions 0 and 1, not %d", l.spec.Name, direction)
	}
	if err := l.engine.refuse(to, l.spec); err != nil {
		return fmt.Errorf("link %s, direction %d: %w", l.spec.Name, direction, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("link %s: %w", l.spec.Name, errEnded)
	}
	if err := l.ports[direction].prepare(to); err != nil {
		return fmt.Errorf("link %s, direction %d: %w", l.spec.Name, direction, err)
	}
	// Not on the loop's thread: tables take some ms.
	prepared, err := l.lanes[direction].dir.prepare(to)
	if err != nil {
		return fmt.Errorf("link %s, direction %d: %w", l.spec.Name, direction, err)
	}
	return l.do(direction, func(lane *lane, now int64) {
		lane.settle(now)
		lane.dir.change(now, prepared)
	})
}

// ReadBack is what the loops work by now.
func (l *Link) ReadBack() ([2]link.Direction, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var read [2]link.Direction
	err := l.each(func(i int, lane *lane, _ int64) { read[i] = lane.dir.readBack() })
	return read, err
}

// Counters are what the loop has counted; Failed has in addition what the
// kernel dropped on the way to it.
func (l *Link) Counters() ([2]link.Counters, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var counters [2]link.Counters
	err := l.each(func(i int, lane *lane, now int64) {
		lane.settle(now)
		frames, bytes := lane.dir.queued()
		counters[i] = link.Counters{
			Received:   lane.dir.received,
			Delivered:  lane.delivered,
			Lost:       lane.dir.lost,
			Overflow:   lane.dir.overflow,
			Early:      lane.dir.early,
			Marked:     lane.dir.marked,
			Duplicated: lane.dir.duplicated,
			Corrupted:  lane.dir.corrupted,
			Reordered:  lane.dir.reordered,
			Failed:     lane.failed,
			Queued:     frames,
			QueuedSize: bytes,
			PeakQueue:  lane.dir.peak,
		}
	})
	if err != nil {
		return counters, err
	}
	missed, err := l.missed()
	for i := range counters {
		counters[i].Failed += missed[i] - l.baseline[i]
	}
	return counters, err
}

// Backlog is what waits now.
func (l *Link) Backlog() ([2]link.Backlog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var backlog [2]link.Backlog
	err := l.each(func(i int, lane *lane, now int64) {
		lane.settle(now)
		frames, bytes := lane.dir.queued()
		backlog[i] = link.Backlog{Frames: frames, Bytes: bytes, Overflow: lane.dir.overflow, Early: lane.dir.early, Marked: lane.dir.marked}
	})
	return backlog, err
}

// Lateness is how late each direction handed its frames over, counted from their arrival. A TAP
// does not tell that: there it is counted from the middle between the look that found the TAP
// empty and the one that found the frame. What a sleeping loop takes to wake is not in it.
func (l *Link) Lateness() ([2]link.Lateness, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var late [2]link.Lateness
	err := l.each(func(i int, lane *lane, _ int64) { late[i] = lane.late })
	return late, err
}

// RealTime reports whether the link's loops run before all ordinary threads.
// Without that privilege frames are late whenever the machine is busy.
func (l *Link) RealTime() bool { return l.loops[0].realTime && l.loops[1].realTime }

// Rearm empties the link, zeroes its counters and restarts its random
// generators, the numbers of frames and its traces. Frames on their way are discarded and counted nowhere: a new link is empty.
func (l *Link) Rearm() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("link %s: %w", l.spec.Name, errEnded)
	}
	for i, loop := range l.loops {
		var failed error
		err := loop.do(func() { failed = l.lanes[i].drain() })
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("link %s: %w", l.spec.Name, err)
		}
	}
	if err := l.each(func(_ int, lane *lane, now int64) { lane.restart(now) }); err != nil {
		return err
	}
	missed, err := l.missed()
	if err != nil {
		return err
	}
	l.baseline = missed
	return nil
}

// Close removes both interfaces. Frames on their way are lost. A link that is
// closed stays so; closing it again does nothing.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if err := l.release(); err != nil {
		return fmt.Errorf("close link %s: %w", l.spec.Name, err)
	}
	return nil
}

// release ends what there is of the link.
func (l *Link) release() error {
	var errs []error
	for _, loop := range l.loops {
		if loop != nil {
			errs = append(errs, loop.end())
		}
	}
	// Not before both have ended: each wakes the other.
	for _, loop := range l.loops {
		if loop != nil {
			errs = append(errs, loop.release())
		}
	}
	// Both at a time: most of what it takes is waiting for the kernel.
	var group errgroup.Group
	closed := make([]error, len(l.ports))
	for i, port := range l.ports {
		if port != nil {
			group.Go(func() error {
				closed[i] = port.close()
				return nil
			})
		}
	}
	_ = group.Wait() // the errors are in closed
	return errors.Join(append(errs, closed...)...)
}

// do runs fn on the loop that delivers one lane, between two turns. The caller holds mu.
func (l *Link) do(direction int, fn func(lane *lane, now int64)) error {
	if l.closed {
		return fmt.Errorf("link %s: %w", l.spec.Name, errEnded)
	}
	loop := l.loops[1-direction]
	if err := loop.do(func() { fn(l.lanes[direction], loop.now()) }); err != nil {
		return fmt.Errorf("link %s: %w", l.spec.Name, err)
	}
	return nil
}

// each is do for both lanes, one after the other.
func (l *Link) each(fn func(i int, lane *lane, now int64)) error {
	for i := range l.lanes {
		if err := l.do(i, func(lane *lane, now int64) { fn(i, lane, now) }); err != nil {
			return err
		}
	}
	return nil
}

// missed is how many frames of each direction the kernel has dropped between
// the sender and the loop, since the ports were made.
func (l *Link) missed() ([2]uint64, error) {
	var missed [2]uint64
	for i := range l.ports {
		drops, err := l.ports[i].drops()
		if err != nil {
			return missed, fmt.Errorf("link %s: %w", l.spec.Name, err)
		}
		missed[i] = drops
	}
	return missed, nil
}
