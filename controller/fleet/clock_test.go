package fleet

import (
	"testing"
	"time"
)

// exchange is a probe of a clock that is ahead, with these one-way delays.
func exchange(at time.Time, ahead, there, back time.Duration) probe {
	received := at.Round(0).Add(there + ahead)
	sent := received.Add(time.Millisecond) // what the agent took
	return measure(at, there+time.Millisecond+back, received, sent)
}

// The offset of a probe is wrong by no more than half its round trip, however uneven the two ways are.
func TestOffsetIsWithinItsBound(t *testing.T) {
	at := time.Now()
	for _, ahead := range []time.Duration{0, 3 * time.Second, -time.Hour} {
		for _, ways := range [][2]time.Duration{{5, 5}, {0, 10}, {10, 0}, {1, 80}} {
			there, back := ways[0]*time.Millisecond, ways[1]*time.Millisecond
			p := exchange(at, ahead, there, back)
			if p.roundTrip != there+back {
				t.Errorf("ways of %v and %v have a round trip of %v", there, back, p.roundTrip)
			}
			if wrong := (p.offset - ahead).Abs(); wrong > bound(p, p.at) {
				t.Errorf("ahead %v, ways of %v and %v: the offset is wrong by %v, more than %v", ahead, there, back, wrong, bound(p, p.at))
			}
		}
	}
}

// The best of the last probes counts, with an error that grows as it ages; a clock that was set is learnt anew.
func TestClockFilter(t *testing.T) {
	c := newClock()
	if c.message() != nil {
		t.Error("a clock is known before any probe")
	}
	at := time.Now().Add(-time.Minute)
	c.add(exchange(at, time.Second, 10*time.Millisecond, 0))
	c.add(exchange(at.Add(4*time.Second), time.Second, time.Millisecond, time.Millisecond))
	c.add(exchange(at.Add(8*time.Second), time.Second, 0, 30*time.Millisecond))
	m := c.message()
	if m.GetRoundTrip().AsDuration() != 2*time.Millisecond || m.GetOffset().AsDuration() != time.Second {
		t.Errorf("the best of three probes is not taken: %v", m)
	}
	if m.GetError().AsDuration() <= time.Millisecond {
		t.Errorf("the error of an old probe has not grown: %v", m)
	}
	c.add(exchange(at.Add(12*time.Second), time.Hour, 20*time.Millisecond, 20*time.Millisecond))
	if got := c.message().GetOffset().AsDuration(); got != time.Hour {
		t.Errorf("after the clock was set to an hour ahead it is said to be %v ahead", got)
	}
}

// A clock that runs fast is found to, once enough time has passed to tell.
func TestDrift(t *testing.T) {
	const fast = 50e-6
	c := newClock()
	at := time.Now().Add(-time.Hour)
	for n := range 30 {
		passed := time.Duration(n) * 4 * time.Second
		c.add(exchange(at.Add(passed), time.Duration(fast*float64(passed)), time.Millisecond, time.Millisecond))
		if passed < driftOver && c.message().GetDrift() != 0 {
			t.Errorf("after %v a drift of %g is told", passed, c.message().GetDrift())
		}
	}
	if got := c.message().GetDrift(); got < fast*0.9 || got > fast*1.1 {
		t.Errorf("a clock that is %g fast is said to be %g", fast, got)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b  mark
		older bool
	}{
		{mark{1, 9}, mark{2, 1}, true}, {mark{2, 1}, mark{1, 9}, false}, {mark{1, 1}, mark{1, 2}, true}, {mark{1, 1}, mark{1, 1}, false},
	} {
		if c.a.older(c.b) != c.older {
			t.Errorf("%v is older than %v: %v", c.a, c.b, !c.older)
		}
	}
}
