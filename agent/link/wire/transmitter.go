package wire

// transmitter is the clock of a bottleneck: when the frame being sent will
// have been sent. It counts in ns and fractions of one: frac/rate ns are carried
// from frame to frame, so that a million frames take what their bits take.
type transmitter struct {
	rate uint64 // bit/s; 0: at once
	at   int64  // ns
	frac uint64 // of a ns, in units of 1/rate
}

// wait lets the transmitter stand still until the given time, if it has not got there yet.
func (t *transmitter) wait(until int64) {
	if until > t.at {
		t.at, t.frac = until, 0
	}
}

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
		return t.at + 1
	}
	return t.at
}

// setRate changes the rate from now on: what remains to be sent then goes on at
// the new one.
func (t *transmitter) setRate(rate uint64, now int64) {
	if t.end() <= now {
		*t = transmitter{rate: rate, at: t.end()}
		return
	}
	work := uint64(t.at-now)*t.rate + t.frac // at most one frame's
	*t = transmitter{rate: rate, at: now}
	t.add(work)
}
