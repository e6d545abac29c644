package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// stand builds the lab with unshaped links, until the test ends.
func stand(t testing.TB, lab *tcplabv1.Lab) (*Plan, *Standing) {
	t.Helper()
	need.NetNS(t)
	plan, err := New(lab)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(t.Context(), plan, unshaped(plan))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return plan, s
}

func unshaped(plan *Plan) []link.Engine {
	engines := make([]link.Engine, len(plan.Links))
	for i := range engines {
		engines[i] = veth.Engine{}
	}
	return engines
}

// talk connects along the path and carries a line each way.
func talk(t *testing.T, s *Standing, path Path) {
	t.Helper()
	network, family := "tcp4", unix.AF_INET
	if path.Source.Is6() {
		network, family = "tcp6", unix.AF_INET6
	}
	var listener net.Listener
	err := s.Nodes[path.Server].Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(t.Context(), network, netip.AddrPortFrom(path.Destination, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "from %s", conn.RemoteAddr().(*net.TCPAddr).IP)
		}
		served <- err
	}()
	port := listener.Addr().(*net.TCPAddr).Port
	var sock int
	err = s.Nodes[path.Client].Do(func() (err error) {
		sock, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	// A lab whose packets do not arrive must fail here and not hang.
	limit := unix.NsecToTimeval(int64(5 * time.Second))
	if err := errors.Join(
		unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)); err != nil {
		t.Fatal(err)
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: port, Addr: path.Destination.As16()}
	if family == unix.AF_INET {
		to = &unix.SockaddrInet4{Port: port, Addr: path.Destination.As4()}
	}
	if err := unix.Connect(sock, to); err != nil {
		t.Fatalf("connect from %s to %s: %v", path.Source, path.Destination, err)
	}
	line := make([]byte, 100)
	n, err := unix.Read(sock, line)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(line[:n]), "from "+path.Source.String(); got != want {
		t.Errorf("the server at %s said %q, want %q", path.Destination, got, want)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestEveryPairConnects(t *testing.T) {
	for name, test := range map[string]struct{ nodes, links string }{
		"dumbbell":      {dumbbellNodes, dumbbellLinks},
		"star":          {"a b c s:switch", "a-s b-s c-s"},
		"two switches":  {"a s:switch t:switch b", "a-s s-t t-b"},
		"switch routed": {"a s:switch r:router b", "a-s s-r r-b"},
		"dual-homed":    {"a r1:router r2:router b", "a-r1 a-r2 r1-b r2-b"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, s := stand(t, sketch(test.nodes, test.links))
			for _, a := range plan.Nodes {
				for _, b := range plan.Nodes {
					if a.Name == b.Name || a.Kind != tcplabv1.NodeKind_NODE_KIND_ENDPOINT || b.Kind != a.Kind {
						continue
					}
					for _, v6 := range []bool{false, true} {
						path, err := plan.Path(a.Name, b.Name, v6)
						if err != nil {
							t.Fatal(err)
						}
						talk(t, s, path)
					}
				}
			}
			// A standing topology serves at once: no first packet is lost.
			for i, node := range s.Nodes {
				counters, err := observe.ReadCounters(node)
				if err != nil {
					t.Fatal(err)
				}
				if n := counters["TcpExtTCPSynRetrans"]; n != 0 {
					t.Errorf("node %s sent %d SYNs again", plan.Nodes[i].Name, n)
				}
			}
		})
	}
}

// What travels on a lab's links is the lab's alone: no question for a
// neighbour, no frame flooded to a link that the connection does not cross.
func TestLinksAreQuiet(t *testing.T) {
	lab := sketch("a b c s:switch", "a-s b-s c-s")
	for _, l := range lab.GetLinks() {
		// An IPv6 address is reported to routers (RFC 3810) within jiffies of
		// being set, which a test cannot tell from a flood.
		l.A.Addresses = l.A.GetAddresses()[:1]
	}
	plan, s := stand(t, lab)
	path, err := plan.Path("a", "b", false)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, s, path)
	for i, want := range map[int]bool{0: true, 1: true, 2: false} {
		counters, err := s.Links[i].Counters()
		if err != nil {
			t.Fatal(err)
		}
		for direction, c := range counters {
			if got := c.Received > 0; got != want {
				t.Errorf("link %s, direction %d, carried %d frames", plan.Links[i].Name, direction, c.Received)
			}
		}
	}
}

func setting(t *testing.T, node *netns.Handle, name string) string {
	t.Helper()
	var value []byte
	err := node.Do(func() (err error) {
		value, err = os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(value)), " ")
}

