package web

import (
	"testing"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
)

// HTTP/2 fetches the page by streams of one connection, whose answers overtake one another.
func TestTwo(t *testing.T) {
	cfg := chain(t)
	flowtest.Leakless(t)
	r := whole(t, cfg, "version: 2, document: 3kB, objects: [{size: 10kB, server_time: 50ms}, {size: 2MB, count: 3}, {size: 1kB, method: POST, body: 300kB}, {size: 1kB, method: HEAD}]")
	h := r.GetHttp()
	if h.GetConnections() != 1 || h.GetRequests() != 7 || h.GetAnswers() != 7 || h.GetExecuted().GetTotal() != 7 || h.GetExecuted().GetPost() != 1 || h.GetBytesReceived() != 300_000 || h.GetBytesRead() != 6_014_000 {
		t.Errorf("%v", h)
	}
	if h.GetOvertaken() == 0 {
		t.Error("no answer has overtaken the slow one")
	}
	if x := h.GetExchanges(); len(x) != 7 || x[1].GetAsked().AsDuration() < x[0].GetDone().AsDuration() || x[1].GetDone().AsDuration() < 50e6 {
		t.Errorf("the document and what follows: %v", x)
	}
	if r.GetClient().GetTcpInfo().GetBytesReceived() == 0 || r.GetClient().GetBytesRead() != r.GetServer().GetBytesWritten() {
		t.Errorf("the client read %d bytes, the server wrote %d", r.GetClient().GetBytesRead(), r.GetServer().GetBytesWritten())
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

// The same page by all ways of using connections, each of which shows in the counters.
func TestPages(t *testing.T) {
	const objects = "objects: [{size: 10kB, count: 6}]"
	for _, c := range []struct {
		name, text                                 string
		connections, reused, requests, peak, bytes uint64
	}{
		{"1.0, one connection each", "version: 1.0, " + objects, 6, 0, 6, 1, 60_000},
		{"1.1, one connection each", "client: {persistent: false}, " + objects, 6, 0, 6, 1, 60_000},
		{"1.1, parallel", "client: {persistent: false, connections: 3}, " + objects, 6, 0, 6, 3, 60_000},
		{"1.0 keep-alive", "version: 1.0, client: {persistent: true}, " + objects, 1, 5, 6, 1, 60_000},
		{"1.1", objects, 1, 5, 6, 1, 60_000},
		{"1.1, two connections", "client: {connections: 2}, " + objects, 2, 4, 6, 2, 60_000},
		{"1.1, pipelined", "client: {pipeline: 4}, " + objects, 1, 5, 6, 1, 60_000},
		{"1.1, pipelined deep", "client: {pipeline: 100}, " + objects, 1, 5, 6, 1, 60_000},
		{"with a document", "document: 1kB, client: {connections: 4}, " + objects, 4, 3, 7, 4, 61_000},
		{"chunked", "server: {framing: chunked, chunk: 3kB}, " + objects, 1, 5, 6, 1, 60_000},
		{"close-delimited", "server: {framing: close_delimited}, " + objects, 6, 0, 6, 1, 60_000},
		{"two requests a connection", "server: {max_requests: 2}, " + objects, 3, 3, 6, 1, 60_000},
		{"a server that keeps none", "server: {keep_alive: false}, " + objects, 6, 0, 6, 1, 60_000},
		{"a large object", "objects: [50MB]", 1, 0, 1, 1, 50_000_000},
		{"a large object in chunks", "objects: [20MB], server: {framing: chunked}", 1, 0, 1, 1, 20_000_000},
		{"HEAD", "objects: [{size: 10kB, method: HEAD, count: 2}, 5B]", 1, 2, 3, 1, 5},
		{"POST", "objects: [{size: 1kB, method: POST, body: 300kB, count: 2}]", 1, 1, 2, 1, 2000},
		{"POST in a pipeline", "client: {pipeline: 9}, objects: [1kB, {size: 1kB, method: POST, body: 3kB}, 1kB]", 1, 2, 3, 1, 3000},
		{"nothing in it", "objects: [{count: 3}]", 1, 2, 3, 1, 0},
		{"half-closed", "client: {half_close: true}, " + objects, 1, 5, 6, 1, 60_000},
		{"with filled heads", "client: {head: 800B}, server: {head: 700B}, objects: [{count: 2}]", 1, 1, 2, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := chain(t)
			flowtest.Leakless(t)
			r := whole(t, cfg, c.text)
			h := r.GetHttp()
			if uint64(h.GetConnections()) != c.connections || uint64(h.GetReused()) != c.reused || uint64(h.GetRequests()) != c.requests ||
				uint64(h.GetPeakConnections()) != c.peak || h.GetBytesRead() != c.bytes || uint64(h.GetAnswers()) != c.requests {
				t.Errorf("%d connections (%d at once), %d reused, %d requests, %d answers, %d bytes; want %d (%d), %d, %d, %d",
					h.GetConnections(), h.GetPeakConnections(), h.GetReused(), h.GetRequests(), h.GetAnswers(), h.GetBytesRead(),
					c.connections, c.peak, c.reused, c.requests, c.bytes)
			}
			for i, want := range map[int]uint32{0: h.GetConnections(), 1: h.GetAnswers()} {
				if got := r.GetHistograms()[i]; got.GetCount() != uint64(want) || len(got.GetHdr()) == 0 {
					t.Errorf("the histogram of %s has %d durations, want %d", got.GetName(), got.GetCount(), want)
				}
			}
			if h.GetExecuted().GetTotal() != h.GetRequests() || h.GetResets()+h.GetServerResets() != 0 || h.GetOvertaken() != 0 {
				t.Errorf("%v executed, %d and %d resets", h.GetExecuted(), h.GetResets(), h.GetServerResets())
			}
			if n := r.GetClient().GetBytesRead(); n != r.GetServer().GetBytesWritten() || r.GetClient().GetBytesWritten() != r.GetServer().GetBytesRead() {
				t.Errorf("the client read %d and wrote %d bytes, the server wrote %d and read %d", n, r.GetClient().GetBytesWritten(), r.GetServer().GetBytesWritten(), r.GetServer().GetBytesRead())
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}
