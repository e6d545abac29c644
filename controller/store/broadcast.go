package store

import "sync"

// broadcast wakes all who wait, each time something was committed. The zero
// value is ready.
type broadcast struct {
	mu     sync.Mutex
	next   chan struct{}
	closed bool
}

// wait returns a channel that closes at the next wake, or now where the
// broadcast is closed. Take it before looking at what may change: then no
// change is missed.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
		if b.closed {
			close(b.next)
		}
	}
	return b.next
}

// wake wakes those who wait now.
func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil && !b.closed {
		close(b.next)
		b.next = nil
	}
}

// close wakes all, for good.
func (b *broadcast) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil && !b.closed {
		close(b.next)
	}
	b.closed = true
}

func (b *broadcast) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}
