package theory_test

import (
	"math"
	"testing"
	"time"

	"github.com/tcplab/tcplab/labs/theory"
)

func TestSegments(t *testing.T) {
	for _, c := range []struct {
		mtu        int
		timestamps bool
		want       int
	}{{1500, true, 1448}, {1500, false, 1460}, {576, false, 536}, {9000, true, 8948}} {
		if got := theory.SegmentSize(c.mtu, c.timestamps); got != c.want {
			t.Errorf("SegmentSize(%d, %v) = %d, want %d", c.mtu, c.timestamps, got, c.want)
		}
	}
	for n, want := range map[int]int{0: 1, 1: 1, 1448: 1, 1449: 2, 100_000: 70} {
		if got := theory.Segments(n, 1448); got != want {
			t.Errorf("Segments(%d) = %d, want %d", n, got, want)
		}
	}
	// The figure that everybody quotes for Ethernet without FCS, preamble and gap.
	if got := theory.GoodputShare(1500, true); math.Abs(got-0.9564) > 1e-4 {
		t.Errorf("GoodputShare = %v", got)
	}
	const long, short = 100 * ms, 20 * ms
	for _, c := range []struct {
		server, client time.Duration
		want           int
	}{{0, 0, 2}, {short, short, 2}, {long, 0, 3}, {0, long, 3}, {long, long, 4}} {
		if got := theory.TransactionSegments(c.server, c.client); got != c.want {
			t.Errorf("TransactionSegments(%v, %v) = %d, want %d", c.server, c.client, got, c.want)
		}
	}
}

// Ten objects at 50 ms, by hand.
func TestPage(t *testing.T) {
	p := theory.Page{Objects: 10, RTT: 50 * ms, ServerTime: 10 * ms, ObjectTime: 2 * ms}
	for name, c := range map[string]struct{ got, want time.Duration }{
		"serial":     {p.Serial(), 1120 * ms},
		"parallel 1": {p.Parallel(1), 1120 * ms},
		"parallel 4": {p.Parallel(4), 350 * ms},
		"keep-alive": {p.KeepAlive(), 670 * ms},
		"pipelined":  {p.Pipelined(), 220 * ms},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

// Windows of RFC 9438, table 1: the average window of cubic (C 0.4) and of reno at an RTT of
// 0.1 s, and table 2 at 0.01 s.
func TestCubicWindow(t *testing.T) {
	for _, c := range []struct {
		rtt  time.Duration
		p    float64
		want float64
	}{
		{100 * ms, 1e-2, 12},
		{100 * ms, 1e-3, 38},
		{100 * ms, 1e-4, 187},
		{100 * ms, 1e-5, 1054},
		{10 * ms, 1e-4, 122},
		{10 * ms, 1e-6, 1225},
		{10 * ms, 1e-8, 33327},
	} {
		if got := theory.CubicWindow(c.rtt, c.p); math.Abs(got/c.want-1) > 0.05 {
			t.Errorf("CubicWindow(%v, %g) = %.1f, RFC 9438 has %g", c.rtt, c.p, got, c.want)
		}
	}
}

func TestRates(t *testing.T) {
	// Mathis et al.: 1460 bytes, 100 ms, 1%: 1.22/√p = 12.2 segments a round trip.
	if got := theory.RenoRate(1460, 100*ms, 0.01); math.Abs(got/(12.25*1460*8/0.1)-1) > 0.001 {
		t.Errorf("RenoRate = %v", got)
	}
	if got := theory.BBRRate(10e6, 0.01); got != 9.9e6 {
		t.Errorf("BBRRate = %v", got)
	}
	if got := theory.QueueDelay(125_000, 10e6); got != 100*ms {
		t.Errorf("QueueDelay = %v", got)
	}
	if got := theory.PortLimit(theory.EphemeralPorts); math.Abs(got-470.5) > 0.1 {
		t.Errorf("PortLimit = %v", got)
	}
}
