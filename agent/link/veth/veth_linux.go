// Package veth is the engine for links that shape nothing: a veth pair directly
// between two nodes, as fast as the kernel is.
//
// It refuses every shape. Unlike a bare veth, its ports are quiet and keep
// frames in order across processors; see package port.
package veth

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/port"
)

// Engine makes unshaped links. They share nothing, so it holds nothing.
type Engine struct{}

var _ link.Engine = Engine{}

// Name is "veth".
func (Engine) Name() string { return "veth" }

// Check refuses a link that is to be shaped.
func (Engine) Check(spec link.Spec) error {
	for i, direction := range spec.Directions {
		if err := unshaped(direction); err != nil {
			return fmt.Errorf("link %s, direction %d: %w", spec.Name, i, err)
		}
	}
	return nil
}

func unshaped(d link.Direction) error {
	if !d.IsZero() {
		return errors.New("a veth pair shapes nothing: leave rate, delay, loss and queue out, or take the engine netem or wire")
	}
	return nil
}

// Create makes the pair.
func (e Engine) Create(ctx context.Context, spec link.Spec) (link.Link, error) {
	if err := errors.Join(e.Check(spec), ctx.Err()); err != nil {
		return nil, err
	}
	w := &wire{}
	for i, end := range spec.Ends {
		w.ends[i] = port.End{NS: end.Node, Name: end.Name, MAC: end.MAC, MTU: end.MTU, Plain: end.Plain}
	}
	if err := port.Veth(w.ends[0], w.ends[1]); err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	return w, nil
}

// Close has nothing to end.
func (Engine) Close() error { return nil }

// wire is a link that stands.
type wire struct {
	ends [2]port.End

	mu     sync.Mutex // guards all below
	closed bool
	zero   [2]link.Counters // counts at the last Rearm
}

var _ link.Link = (*wire)(nil)

var errClosed = errors.New("the link is closed")

// Change refuses every direction but the zero one.
func (w *wire) Change(direction int, to link.Direction) error {
	if err := unshaped(to); err != nil {
		return fmt.Errorf("change direction %d: %w", direction, err)
	}
	return nil
}

// ReadBack is two zero directions, unless something else has hung a qdisc at a port.
func (w *wire) ReadBack() (read [2]link.Direction, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return read, errClosed
	}
	for _, end := range w.ends {
		err := end.NS.Do(func() error {
			device, err := netlink.LinkByName(end.Name)
			if err != nil {
				return err
			}
			qdiscs, err := netlink.QdiscList(device)
			if err != nil {
				return err
			}
			for _, qdisc := range qdiscs {
				if qdisc.Type() != "noqueue" {
					return fmt.Errorf("a qdisc %s hangs at it that tcplab did not set", qdisc.Type())
				}
			}
			return nil
		})
		if err != nil {
			return read, fmt.Errorf("read back %s in %s: %w", end.Name, end.NS.Name(), err)
		}
	}
	return read, nil
}

// Backlog is empty: nothing waits.
func (w *wire) Backlog() ([2]link.Backlog, error) { return [2]link.Backlog{}, nil }

// Counters come from the interfaces. Nothing is lost on purpose and nothing waits;
// Failed are frames that the receiver's processor had no room for.
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
		c.Failed -= min(c.Failed, zero.Failed)
	}
	return counts, nil
}

func (w *wire) count() (counts [2]link.Counters, err error) {
	if w.closed {
		return counts, errClosed
	}
	for i, end := range w.ends {
		err := end.NS.Do(func() error {
			device, err := netlink.LinkByName(end.Name)
			if err != nil {
				return err
			}
			statistics := device.Attrs().Statistics
			if statistics == nil {
				return errors.New("the kernel gives no statistics")
			}
			counts[i] = link.Counters{
				Received:  statistics.TxPackets + statistics.TxDropped,
				Delivered: statistics.TxPackets,
				Failed:    statistics.TxDropped,
			}
			return nil
		})
		if err != nil {
			return counts, fmt.Errorf("count at %s in %s: %w", end.Name, end.NS.Name(), err)
		}
	}
	return counts, nil
}

// Rearm counts from zero.
func (w *wire) Rearm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	zero, err := w.count()
	if err != nil {
		return fmt.Errorf("re-arm: %w", err)
	}
	w.zero = zero
	return nil
}

// Close removes both interfaces.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return port.Remove(w.ends[0])
}
