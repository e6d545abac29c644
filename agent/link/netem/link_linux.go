package netem

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/port"
)

// wire is a link that stands. ways[0] shapes what goes from ends 0 to 1.
type wire struct {
	fabric *fabric
	frame  int // the longest, in bytes

	mu     sync.Mutex // guards all below; a change is whole before the next
	closed bool
	nodes  [2]port.End
	ports  [2]*port.End // in the fabric; nil until made
	ways   [2]*way
	zero   [2]link.Counters // counts at the last Rearm

	whole   [2]bool // the sender of the direction puts frames in one piece
	doubled [2]bool // the direction has or had copies
}

var _ link.Link = (*wire)(nil)

// Change replaces the shapes of one direction in place. What waits and what is
// in flight stays, in order: a shorter delay lets no frame overtake those sent before. What does not differ is not touched;
// what does, restarts: a pattern of loss in its good state, a correlated chance without memory, a bottleneck with a full bucket.
// Before kernel 6.6 a change leaves the random generator where it is; from then on it restarts it with the direction's seed.
//
// A queue keeps its discipline and its unit, frames or bytes; a direction without a rate has those of the
// first rate in its schedule, else frames, or the last that it had. The limit of a head-drop cannot change, and that of a
// codel, fq_codel or pie not to less than waits in it, which the kernel would drop. Packets that are lost by
// number stay the same ones.
//
// A change that takes the rate away lets go of all that waits at once. Of more
// than the host's net.core.netdev_max_backlog (1000 frames by default) the
// receiver's stack may drop some, which Counters shows as failed.
func (w *wire) Change(direction int, to link.Direction) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	err := w.linear(direction, to)
	if err == nil {
		err = w.ways[direction].change(to)
	}
	if err != nil {
		return fmt.Errorf("change direction %d: %w", direction, err)
	}
	return nil
}

// linear has the sender of a direction that damages frames put each in one piece: netem
// damages the first piece alone, which would be the headers.
func (w *wire) linear(direction int, d link.Direction) error {
	if w.whole[direction] || !corrupts(d) {
		return nil
	}
	if w.nodes[direction].Plain {
		return errPlain
	}
	if err := port.Linear(w.nodes[direction]); err != nil {
		return err
	}
	w.whole[direction] = true
	return nil
}

// corrupts reports whether any shape of the direction damages frames.
func corrupts(d link.Direction) bool {
	corrupt := d.Shape.Corrupt.Probability > 0
	for _, p := range d.Paths {
		corrupt = corrupt || p.Shape.Corrupt.Probability > 0
	}
	for _, s := range d.Schedule.Steps {
		corrupt = corrupt || s.Shape.Corrupt.Probability > 0
	}
	return corrupt
}

var errPlain = errors.New("netem damages the headers alone of a frame that its sender leaves in pieces: leave the offloads of the link off where it corrupts, or take the wire engine")

// ReadBack decodes the kernel's qdiscs and filters, and the maps of lost packets. A queue given as a time reads back in
// bytes, defaults read back as the values that they are, a reorder gap of 1 as 0. Probabilities are in 2⁻³²,
// rates in whole bytes a second, times of codel, fq_codel and pie in µs, a burst in 64 ns of the rate (and of
// ATM cells). Of the distribution of jitter the kernel tells nothing: it is the one that netem last took.
func (w *wire) ReadBack() ([2]link.Direction, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var read [2]link.Direction
	if w.closed {
		return read, errClosed
	}
	for i, way := range w.ways {
		r, err := way.read()
		if err == nil {
			read[i], err = way.direction(r)
		}
		if err != nil {
			return read, fmt.Errorf("read back direction %d: %w", i, err)
		}
	}
	return read, nil
}

