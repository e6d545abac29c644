package flow

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when a flow that should long have ended is given up: no figure, only
// the end of a test that hangs.
const limit = 30 * time.Second

func namespace(t testing.TB, name string) *netns.Handle {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// nodes are a client and a server, joined by a veth. They have an IPv4 and an
// IPv6 address each; the ends given are those of IPv4.
func nodes(t testing.TB, plain bool) Config {
	t.Helper()
	need.NetNS(t)
	cfg := Config{
		Client: End{Node: "client", NS: namespace(t, "client"), Addr: netip.MustParseAddr("10.77.0.1")},
		Server: End{Node: "server", NS: namespace(t, "server"), Addr: netip.MustParseAddr("10.77.0.2")},
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	err := port.Veth(
		port.End{NS: cfg.Client.NS, Name: "eth0", MTU: 1500, Plain: plain},
		port.End{NS: cfg.Server.NS, Name: "eth0", MTU: 1500, Plain: plain})
	if err != nil {
		t.Fatal(err)
	}
	address(t, cfg.Client.NS, "eth0", "10.77.0.1/24", "fd77::1/64")
	address(t, cfg.Server.NS, "eth0", "10.77.0.2/24", "fd77::2/64")
	for _, end := range []End{cfg.Client, cfg.Server} {
		// The receive window is never what limits: at its edge TCP sends what is
		// left of it, as a small segment.
		setSysctl(t, end.NS, "net/ipv4/tcp_rmem", "4096 8388608 16777216")
	}
	return cfg
}

// setSysctl sets a setting of a node.
func setSysctl(t testing.TB, ns *netns.Handle, name, value string) {
	t.Helper()
	err := ns.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
	if err != nil {
		t.Fatal(err)
	}
}

func address(t testing.TB, ns *netns.Handle, name string, prefixes ...string) {
	t.Helper()
	err := ns.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, prefix := range prefixes {
			addr, err := netlink.ParseAddr(prefix)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustPrefix(prefix string) *net.IPNet {
	_, network, err := net.ParseCIDR(prefix)
	if err != nil {
		panic(err)
	}
	return network
}

// leakless fails the test when it leaves a goroutine.
func leakless(t *testing.T) {
	t.Helper()
	// Namespaces of the nodes are closed by cleanups and have no goroutines.
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

func listening(t testing.TB, spec *tcplabv1.Flow, cfg Config) *Flow {
	t.Helper()
	f, err := New(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func run(t testing.TB, spec *tcplabv1.Flow, cfg Config) *tcplabv1.FlowResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := listening(t, spec, cfg).Run(ctx)
	if r.GetError() != "" {
		t.Fatalf("flow: %s", r.GetError())
	}
	return r
}

func bulkBytes(n uint64) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "b", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Bulk{
		Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: n}},
	}}
}

func bulkFor(d time.Duration) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "b", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Bulk{
		Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Duration{Duration: durationpb.New(d)}},
	}}
}

func transactions(count uint32, reply uint64, writes ...uint32) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "t", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Transaction{
		Transaction: &tcplabv1.Transaction{Writes: writes, Reply: reply, Count: count},
	}}
}
