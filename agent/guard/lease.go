// Package guard sees to it that what an agent made does not outlive its use. A
// deployment stands on a lease: a controller that vanishes stops renewing it,
// and the lease's end takes the deployment away.
//
// Time is the process's monotonic clock; setting the wall clock ends no lease.
// The package refuses to renew a lease that has ended: what stood on it may be
// half gone.
package guard

import (
	"context"
	"sync"
	"time"
)

// Leases are what still has an owner. Its zero value is not usable; see
// [NewLeases]. Methods are safe for concurrent use.
type Leases struct {
	mu      sync.Mutex
	byID    map[string]lease
	changed chan struct{} // holds one token after a change
}

type lease struct {
	length time.Duration
	ends   time.Time // with its monotonic reading
}

// NewLeases returns an empty set of leases, that [Leases.Run] ends.
func NewLeases() *Leases {
	return &Leases{byID: make(map[string]lease), changed: make(chan struct{}, 1)}
}

// Grant starts a lease, or starts it anew with another length.
func (l *Leases) Grant(id string, length time.Duration) {
	l.mu.Lock()
	l.byID[id] = lease{length: length, ends: time.Now().Add(length)}
	l.mu.Unlock()
	l.wake()
}

// Renew starts a lease anew with its length, and reports whether there was one.
func (l *Leases) Renew(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.byID[id]
	if ok {
		held.ends = time.Now().Add(held.length)
		l.byID[id] = held
	}
	return ok
}

// Drop ends a lease without any consequence. One that has ended is no error.
func (l *Leases) Drop(id string) {
	l.mu.Lock()
	delete(l.byID, id)
	l.mu.Unlock()
}

// Run calls expired for each lease that comes to its end, one call at a time,
// until ctx ends. The lease is gone by then. The caller owns the goroutine.
func (l *Leases) Run(ctx context.Context, expired func(id string)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		id, wait, some := l.next()
		if some && wait <= 0 {
			if l.take(id) {
				expired(id)
			}
			continue
		}
		// Without a lease there is nothing to wait for but a grant.
		var due <-chan time.Time
		if some {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-l.changed:
		case <-ctx.Done():
			return
		}
	}
}

// next is the lease that ends first, and how long that is from now.
func (l *Leases) next() (id string, wait time.Duration, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for candidate, held := range l.byID {
		if left := time.Until(held.ends); !some || left < wait {
			id, wait, some = candidate, left, true
		}
	}
	return id, wait, some
}

// take removes a lease that has ended, unless it was renewed meanwhile.
func (l *Leases) take(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.byID[id]
	if !ok || time.Until(held.ends) > 0 {
		return false
	}
	delete(l.byID, id)
	return true
}

func (l *Leases) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}
