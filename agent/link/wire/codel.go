package wire

import "math"

// codel decides at the head of a queue which frames to drop or mark: controlled
// delay as RFC 8289, section 5, tells it, where names are the same. Times are in ns.
type codel struct {
	target, interval int64
	largest          int // longest frame so far in bytes: less than one waiting is no queue

	firstAbove int64 // when it was first above the target for an interval; 0: it is not
	dropNext   int64
	count      int // drops since it began to drop
	lastCount  int
	dropping   bool
}

// restart forgets all but the settings.
func (c *codel) restart() { *c = codel{target: c.target, interval: c.interval} }

// above reports whether the frame taken out of the queue at the given time may be
// dropped: frames have waited for more than the target throughout an interval. rest is
// how many bytes still wait.
func (c *codel) above(now int64, f *frame, rest int) bool {
	c.largest = max(c.largest, f.size)
	switch {
	case now-f.leaves < c.target || rest <= c.largest:
		c.firstAbove = 0
	case c.firstAbove == 0:
		c.firstAbove = now + c.interval
	default:
		return now >= c.firstAbove
	}
	return false
}

// passed says that a frame did not have to wait.
func (c *codel) passed() {
	c.firstAbove = 0
	c.dropping = false
}

// law is when the next frame after one at t is dropped.
func (c *codel) law(t int64) int64 {
	return t + int64(float64(c.interval)/math.Sqrt(float64(c.count)))
}

// pop takes the next frame out of the queue and strikes those before it that are to go:
// strike drops a frame and returns false, or marks it and returns true, and then
// that one is sent.
func (c *codel) pop(now int64, waiting *list, strike func(*frame) bool) *frame {
	take := func() (*frame, bool) {
		f := waiting.pop()
		if f == nil {
			c.firstAbove = 0
			return nil, false
		}
		return f, c.above(now, f, waiting.bytes)
	}
	f, late := take()
	if c.dropping {
		c.dropping = late
		for c.dropping && now >= c.dropNext {
			c.count++
			if strike(f) {
				c.dropNext = c.law(c.dropNext)
				return f
			}
			f, late = take()
			c.dropping = late
			if late {
				c.dropNext = c.law(c.dropNext)
			}
		}
		return f
	}
	if !late {
		return f
	}
	marked := strike(f)
	if !marked {
		f, _ = take()
	}
	c.dropping = true
	// If it began again soon after it had ended, the rate that held the queue then is
	// where to begin.
	delta := c.count - c.lastCount
	c.count = 1
	if delta > 1 && now-c.dropNext < 16*c.interval {
		c.count = delta
	}
	c.dropNext = c.law(now)
	c.lastCount = c.count
	return f
}
