package web

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/link"
)

// TestRoundTrips counts what a page costs in round trips of a link with delay: never less, in any
// repetition, and less than one more in the best of five, for all that a busy machine can do is delay.
func TestRoundTrips(t *testing.T) {
	const delay = 20 * time.Millisecond
	const objects = "objects: [{size: 1kB, count: 6}]"
	cfg := shaped(t, link.Shape{Delay: delay})
	flowtest.Leakless(t)
	whole(t, cfg, "objects: [1B]") // which resolves the neighbours
	for _, c := range []struct {
		name, text string
		trips      int
	}{
		{"serial", "client: {persistent: false}, " + objects, 12},
		{"two in parallel", "client: {persistent: false, connections: 2}, " + objects, 6},
		{"six in parallel", "client: {persistent: false, connections: 6}, " + objects, 2},
		{"keep-alive", objects, 7},
		{"pipelined", "client: {pipeline: 6}, " + objects, 2},
		{"document, then parallel", "document: 1kB, client: {connections: 6}, " + objects, 4},
		// Each answer is two small segments, and the initial window is ten.
		{"HTTP/2", "version: 2, objects: [{size: 1kB, count: 2}]", 2},
	} {
		least := time.Duration(c.trips) * 2 * delay
		best := limit
		for i := 0; i < 5 && best >= least+2*delay; i++ {
			took := whole(t, cfg, c.text).GetHttp().GetPageTime().AsDuration()
			if took < least {
				t.Errorf("%s took %s, less than %d round trips", c.name, took, c.trips)
			}
			best = min(best, took)
		}
		if best >= least+2*delay {
			t.Errorf("%s took %s at best: %d round trips are %s", c.name, best, c.trips, least)
		}
	}
}

// TestPhases reads the parts of a transaction: handshake, first byte with the server's time, body.
func TestPhases(t *testing.T) {
	const delay, work = 20 * time.Millisecond, 50 * time.Millisecond
	cfg := shaped(t, link.Shape{Delay: delay, Rate: 10_000_000, Queue: link.Queue{Packets: 1000}})
	flowtest.Leakless(t)
	whole(t, cfg, "objects: [1B]") // which resolves the neighbours
	r := whole(t, cfg, "objects: [{size: 12kB, server_time: 50ms}]")
	p := r.GetHttp().GetFirst()
	connect, first, body := p.GetConnect().AsDuration(), p.GetFirstByte().AsDuration(), p.GetBody().AsDuration()
	// 12 kB are 9 segments, 8 of which come behind the first at 10 Mbit/s; a late reader finds some of them
	// with it.
	if connect < 2*delay || first < 2*delay+work || first+body < 2*delay+work+8*time.Millisecond || p.GetTotal().AsDuration() < connect+first+body {
		t.Errorf("connect %s, first byte %s, body %s, total %s", connect, first, body, p.GetTotal().AsDuration())
	}
	if x := r.GetHttp().GetExchanges()[0]; x.GetDone().AsDuration() < p.GetTotal().AsDuration() || x.GetBytes() != 12_000 || x.GetStatus() != 200 {
		t.Errorf("%v in %s", x, p.GetTotal().AsDuration())
	}
}
