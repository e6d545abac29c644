package theory_test

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/labs/theory"
)

const ms = time.Millisecond

// near reports whether two durations differ by less than half a millisecond,
// the precision of the figures that the tests compare with.
func near(got, want time.Duration) bool { return (got - want).Abs() <= ms/2 }

func TestSerialization(t *testing.T) {
	for _, c := range []struct {
		size int
		rate float64
		want time.Duration
	}{
		{1514, 1e9, 12112 * time.Nanosecond},
		{1250, 10e6, ms},
		{1514, 0, 0},
		{125, 1000, time.Second},
	} {
		if got := theory.Serialization(c.size, c.rate); got != c.want {
			t.Errorf("Serialization(%d, %g) = %v, want %v", c.size, c.rate, got, c.want)
		}
	}
}

func TestHandshake(t *testing.T) {
	if got := theory.Handshake(50*ms, 0); got != 50*ms {
		t.Errorf("without a bottleneck: %v, want 50ms", got)
	}
	// Two frames of 74 bytes at 74 kbit/s: 8 ms each.
	if got := theory.Handshake(50*ms, 74e3); got != 66*ms {
		t.Errorf("at 74 kbit/s: %v, want 66ms", got)
	}
	if got := theory.FirstRequest(50*ms, 3*ms, 100, 100, 0); got != 103*ms {
		t.Errorf("first request: %v, want 2R + S = 103ms", got)
	}
	// Measured at 100 kbit/s and 20 ms with 100 and 500 bytes: 31.84 ms to connect and
	// 90 ms for the request, within a millisecond.
	if got := theory.FirstRequest(20*ms, 0, 100, 500, 100e3) - theory.Handshake(20*ms, 100e3); (got - 90*ms).Abs() > ms {
		t.Errorf("first request at 100 kbit/s: %v, want about 90ms", got)
	}
	if got := theory.FastOpenRequest(50*ms, 3*ms, 100, 100, 0); got != 53*ms {
		t.Errorf("with Fast Open: %v, want R + S = 53ms", got)
	}
}

// The seconds at which Linux sends SYNs again, as Documentation/networking/ip-sysctl.rst
// tells them: doubling before 6.5, four linear timeouts from then on.
func TestSYNDelay(t *testing.T) {
	for _, c := range []struct {
		linear int
		want   []int // seconds, from no SYN lost on
	}{
		{0, []int{0, 1, 3, 7, 15, 31, 63}},
		{4, []int{0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67}},
	} {
		for lost, want := range c.want {
			if got := theory.SYNDelay(lost, c.linear); got != time.Duration(want)*time.Second {
				t.Errorf("SYNDelay(%d, %d) = %v, want %ds", lost, c.linear, got, want)
			}
		}
	}
	if got := theory.SYNDelay(9, 0) - theory.SYNDelay(8, 0); got != theory.MaxTimeout {
		t.Errorf("ninth timeout is %v, want it capped at %v", got, theory.MaxTimeout)
	}
}

func TestRounds(t *testing.T) {
	for _, c := range []struct{ bytes, rounds int }{
		{1, 1}, {14480, 1}, {14481, 2}, {43440, 2}, {43441, 3}, {101360, 3}, {101361, 4}, {217200, 4}, {217201, 5},
	} {
		if got := (theory.Transfer{Bytes: c.bytes}).Rounds(); got != c.rounds {
			t.Errorf("%d bytes take %d rounds, want %d", c.bytes, got, c.rounds)
		}
	}
	if got := (theory.Transfer{Bytes: 14601, MSS: 1460}).Rounds(); got != 2 {
		t.Errorf("14601 bytes at MSS 1460: %d rounds, want 2", got)
	}
	for round, want := range []int{10, 10, 20, 40, 80, 160} {
		if got := (theory.Transfer{}).Window(round); got != want {
			t.Errorf("window of round %d is %d, want %d", round, got, want)
		}
	}
}

