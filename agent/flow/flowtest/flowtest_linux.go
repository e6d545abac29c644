// Package flowtest is what tests of flows share: two nodes joined by a veth, and what is
// to be seen of their kernel. It is imported by tests alone.
package flowtest

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// Nodes are a client and a server, joined by a veth: eth0 at both ends, plain without
// offloads. They have an IPv4 and an IPv6 address each (10.77.0.1 and fd77::1, .2 and ::2); the ends
// returned are those of IPv4.
func Nodes(t testing.TB, plain bool) (client, server socket.End) {
	t.Helper()
	need.NetNS(t)
	client = socket.End{Node: "client", NS: Namespace(t, "client"), Addr: netip.MustParseAddr("10.77.0.1")}
	server = socket.End{Node: "server", NS: Namespace(t, "server"), Addr: netip.MustParseAddr("10.77.0.2")}
	err := port.Veth(
		port.End{NS: client.NS, Name: "eth0", MTU: 1500, Plain: plain},
		port.End{NS: server.NS, Name: "eth0", MTU: 1500, Plain: plain})
	if err != nil {
		t.Fatal(err)
	}
	address(t, client.NS, "eth0", "10.77.0.1/24", "fd77::1/64")
	address(t, server.NS, "eth0", "10.77.0.2/24", "fd77::2/64")
	for _, end := range []socket.End{client, server} {
		// The receive window is never what limits: at its edge TCP sends what is
		// left of it, as a small segment.
		SetSysctl(t, end.NS, "net/ipv4/tcp_rmem", "4096 8388608 16777216")
	}
	return client, server
}

// Namespace is one that ends with the test.
func Namespace(t testing.TB, name string) *netns.Handle {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// SetSysctl sets a setting of a node, named by its path below /proc/sys.
func SetSysctl(t testing.TB, ns *netns.Handle, name, value string) {
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

// BlackHole makes packets from the client to a network vanish without a word: they go by
// the server, which forwards nothing.
func BlackHole(t testing.TB, client, server socket.End, prefix string) {
	t.Helper()
	network := netip.MustParsePrefix(prefix)
	err := client.NS.Do(func() error {
		to, err := netlink.ParseIPNet(network.String())
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: server.Addr.AsSlice()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// LoseAddress takes a node's IPv4 address from its eth0: what is sent to it from then on vanishes.
func LoseAddress(t testing.TB, end socket.End) {
	t.Helper()
	onEth0(t, end, func(link netlink.Link) error {
		addr, err := netlink.ParseAddr(end.Addr.String() + "/24")
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, addr)
	})
}

// LoseRoutes takes a node's IPv4 routes over its eth0.
func LoseRoutes(t testing.TB, end socket.End) {
	t.Helper()
	onEth0(t, end, func(link netlink.Link) error {
		routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
		for _, r := range routes {
			err = errors.Join(err, netlink.RouteDel(&r))
		}
		return err
	})
}

func onEth0(t testing.TB, end socket.End, do func(netlink.Link) error) {
	t.Helper()
	err := end.NS.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return do(link)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Leakless fails the test when it leaves a goroutine.
func Leakless(t testing.TB) {
	t.Helper()
	// Namespaces of the nodes are closed by cleanups and have no goroutines.
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

// Counters are what the kernels of some nodes have counted.
func Counters(t testing.TB, ends ...socket.End) []observe.Counters {
	t.Helper()
	all := make([]observe.Counters, len(ends))
	for i, end := range ends {
		c, err := observe.ReadCounters(end.NS)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = c
	}
	return all
}

// NoSockets checks that no TCP socket is left in the nodes. TIME_WAIT, which has
// nothing to send and holds no namespace, does not count.
func NoSockets(t testing.TB, ends ...socket.End) {
	t.Helper()
	for i, c := range Counters(t, ends...) {
		if n := c["SockstatTCPInuse"] + c["SockstatTCP6Inuse"]; n != 0 {
			t.Errorf("%s: %d sockets in use", ends[i].Node, n)
		}
	}
}

// Six are the IPv6 addresses of Nodes.
func Six() (client, server netip.Addr) {
	return netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
}
