package web

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// viaText names proxies of kinds, as a lab does.
func viaText(kinds ...string) string {
	text := "via: ["
	for i, kind := range kinds {
		text += "{node: p" + number(i+1) + ", kind: " + kind + ", idle_timeout: 300ms}, "
	}
	return text + "], "
}

func TestSmartProxies(t *testing.T) {
	const objects = "objects: [{size: 10kB, count: 5}]"
	for _, c := range []struct {
		name, text            string
		connections, upstream uint32 // of the client; of the last proxy
	}{
		{"1.1", objects, 1, 1},
		{"1.1, pipelined", "client: {pipeline: 5}, " + objects, 1, 1},
		{"1.1, one each", "client: {persistent: false}, " + objects, 5, 5},
		{"1.0 keep-alive", "version: 1.0, client: {persistent: true}, " + objects, 1, 1},
		{"1.0 by Proxy-Connection", "version: 1.0, client: {persistent: true, proxy_connection: true}, " + objects, 1, 1},
		{"1.0, one each", "version: 1.0, " + objects, 5, 5},
		{"chunked", "server: {framing: chunked, chunk: 1kB}, " + objects, 1, 1},
		{"close-delimited", "server: {framing: close_delimited}, " + objects, 5, 5},
		{"a server that keeps none", "server: {keep_alive: false}, " + objects, 1, 5},
		{"POST", "objects: [{size: 1kB, method: POST, body: 3MB, count: 2}]", 1, 1},
		{"HEAD", "objects: [{size: 1kB, method: HEAD, count: 2}]", 1, 1},
		{"large", "objects: [20MB], server: {framing: chunked}", 1, 1},
		{"idle server", "server: {idle_timeout: 20ms}, client: {think_time: 60ms}, objects: [{size: 1kB, count: 2}]", 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := chain(t, "p1", "p2")
			flowtest.Leakless(t)
			r := whole(t, cfg, viaText("smart", "smart")+c.text)
			h := r.GetHttp()
			last := h.GetProxies()[1]
			if h.GetConnections() != c.connections || last.GetConnections() != c.upstream || last.GetRequests() != h.GetRequests() || last.GetBytesUnread() != 0 {
				t.Errorf("%d connections of the client, %v", h.GetConnections(), last)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Via[0].End, cfg.Via[1].End, cfg.Server)
		})
	}
}

// A dumb proxy that passes `Connection: keep-alive` on is deaf to the second request until the
// server's patience ends (RFC 9112, C.2.2).
func TestDumbProxyHangs(t *testing.T) {
	const idle = 300 * time.Millisecond
	const server = "server: {idle_timeout: 300ms}, objects: [{size: 1kB, count: 3}]"
	for _, c := range []struct {
		name   string
		kinds  []string
		client string
		hangs  int
	}{
		{"keep-alive", []string{"dumb"}, "client: {persistent: true}, ", 3},
		{"keep-alive through a smart one", []string{"smart"}, "client: {persistent: true}, ", 0},
		{"no keep-alive", []string{"dumb"}, "", 0},
		{"Proxy-Connection", []string{"dumb"}, "client: {persistent: true, proxy_connection: true}, ", 0},
		{"Proxy-Connection through a smart one", []string{"smart"}, "client: {persistent: true, proxy_connection: true}, ", 0},
		{"Proxy-Connection, a smart one behind", []string{"dumb", "smart"}, "client: {persistent: true, proxy_connection: true}, ", 3},
		{"Proxy-Connection, a dumb one behind", []string{"smart", "dumb"}, "client: {persistent: true, proxy_connection: true}, ", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			names := []string{"p1", "p2"}[:len(c.kinds)]
			cfg := chain(t, names...)
			flowtest.Leakless(t)
			r := fetch(t, cfg, viaText(c.kinds...)+"version: 1.0, "+c.client+server)
			h := r.GetHttp()
			if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED || h.GetAnswers() != 3 || h.GetExecuted().GetGet() != 3 {
				t.Errorf("%s, %s: %d answers, %d executed", r.GetOutcome(), r.GetError(), h.GetAnswers(), h.GetExecuted().GetGet())
			}
			// The last request's answer comes at once: the client has it before the server's
			// patience ends.
			waits := int(h.GetPageTime().AsDuration() / idle)
			if want := max(0, c.hangs-1); waits != want || (h.GetRetries() > 0) != (want > 0) {
				t.Errorf("%s: %d times the idle timeout, want %d; %d retries", h.GetPageTime().AsDuration(), waits, want, h.GetRetries())
			}
			unread := uint32(0)
			for _, p := range h.GetProxies() {
				unread = max(unread, p.GetBytesUnread())
			}
			if (unread > 0) != (c.hangs > 0) {
				t.Errorf("%d bytes unread", unread)
			}
		})
	}
}

// A proxy that finds nobody behind it says so.
func TestProxyWithoutServer(t *testing.T) {
	cfg := chain(t, "p1")
	flowtest.Leakless(t)
	f, err := New(spec(t, cfg, viaText("smart")+"objects: [1kB]"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.proxies[0].next = netipPort(f.proxies[0].next, 9)
	r := f.Run(t.Context())
	f.Close()
	if x := r.GetHttp().GetExchanges()[0]; x.GetStatus() != 502 || x.GetOutcome() == tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED || r.GetError() == "" {
		t.Errorf("%v: %s", x, r.GetError())
	}
}