func TestSettingsAreInForce(t *testing.T) {
	lab := sketch("a r:router b", "a-r r-b")
	lab.Nodes[0].Sysctls = map[string]string{
		"net.ipv4.tcp_sack": "0", "net.ipv4.tcp_rmem": "4096  87380\t6291456", "net.ipv4.conf.eth0.rp_filter": "2",
	}
	_, s := stand(t, lab)
	for _, test := range []struct {
		node       int
		name, want string
	}{
		{0, "net.ipv4.tcp_sack", "0"},
		{0, "net.ipv4.tcp_rmem", "4096 87380 6291456"},
		{0, "net.ipv4.tcp_wmem", buffers},
		{0, "net.ipv4.tcp_no_metrics_save", "1"},
		{0, "net.ipv4.conf.eth0.rp_filter", "2"},
		{0, "net.ipv4.ip_forward", "0"},
		{1, "net.ipv4.ip_forward", "1"},
		{1, "net.ipv6.conf.all.forwarding", "1"},
		{1, "net.ipv4.tcp_sack", "1"},
		{2, "net.ipv4.tcp_rmem", buffers},
	} {
		if got := setting(t, s.Nodes[test.node], test.name); got != test.want {
			t.Errorf("node %d: %s is %q, want %q", test.node, test.name, got, test.want)
		}
	}
}

// A build that fails says what it could not do and leaves nothing: here the
// last step of the last node fails, and a watched interface of the first goes.
func TestFailedBuildLeavesNothing(t *testing.T) {
	need.NetNS(t)
	for name, test := range map[string]struct{ setting, value, want string }{
		"unknown":        {"net.ipv4.no_such_setting", "1", "node b: sysctl net.ipv4.no_such_setting: this kernel has no such setting"},
		"out of range":   {"net.ipv4.tcp_sack", "nonsense", `node b: sysctl net.ipv4.tcp_sack: the kernel refuses "nonsense"`},
		"of the machine": {"net.core.netdev_budget", "300", "net.core.netdev_budget"},
		"of an interface": {
			"net.ipv4.conf.eth0.no_such_setting", "1",
			"sysctl net.ipv4.conf.eth0.no_such_setting: this kernel has no such setting",
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := sketch("a b", "a-b")
			lab.Nodes[1].Sysctls = map[string]string{test.setting: test.value}
			plan, err := New(lab)
			if err != nil {
				t.Fatal(err)
			}
			watch := &witness{}
			engines := []link.Engine{watch}
			if s, err := Build(t.Context(), plan, engines); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Build: %v, %v, want …%s…", s, err, test.want)
			}
			if watch.open != 0 {
				t.Errorf("%d links were left", watch.open)
			}
		})
	}
}

// witness is the veth engine, and counts its links.
type witness struct {
	veth.Engine
	open int
}

func (w *witness) Create(ctx context.Context, spec link.Spec) (link.Link, error) {
	made, err := w.Engine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	w.open++
	return witnessed{made, w}, nil
}

type witnessed struct {
	link.Link
	by *witness
}

func (w witnessed) Close() error {
	w.by.open--
	return w.Link.Close()
}

func TestBuildEndsWithItsContext(t *testing.T) {
	need.NetNS(t)
	plan, err := New(sketch("a b", "a-b"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, plan, unshaped(plan)); !errors.Is(err, context.Canceled) {
		t.Errorf("Build: %v", err)
	}
}

// A namespace whose standing is closed is gone with all that was in it. Its end
// is seen by the peer of a veth that leads into it.
func TestCloseEndsNamespaces(t *testing.T) {
	need.NetNS(t)
	plan, err := New(sketch("a b", "a-b"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(t.Context(), plan, unshaped(plan))
	if err != nil {
		t.Fatal(err)
	}
	outside, err := netns.New("outside")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	gone := make(chan netlink.LinkUpdate, 16)
	done := make(chan struct{})
	defer close(done)
	err = outside.Do(func() error {
		for i, node := range s.Nodes {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("watch%d", i)
			peer := netlink.NewVeth(attrs)
			peer.PeerName, peer.PeerNamespace = "watched", netlink.NsFd(node.FD())
			if err := netlink.LinkAdd(peer); err != nil {
				return err
			}
		}
		return netlink.LinkSubscribe(gone, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for left := len(s.Nodes); left > 0; {
		select {
		case update := <-gone:
			if update.Header.Type == unix.RTM_DELLINK {
				left--
			}
		case <-deadline:
			t.Fatalf("%d namespaces outlive their handles", left)
		}
	}
}

// BenchmarkBuild is the time of two nodes with one unshaped link, made and taken
// away.
func BenchmarkBuild(b *testing.B) {
	need.NetNS(b)
	plan, err := New(sketch("a b", "a-b"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Build(b.Context(), plan, unshaped(plan))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
