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
}

var _ link.Link = (*wire)(nil)

// Change replaces the shape of one direction in place. What waits and what is
// in flight stays, in order: a shorter delay lets no frame overtake those sent before.
// A queue's unit, frames or bytes, cannot change; a direction without a rate has one of frames,
// or the last that it had. Before kernel 6.6 a change leaves the
// random generator where it is; from then on it restarts it with the direction's seed.
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
	way := w.ways[direction]
	t, err := plan(to.Shape, way.seed, w.frame)
	if err == nil {
		err = way.change(t)
	}
	if err != nil {
		return fmt.Errorf("change direction %d: %w", direction, err)
	}
	return nil
}

// ReadBack decodes the kernel's qdiscs. A queue given as a time reads back in bytes.
func (w *wire) ReadBack() ([2]link.Direction, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var read [2]link.Direction
	if w.closed {
		return read, errClosed
	}
	for i, way := range w.ways {
		t, _, err := way.read()
		if err != nil {
			return read, fmt.Errorf("read back direction %d: %w", i, err)
		}
		read[i].Shape = t.shape(w.frame)
	}
	return read, nil
}

// Counters come from the qdiscs; Failed counts beside them what the veths could
// not hand on. PeakQueue is 0: the kernel keeps no peak.
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
		c.Failed -= min(c.Failed, zero.Failed)
	}
	return counts, nil
}

// count is what has happened since the link was made.
func (w *wire) count() ([2]link.Counters, error) {
	var counts [2]link.Counters
	if w.closed {
		return counts, errClosed
	}
	for i, way := range w.ways {
		_, c, err := way.read()
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		// A frame crosses two veths: from the sender into the fabric, and out of it.
		entry, err := undelivered(w.nodes[i])
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		exit, err := undelivered(*w.ports[1-i])
		if err != nil {
			return counts, fmt.Errorf("count direction %d: %w", i, err)
		}
		c.Received += entry
		c.Failed += entry + exit
		c.Delivered -= min(c.Delivered, exit)
		counts[i] = c
	}
	return counts, nil
}

// undelivered is how many frames a veth could not hand to its peer, whose
// processor's backlog was full.
func undelivered(end port.End) (frames uint64, err error) {
	err = end.NS.Do(func() error {
		device, err := netlink.LinkByName(end.Name)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", end.Name, end.NS.Name(), err)
		}
		if statistics := device.Attrs().Statistics; statistics != nil {
			frames = statistics.TxDropped
		}
		return nil
	})
	return frames, err
}

// Rearm restarts netem's random generators (from kernel 6.6 with the directions' seeds) and
// counts from zero. No traffic may flow meanwhile, or it is counted on both sides.
func (w *wire) Rearm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	for i, way := range w.ways {
		t, _, err := way.read()
		if err != nil {
			return fmt.Errorf("re-arm direction %d: %w", i, err)
		}
		t.delay.seed = way.seed
		if err := way.requests.change(way.delayAt(), t.delay); err != nil {
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
	return errors.Join(errs...)
}
