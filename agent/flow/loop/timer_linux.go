package loop

import "time"

// Timer calls a function once each time that it is set. It may be a part of what it is for;
// it must not be copied while it is set.
type Timer struct {
	// Func is called on the loop's thread. It may set the timer anew.
	Func func()

	at    time.Duration // since the loop began
	place int           // in the heap, from 1; 0: not set
}

// Set has the timer called at that time, and at no other; a time that has passed is at once,
// after the callback that sets it.
func (l *Loop) Set(t *Timer, at time.Time) {
	t.at = at.Sub(l.began)
	if t.place == 0 {
		l.timers = append(l.timers, t)
		t.place = len(l.timers)
	}
	l.timers.settle(t.place - 1)
}

// Stop has the timer not called. It may be one that is not set.
func (l *Loop) Stop(t *Timer) { l.timers.remove(t) }

// IsSet reports whether the timer is still to be called.
func (t *Timer) IsSet() bool { return t.place != 0 }

// timers is a binary heap, the first to be due at its root.
type timers []*Timer

func (h timers) first() (time.Duration, bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}

// run calls the timers that are due, until over says so. What they set is left for the next run unless
// it is due by now, too.
func (h *timers) run(now time.Duration, over func() bool) {
	for len(*h) > 0 && (*h)[0].at <= now && !over() {
		t := (*h)[0]
		h.remove(t)
		t.Func()
	}
}

func (h *timers) remove(t *Timer) {
	if t.place == 0 {
		return
	}
	hole, last := t.place-1, len(*h)-1
	h.swap(hole, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.place = 0
	if hole < last {
		h.settle(hole)
	}
}

// settle moves the timer at a place to where it belongs.
func (h timers) settle(i int) {
	for i > 0 && h[i].at < h[(i-1)/2].at {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if child >= len(h) || h[i].at <= h[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h timers) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