// The figures of the closed form and of measurements at 80 ms with 3.6 MB.
func TestSlowStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int
		rtt   time.Duration
		rate  float64
		want  time.Duration
	}{
		{"no bottleneck", 3_600_000, 80 * ms, 0, 720 * ms},
		{"1 Gbit/s", 3_600_000, 80 * ms, 1e9, 735 * ms},
		{"100 Mbit/s", 3_600_000, 80 * ms, 100e6, 868 * ms},
		{"a full first window", 14480, 100 * ms, 0, 200 * ms},
		{"one byte more", 14481, 100 * ms, 0, 300 * ms},
		// A link that is never idle after its first window: two round trips before the first byte,
		// then 691 frames of 1514 bytes and less at 1.2112 ms.
		{"10 Mbit/s, saturated at once", 1_000_000, 10 * ms, 10e6, 20*ms + 837*ms},
	} {
		if got := theory.SlowStart(c.bytes, c.rtt, c.rate); !near(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWriteWriteRead(t *testing.T) {
	for _, c := range []struct {
		rtt  time.Duration
		p    theory.Policy
		hz   int
		want time.Duration
	}{
		{20 * ms, theory.NoDelay, 250, 20 * ms},
		{20 * ms, theory.QuickACK, 250, 40 * ms},
		{20 * ms, theory.Nagle, 1000, 81 * ms},
		{20 * ms, theory.Nagle, 250, 84 * ms},
		{20 * ms, theory.Nagle, 100, 90 * ms},
		{1 * ms, theory.Nagle, 1000, 43 * ms},
		{1 * ms, theory.Nagle, 250, 44 * ms},
		{1 * ms, theory.Nagle, 100, 50 * ms},
		{80 * ms, theory.Nagle, 250, 204 * ms},
		{200 * ms, theory.Nagle, 1000, 441 * ms},
	} {
		if got := theory.WriteWriteRead(c.rtt, c.p, c.hz); got != c.want {
			t.Errorf("WriteWriteRead(%v, %v, %d) = %v, want %v", c.rtt, c.p, c.hz, got, c.want)
		}
	}
}

// The figures of a timer of 60 s, and the bounds of the first levels.
func TestTimerSlack(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		hz   int
		want time.Duration
	}{
		{time.Minute, 250, 2048 * ms},
		{time.Minute, 1000, 4096 * ms},
		{time.Minute, 100, 5120 * ms},
		{62 * ms, 1000, ms},
		{63 * ms, 1000, 8 * ms},
		{503 * ms, 1000, 8 * ms},
		{504 * ms, 1000, 64 * ms},
		{time.Second, 1000, 64 * ms},
		{time.Second, 250, 32 * ms},
	} {
		if got := theory.TimerSlack(c.d, c.hz); got != c.want {
			t.Errorf("TimerSlack(%v, %d) = %v, want %v", c.d, c.hz, got, c.want)
		}
	}
}

// A kernel timer is never early and never more than a jiffy late, wherever
// between two interrupts it is set.
func TestTimerExpiry(t *testing.T) {
	for _, hz := range []int{100, 250, 1000} {
		j := theory.Jiffy(hz)
		for now := time.Duration(0); now < 3*j; now += j / 7 {
			took := theory.TimerExpiry(now, 40*ms, hz) - now
			if took < 40*ms || took > 40*ms+j {
				t.Errorf("HZ %d: a timer of 40ms set at %v takes %v", hz, now, took)
			}
		}
	}
	for _, c := range []struct {
		d        time.Duration
		hz, want int
	}{{40 * ms, 250, 10}, {41 * ms, 250, 11}, {40 * ms, 300, 12}, {40 * ms, 100, 4}, {0, 100, 0}} {
		if got := theory.Jiffies(c.d, c.hz); got != c.want {
			t.Errorf("%v are %d jiffies at HZ %d, want %d", c.d, got, c.hz, c.want)
		}
	}
}