// Counters come from the qdiscs; Failed counts beside them what the veths could
// not hand on. PeakQueue is 0: the kernel keeps no peak. Corrupted is 0: netem does not count what it damages. Cake does
// not tell apart why it dropped: all its drops are Early.
func (w *wire) Counters() ([2]link.Counters, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts, err := w.count()
	if err != nil {
		return counts, err
	}
	for i := range counts {
		c, zero := &counts[i], w.zero[i]
		c.Received -= min(c.Received, zero.Received)
		c.Delivered -= min(c.Delivered, zero.Delivered)
		c.Lost -= min(c.Lost, zero.Lost)
		c.Overflow -= min(c.Overflow, zero.Overflow)
		c.Early -= min(c.Early, zero.Early)
		c.Marked -= min(c.Marked, zero.Marked)
		c.Duplicated -= min(c.Duplicated, zero.Duplicated)
		c.Reordered -= min(c.Reordered, zero.Reordered)
		c.Failed -= min(c.Failed, zero.Failed)
	}
	return counts, nil
}

// Backlog is what waits in the kernel's queues now.
func (w *wire) Backlog() ([2]link.Backlog, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var both [2]link.Backlog
	if w.closed {
		return both, errClosed
	}
	for i, way := range w.ways {
		b, err := way.backlog()
		if err != nil {
			return both, fmt.Errorf("look at the queue of direction %d: %w", i, err)
		}
		zero := w.zero[i]
		b.Overflow -= min(b.Overflow, zero.Overflow)
		b.Early -= min(b.Early, zero.Early)
		b.Marked -= min(b.Marked, zero.Marked)
		both[i] = b
	}
	return both, nil
}

// count is what has happened since the link was made.
func (w *wire) count() ([2]link.Counters, error) {
	var counts [2]link.Counters
	if w.closed {
		return counts, errClosed
	}
	for i, way := range w.ways {
		r, err := way.read()
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		c := sum(r.counters)
		// A frame crosses two veths: from the sender into the fabric, and out of it.
		entry, _, err := frames(w.nodes[i])
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		exit, _, err := frames(*w.ports[1-i])
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		if r.trees[0].delay.duplicate.threshold > 0 || w.doubled[i] {
			// The qdiscs count copies as well.
			w.doubled[i] = true
			_, came, err := frames(*w.ports[i])
			if err != nil {
				return counts, fmt.Errorf("count direction %d: %w", i, err)
			}
			c.Duplicated = c.Received - min(c.Received, came)
			c.Received -= c.Duplicated
		}
		c.Received += entry
		c.Failed += entry + exit
		c.Delivered -= min(c.Delivered, exit)
		counts[i] = c
	}
	return counts, nil
}

// sum is what all trees of a direction counted.
func sum(all []link.Counters) link.Counters {
	var c link.Counters
	for _, a := range all {
		c.Received += a.Received
		c.Delivered += a.Delivered
		c.Lost += a.Lost
		c.Overflow += a.Overflow
		c.Early += a.Early
		c.Marked += a.Marked
		c.Reordered += a.Reordered
		c.Failed += a.Failed
		c.Queued += a.Queued
		c.QueuedSize += a.QueuedSize
	}
	return c
}

// frames is how many frames a veth could not hand to its peer, whose
// processor's backlog was full, and how many its peer handed to it.
func frames(end port.End) (undelivered, came uint64, err error) {
	err = end.NS.Do(func() error {
		device, err := netlink.LinkByName(end.Name)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", end.Name, end.NS.Name(), err)
		}
		if statistics := device.Attrs().Statistics; statistics != nil {
			undelivered, came = statistics.TxDropped, statistics.RxPackets
		}
		return nil
	})
	return undelivered, came, err
}

// Rearm restarts netem's random generators (from kernel 6.6 with the directions' seeds; before, the kernel
// has one generator for all, which goes on), patterns of loss and the numbers of packets, and counts from zero. No traffic may flow meanwhile, or it is counted on both sides.
func (w *wire) Rearm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	for i, way := range w.ways {
		if err := way.rearm(); err != nil {
			return fmt.Errorf("re-arm direction %d: %w", i, err)
		}
	}
	zero, err := w.count()
	if err != nil {
		return fmt.Errorf("re-arm: %w", err)
	}
	w.zero = zero
	return nil
}

// Close removes both ports, and with them their peers in the nodes.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.remove()
}

func (w *wire) remove() error {
	var errs []error
	for _, side := range w.ports {
		if side != nil {
			errs = append(errs, port.Remove(*side))
		}
	}
	for _, way := range w.ways {
		if way != nil {
			errs = append(errs, way.close())
		}
	}
	return errors.Join(errs...)
}
