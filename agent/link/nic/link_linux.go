package nic

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// Link is a link at a host's interface. It is safe for concurrent use.
type Link struct {
	host   *Host
	inner  link.Link
	spec   link.Spec // of the inner link
	end    int       // which end of the link is the host
	divert *divert

	mu     sync.Mutex
	closed bool
	broken error // why the diversion was turned off
	held   int   // who holds the diversion off

	stop, stopped chan struct{} // of the watch
}

var _ link.Link = (*Link)(nil)

// Inner is the link that shapes, whose direction 0 is what the host sends.
func (l *Link) Inner() link.Link { return l.inner }

// RampStep is the inner link's (see schedule.Pace); 0 where it pays nothing for a change.
func (l *Link) RampStep(from, to link.Shape) time.Duration {
	if paced, ok := l.inner.(interface {
		RampStep(from, to link.Shape) time.Duration
	}); ok {
		return paced.RampStep(from, to)
	}
	return 0
}

// Lateness is the inner link's, in the directions of this one; [errors.ErrUnsupported]
// where its engine does not know.
func (l *Link) Lateness() ([2]link.Lateness, error) {
	timed, ok := l.inner.(interface {
		Lateness() ([2]link.Lateness, error)
	})
	if !ok {
		return [2]link.Lateness{}, errors.ErrUnsupported
	}
	late, err := timed.Lateness()
	if l.end == 1 {
		late[0], late[1] = late[1], late[0]
	}
	return late, err
}

// Spec is the inner link's, for a verification in the directions of this one.
func (l *Link) Spec() link.Spec {
	spec := l.spec
	if l.end == 1 {
		spec.Ends[0], spec.Ends[1] = spec.Ends[1], spec.Ends[0]
		spec.Directions[0], spec.Directions[1] = spec.Directions[1], spec.Directions[0]
	}
	return spec
}

// Hold has packets pass by the link until release is called, so that it can be
// measured: they go unshaped, and what is on its way in the link arrives.
func (l *Link) Hold() (release func() error, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return nil, err
	}
	l.held++
	if err := l.divert.turn(false); err != nil {
		l.held--
		return nil, err
	}
	l.drain()
	return func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.held--
		if l.closed || l.broken != nil || l.held > 0 {
			return nil
		}
		return l.divert.turn(true)
	}, nil
}

// usable says why the link is not. The caller holds mu.
func (l *Link) usable() error {
	if l.closed {
		return fmt.Errorf("link %s: the link is closed", l.spec.Name)
	}
	return l.broken
}

// Change replaces the shapes of one direction while traffic flows.
func (l *Link) Change(direction int, to link.Direction) error {
	return l.inner.Change(direction^l.end, to)
}

// ReadBack is what is in force. It fails where somebody has changed what tcplab hung at the
// interface.
func (l *Link) ReadBack() ([2]link.Direction, error) {
	if err := l.look(); err != nil {
		return [2]link.Direction{}, err
	}
	directions, err := l.inner.ReadBack()
	if l.end == 1 {
		directions[0], directions[1] = directions[1], directions[0]
	}
	return directions, err
}

// Counters are what each direction has done so far. They fail where somebody has
// changed what tcplab hung at the interface.
func (l *Link) Counters() ([2]link.Counters, error) {
	if err := l.look(); err != nil {
		return [2]link.Counters{}, err
	}
	counters, err := l.inner.Counters()
	if l.end == 1 {
		counters[0], counters[1] = counters[1], counters[0]
	}
	return counters, err
}

// Backlog is what waits now.
func (l *Link) Backlog() ([2]link.Backlog, error) {
	backlog, err := l.inner.Backlog()
	if l.end == 1 {
		backlog[0], backlog[1] = backlog[1], backlog[0]
	}
	return backlog, err
}

// Rearm restarts the random generators and the counters. What is on its way is lost
// where the inner engine's Rearm loses it.
func (l *Link) Rearm() error { return l.inner.Rearm() }

// Close takes the programs away, then the link. What is on its way arrives, if it does within
// two seconds.
func (l *Link) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	err := l.divert.turn(false)
	l.host.o.Step("turned off")
	l.drain()
	l.mu.Unlock()
	close(l.stop)
	<-l.stopped
	l.host.mu.Lock()
	defer l.host.mu.Unlock()
	l.host.links = slices.DeleteFunc(l.host.links, func(other *Link) bool { return other == l })
	if err = errors.Join(err, l.divert.takeDown(), l.dismantle()); err != nil {
		return fmt.Errorf("close link %s: %w", l.spec.Name, err)
	}
	return nil
}

// dismantle ends link and journal; the programs are gone by now, or the journal stays.
func (l *Link) dismantle() error {
	err := l.inner.Close()
	if l.divert.journal == nil {
		return err
	}
	if len(l.divert.hung) > 0 {
		return errors.Join(err, l.divert.journal.Leave())
	}
	return errors.Join(err, l.divert.journal.Close())
}

const (
	drainWithin = 2 * time.Second
	drainStep   = 2 * time.Millisecond
	watchEvery  = time.Second
)

// drain waits until nothing is on its way in the link.
func (l *Link) drain() {
	deadline := time.Now().Add(drainWithin)
	again := time.NewTicker(drainStep)
	defer again.Stop()
	for time.Now().Before(deadline) {
		counters, err := l.inner.Counters()
		if err != nil {
			return
		}
		empty := true
		for _, c := range counters {
			empty = empty && c.Received+c.Duplicated <= c.Delivered+c.Lost+c.Overflow+c.Early+c.Failed
		}
		if empty {
			return
		}
		<-again.C
	}
}

// watch looks after the link until Close. A link that has failed would swallow what is led
// into it, so the diversion is turned off then.
func (l *Link) watch() {
	l.stop, l.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(l.stopped)
		again := time.NewTicker(watchEvery)
		defer again.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-again.C:
				if err := l.look(); err != nil {
					select {
					case <-l.stop:
						return
					default:
					}
					l.host.o.Log.Error("a host's interface is shaped no more", "link", l.spec.Name, "interface", l.divert.iface.Name, "error", err)
					return
				}
			}
		}
	}()
}

// look is nil while the link does what it should. Otherwise packets pass by it from now on.
func (l *Link) look() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	err := l.divert.intact()
	if _, countErr := l.inner.Counters(); countErr != nil {
		err = errors.Join(err, countErr)
	}
	if err == nil {
		return nil
	}
	l.broken = fmt.Errorf("link %s shapes nothing any more: %w", l.spec.Name, err)
	return errors.Join(l.broken, l.divert.turn(false))
}
