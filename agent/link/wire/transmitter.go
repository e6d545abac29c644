package wire

// transmitter is the clock of a bottleneck: when the frame being sent will
// have been sent. It counts in ns and fractions of one: frac/rate ns are carried
// from frame to frame, so that a million frames take what their bits take.
//
// With a burst its clock may be behind: by what the burst takes at most, and as far as it is
// behind frames take no time. That is a token bucket (RFC 3290, 8), told by time.
type transmitter struct {
	rate   uint64 // bit/s; 0: at once
	burst  int    // bytes
	behind int64  // ns that the burst takes
	start  int64  // ns, when the frame being sent began
	at     int64  // ns
	frac   uint64 // of a ns, in units of 1/rate
}

// longAgo is when a new transmitter stood still: its bucket is full.
const longAgo = -1 << 62

// restart makes the transmitter as it was when new.
func (t *transmitter) restart() { t.start, t.at, t.frac = 0, longAgo, 0 }

// setBurst gives the transmitter its burst, after its rate.
func (t *transmitter) setBurst(bytes int) {
	t.burst, t.behind = bytes, 0
	if t.rate > 0 {
		t.behind = int64(float64(bytes) * 8e9 / float64(t.rate))
	}
}

// wait lets the transmitter stand still until the given time, if it has not got there yet.
func (t *transmitter) wait(until int64) {
	t.start = until
	if until-t.behind > t.at {
		t.at, t.frac = until-t.behind, 0
	}
}

// follow lets the next frame begin when the one being sent has ended.
func (t *transmitter) follow() { t.start = t.end() }

// send adds the time that a frame takes.
func (t *transmitter) send(size int) {
	t.add(uint64(size) * 8 * 1e9) // a frame is short of 2^17 bytes: 2^50
}

// add adds the time that so many billionths of a bit take.
func (t *transmitter) add(work uint64) {
	if t.rate == 0 {
		return
	}
	t.at += int64(work / t.rate)
	t.frac += work % t.rate
	if t.frac >= t.rate {
		t.frac -= t.rate
		t.at++
	}
}

// end is the first whole ns at which all has been sent.
func (t *transmitter) end() int64 {
	if t.frac > 0 {
		return max(t.start, t.at+1)
	}
	return max(t.start, t.at)
}

// setRate changes rate and burst from now on: what remains to be sent then goes on at
// the new rate, and what an idle time has saved of the burst stays saved, as bytes.
func (t *transmitter) setRate(rate uint64, burst int, now int64) {
	before := *t
	*t = transmitter{rate: rate, start: min(before.start, now), at: now}
	t.setBurst(burst)
	if before.at >= now {
		t.add(uint64(before.at-now)*before.rate + before.frac) // at most one frame's
		return
	}
	if t.behind == 0 {
		t.at = before.end()
		return
	}
	saved := float64(min(before.behind, now-before.at)) * float64(before.rate) // billionths of a bit
	if before.burst == 0 || before.rate == 0 {
		saved = float64(burst) * 8e9 // there was no need to
	}
	t.at = now - min(t.behind, int64(saved/float64(rate)))
}
