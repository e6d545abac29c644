package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds are the ports that this machine must have for the test.
var kinds = []PortKind{TAP, Packet}

// needs skips where the kind of port cannot be made.
func needs(t testing.TB, kind PortKind) {
	t.Helper()
	need.NetNS(t)
	if kind == TAP {
		need.TUN(t)
	}
}

// bench is a link between two nodes with addresses: .1 at end 0, .2 at end 1.
type bench struct {
	nodes [2]*netns.Handle
	link  *Link
}

var addresses = [2]net.IP{net.IPv4(10, 99, 0, 1).To4(), net.IPv4(10, 99, 0, 2).To4()}

func end(node *netns.Handle, i int) link.Port {
	return link.Port{Node: node, Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}, MTU: 1500}
}

func node(t testing.TB, name string) *netns.Handle {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func engine(t testing.TB, kind PortKind) *Engine {
	t.Helper()
	e, err := New(Options{Port: kind})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// stand makes the link, same shape both ways, and gives its ends addresses.
func stand(t testing.TB, kind PortKind, shapes ...link.Shape) *bench {
	t.Helper()
	needs(t, kind)
	b := &bench{nodes: [2]*netns.Handle{node(t, "a"), node(t, "b")}}
	spec := link.Spec{Name: "a-b"}
	for i, n := range b.nodes {
		spec.Ends[i] = end(n, i)
		spec.Directions[i] = link.Direction{Shape: shapes[i%len(shapes)], Seed: 1}
	}
	made, err := engine(t, kind).Create(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	b.link = made.(*Link)
	t.Cleanup(func() {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range b.nodes {
		if err := b.address(spec.Ends, i); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// address gives an end its address, its neighbour, and buffers that do not limit TCP.
func (b *bench) address(ends [2]link.Port, i int) error {
	return b.nodes[i].Do(func() error {
		iface, err := netlink.LinkByName(ends[i].Name)
		if err != nil {
			return err
		}
		err = netlink.AddrAdd(iface, &netlink.Addr{IPNet: &net.IPNet{IP: addresses[i], Mask: net.CIDRMask(24, 32)}})
		if err != nil {
			return err
		}
		err = netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: iface.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addresses[1-i], HardwareAddr: ends[1-i].MAC,
		})
		if err != nil {
			return err
		}
		for _, s := range []struct{ name, value string }{
			{"tcp_rmem", "4096 14000000 14000000"}, {"tcp_wmem", "4096 16777216 33554432"}, {"tcp_no_metrics_save", "1"},
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv4", s.name), []byte(s.value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// connect opens a TCP connection from node 0 to node 1 under reno.
func (b *bench) connect(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	var listener net.Listener
	err := b.nodes[1].Do(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf("%v:0", addresses[1]))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	reno := func(_, _ string, raw syscall.RawConn) (err error) {
		return joinControl(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
		}), err)
	}
	err = b.nodes[0].Do(func() error {
		dialer := net.Dialer{Control: reno}
		conn, err := dialer.Dial("tcp4", listener.Addr().String())
		if err == nil {
			client = conn.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = accepted.(*net.TCPConn)
	for _, c := range []*net.TCPConn{client, server} {
		t.Cleanup(func() {
			_ = c.SetLinger(0) // the namespace goes at once
			c.Close()
		})
	}
	return client, server
}

func joinControl(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// send moves n bytes from client to server and returns when they have arrived.
func send(client, server *net.TCPConn, n int64) error {
	sent := make(chan error, 1)
	go func() {
		chunk := make([]byte, 1<<20)
		for left := n; left > 0; left -= int64(len(chunk)) {
			chunk = chunk[:min(left, int64(len(chunk)))]
			if _, err := client.Write(chunk); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	chunk := make([]byte, 1<<20)
	for left := n; left > 0; {
		m, err := server.Read(chunk)
		if err != nil {
			client.Close()
			<-sent
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		left -= int64(m)
	}
	return <-sent
}

// info is the connection's TCP_INFO.
func info(t testing.TB, c *net.TCPConn) *unix.TCPInfo {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got *unix.TCPInfo
	var got2 error
	if err := raw.Control(func(fd uintptr) { got, got2 = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
		t.Fatal(err)
	}
	if got2 != nil {
		t.Fatal(got2)
	}
	return got
}

func (b *bench) counters(t testing.TB) [2]link.Counters {
	t.Helper()
	c, err := b.link.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
