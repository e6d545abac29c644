package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/agent/link/wire"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when a flow that should long have ended is given up: no figure, only
// the end of a test that hangs.
const limit = 30 * time.Second

// chain are nodes one behind the other, joined by veths: client, the proxies, server.
func chain(t testing.TB, proxies ...string) Config {
	t.Helper()
	return shaped(t, link.Shape{}, proxies...)
}

// shaped is chain with links that do that to packets in each direction.
func shaped(t testing.TB, shape link.Shape, proxies ...string) Config {
	t.Helper()
	engine := link.Engine(nil)
	if !shape.IsZero() {
		need.TUN(t)
		made, err := wire.New(wire.Options{})
		if err != nil {
			t.Fatal(err)
		}
		engine = made
		t.Cleanup(func() { engine.Close() })
	}
	need.NetNS(t)
	names := append(append([]string{"client"}, proxies...), "server")
	ends := make([]flow.End, len(names))
	outs := make([]netip.Addr, len(names))
	for i, name := range names {
		ends[i] = flow.End{Node: name, NS: flowtest.Namespace(t, name)}
	}
	for i := range ends[1:] {
		near, far := fmt.Sprintf("10.77.%d.1", i), fmt.Sprintf("10.77.%d.2", i)
		left, right := fmt.Sprintf("r%d", i), fmt.Sprintf("l%d", i)
		if engine == nil {
			err := port.Veth(
				port.End{NS: ends[i].NS, Name: left, MTU: 1500},
				port.End{NS: ends[i+1].NS, Name: right, MTU: 1500})
			if err != nil {
				t.Fatal(err)
			}
		} else {
			way := link.Direction{Shape: shape, Seed: 1}
			made, err := engine.Create(t.Context(), link.Spec{Name: left, Directions: [2]link.Direction{way, way}, Ends: [2]link.Port{
				{Node: ends[i].NS, Name: left, MAC: net.HardwareAddr{2, 0, 0, 0, byte(i), 1}, MTU: 1500},
				{Node: ends[i+1].NS, Name: right, MAC: net.HardwareAddr{2, 0, 0, 0, byte(i), 2}, MTU: 1500},
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { made.Close() })
		}
		address(t, ends[i], left, near)
		address(t, ends[i+1], right, far)
		outs[i], ends[i+1].Addr = netip.MustParseAddr(near), netip.MustParseAddr(far)
	}
	last := len(names) - 1
	ends[0].Addr = outs[0]
	cfg := Config{Config: flow.Config{Client: ends[0], Server: ends[last], Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	for i := 1; i < last; i++ {
		cfg.Via = append(cfg.Via, Hop{End: ends[i], Out: outs[i]})
	}
	return cfg
}

func address(t testing.TB, end flow.End, device, addr string) {
	t.Helper()
	err := end.NS.Do(func() error {
		found, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(found, a)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// spec reads a flow as a lab has it: what stands behind http: {from: client, to: server.
func spec(t testing.TB, cfg Config, text string) *tcplabv1.Flow {
	t.Helper()
	via := ""
	content := "name: test\nnodes: [client, server"
	links := "links:\n"
	from := "client"
	for _, hop := range cfg.Via {
		content += ", " + hop.Node
		links += fmt.Sprintf("  - {between: [%s, %s]}\n", from, hop.Node)
		from = hop.Node
		via += hop.Node + ", "
	}
	links += fmt.Sprintf("  - {between: [%s, server]}\n", from)
	content += "]\n" + links + "experiments: [{flows: [{name: web, http: {from: client, to: server, " + text + "}}]}]\n"
	file, err := labs.Parse(labs.Source{Name: "lab.yaml", Content: []byte(content)})
	if err != nil {
		t.Fatalf("%s\n%v", content, err)
	}
	all, err := file.Expand(nil)
	if err != nil {
		t.Fatalf("%s\n%v", content, err)
	}
	return all[0].GetExperiments()[0].GetFlows()[0]
}

// fetch carries a flow out, whatever comes of it.
func fetch(t testing.TB, cfg Config, text string) *tcplabv1.FlowResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return fetchWithin(ctx, t, cfg, text)
}

func fetchWithin(ctx context.Context, t testing.TB, cfg Config, text string) *tcplabv1.FlowResult {
	t.Helper()
	return carryOut(ctx, t, cfg, spec(t, cfg, text))
}

func carryOut(ctx context.Context, t testing.TB, cfg Config, spec *tcplabv1.Flow) *tcplabv1.FlowResult {
	t.Helper()
	f, err := New(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	r := f.Run(ctx)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("TCPLAB_SHOW") != "" {
		t.Log(protojson.Format(r))
	}
	return r
}

// whole is fetch for a flow of which nothing is to go wrong.
func whole(t testing.TB, cfg Config, text string) *tcplabv1.FlowResult {
	t.Helper()
	r := fetch(t, cfg, text)
	if r.GetError() != "" {
		t.Fatalf("%s: %s", text, r.GetError())
	}
	h := r.GetHttp()
	if h.GetBytesRead() != h.GetBytesAsked() || h.GetBytesSent() != h.GetBytesRead() || h.GetFailed() != 0 || h.GetCutShort() != 0 || h.GetUnseenCuts() != 0 {
		t.Errorf("%s: asked for %d bytes, sent %d, read %d; %d failed, %d cut short", text, h.GetBytesAsked(), h.GetBytesSent(), h.GetBytesRead(), h.GetFailed(), h.GetCutShort())
	}
	return r
}

// blackHole is an address to which flowtest.BlackHole leads.
var blackHole = netip.MustParseAddrPort("10.99.0.1:80")

func netipPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}
