package access

import (
	"net/netip"
	"sync"
	"time"
)

// How often tokens that do not work may be tried from one address: at once, and one more each interval.
// Guessing 128 bits is hopeless at any rate; this keeps the disk and the log from those who try.
const (
	triesAtOnce = 5
	tryEvery    = 2 * time.Second
)

// maxTried bounds the addresses that are remembered. Beyond it those that may soonest try again are forgotten first.
const maxTried = 10_000

// limiter bounds failures by address. IPv6 counts by /64, which one machine may have all of.
type limiter struct {
	now func() time.Time

	mu   sync.Mutex
	free map[netip.Addr]time.Time // when all tries are there again
}

func newLimiter() *limiter { return &limiter{now: time.Now, free: make(map[netip.Addr]time.Time)} }

// allowed reports whether the address may try now, and else how long it must wait.
func (l *limiter) allowed(address netip.Addr) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	free, known := l.free[place(address)]
	if !known {
		return 0, true
	}
	wait = free.Sub(l.now()) - (triesAtOnce-1)*tryEvery
	return wait, wait <= 0
}

// failed counts a try.
func (l *limiter) failed(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	at := place(address)
	free := l.free[at]
	if free.Before(now) {
		free = now
	}
	l.free[at] = free.Add(tryEvery)
	if len(l.free) <= maxTried {
		return
	}
	soonest := at
	for candidate, when := range l.free {
		if when.Before(now) {
			delete(l.free, candidate)
		} else if when.Before(l.free[soonest]) {
			soonest = candidate
		}
	}
	if len(l.free) > maxTried {
		delete(l.free, soonest)
	}
}

// place is what addresses are counted by.
func place(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if address.Is6() {
		if p, err := address.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return address
}
