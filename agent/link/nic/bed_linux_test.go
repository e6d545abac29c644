package nic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// bed is a namespace that plays the host, with an interface eth1 that another
// program has given a tree of htb classes, and one that plays the world beyond.
type bed struct {
	host, world *netns.Handle
	index       int // of eth1
}

const (
	hostAddress  = "192.0.2.1"
	worldAddress = "192.0.2.2"
	shapedPort   = 4000
	otherPort    = 4001
)

func newBed(t testing.TB) *bed {
	t.Helper()
	need.NetNS(t)
	need.Qdisc(t, "htb")
	b := &bed{}
	for _, n := range []struct {
		name string
		at   **netns.Handle
	}{{"host", &b.host}, {"world", &b.world}} {
		space, err := netns.New(n.name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { space.Close() })
		*n.at = space
	}
	err := b.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth1"
		attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(b.world.FD())
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		b.index = pair.Index
		return errors.Join(up("eth1", hostAddress, "2001:db8::1"), foreignTree(pair.Index))
	})
	if err == nil {
		err = b.world.Do(func() error { return up("eth0", worldAddress, "2001:db8::2") })
	}
	if err == nil {
		err = b.host.Do(func() error { return awaitCarrier(t.Context(), b.index) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// awaitCarrier waits until the kernel has taken notice of the peer; until then what is
// sent is dropped.
func awaitCarrier(ctx context.Context, index int) error {
	for {
		device, err := netlink.LinkByIndex(index)
		if err != nil || device.Attrs().OperState == netlink.OperUp {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func up(name string, addresses ...string) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		bits := "/24"
		if strings.Contains(text, ":") {
			bits = "/64"
		}
		address, err := netlink.ParseAddr(text + bits)
		if err != nil {
			return err
		}
		address.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(device, address); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(device)
}

// foreignTree is what a host's owner may have set up: a root qdisc with classes, each
// with a queue of its own.
func foreignTree(index int) error {
	root := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(0x77, 0)})
	root.Defcls = 0x20
	if err := netlink.QdiscAdd(root); err != nil {
		return err
	}
	for _, minor := range []uint16{0x10, 0x20} {
		class := netlink.NewHtbClass(
			netlink.ClassAttrs{LinkIndex: index, Parent: netlink.MakeHandle(0x77, 0), Handle: netlink.MakeHandle(0x77, minor)},
			netlink.HtbClassAttrs{Rate: 1e9 + uint64(minor), Ceil: 2e9},
		)
		if err := netlink.ClassAdd(class); err != nil {
			return err
		}
		leaf := &netlink.GenericQdisc{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.MakeHandle(0x77, minor), Handle: netlink.MakeHandle(0x80+minor, 0)},
			QdiscType:  "pfifo",
		}
		if err := netlink.QdiscAdd(leaf); err != nil {
			return err
		}
	}
	return nil
}

// control is all that hangs at eth1: qdiscs, classes and filters, without their
// counters. It is equal before and after where nobody has touched anything.
func (b *bed) control(t testing.TB) []string {
	t.Helper()
	var all []string
	err := b.host.Do(func() error {
		qdiscs, err := netlink.QdiscList(device(b.index))
		if err != nil {
			return err
		}
		for _, q := range qdiscs {
			all = append(all, fmt.Sprintf("qdisc %s handle %x parent %x", q.Type(), q.Attrs().Handle, q.Attrs().Parent))
		}
		classes, err := netlink.ClassList(device(b.index), 0)
		if err != nil {
			return err
		}
		for _, c := range classes {
			if h, ok := c.(*netlink.HtbClass); ok {
				all = append(all, fmt.Sprintf("class %x parent %x rate %d ceil %d buffer %d", c.Attrs().Handle, c.Attrs().Parent, h.Rate, h.Ceil, h.Buffer))
			}
		}
		for _, s := range []side{sent, received} {
			filters, err := netlink.FilterList(device(b.index), parent(s))
			if err != nil && !errors.Is(err, unix.EINVAL) {
				return err
			}
			for _, f := range filters {
				all = append(all, fmt.Sprintf("filter %s where it %v, priority %d", f.Type(), s, f.Attrs().Priority))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// devices are the names of all interfaces of the host.
func (b *bed) devices(t testing.TB) []string {
	t.Helper()
	var names []string
	err := b.host.Do(func() error {
		all, err := netlink.LinkList()
		for _, d := range all {
			names = append(names, d.Attrs().Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// htbSent is how many packets the owner's tree has let through.
func (b *bed) htbSent(t testing.TB) (packets uint32) {
	t.Helper()
	err := b.host.Do(func() error {
		qdiscs, err := netlink.QdiscList(device(b.index))
		for _, q := range qdiscs {
			if q.Type() == "htb" && q.Attrs().Statistics != nil {
				packets = q.Attrs().Statistics.Basic.Packets
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

// echo answers each datagram to the port in the world, until the test ends.
func (b *bed) echo(t testing.TB, port uint16) {
	t.Helper()
	var sock *net.UDPConn
	err := b.world.Do(func() (err error) {
		sock, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		sock.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := sock.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = sock.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
}

// caller asks a port of the world again and again.
type caller struct {
	sock *net.UDPConn
	seq  uint64
}

func (b *bed) caller(t testing.TB, to string, port uint16) *caller {
	t.Helper()
	c := &caller{}
	err := b.host.Do(func() (err error) {
		c.sock, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.sock.Close() })
	return c
}

// roundTrip is how long a datagram of the length takes there and back, or an
// error where none is back within the limit.
func (c *caller) roundTrip(limit time.Duration, length int) (time.Duration, error) {
	c.seq++
	buf := make([]byte, max(8, length))
	binary.BigEndian.PutUint64(buf, c.seq)
	begin := time.Now()
	if err := c.sock.SetReadDeadline(begin.Add(limit)); err != nil {
		return 0, err
	}
	if _, err := c.sock.Write(buf); err != nil {
		return 0, err
	}
	for {
		if _, err := c.sock.Read(buf); err != nil {
			return 0, err
		}
		if binary.BigEndian.Uint64(buf) == c.seq {
			return time.Since(begin), nil
		}
	}
}

// least is the least of several round trips.
func (c *caller) least(t testing.TB, count int) time.Duration {
	t.Helper()
	least := time.Hour
	for range count {
		took, err := c.roundTrip(5*time.Second, 100)
		if err != nil {
			t.Fatalf("ask %v: %v", c.sock.RemoteAddr(), err)
		}
		least = min(least, took)
	}
	return least
}

// shapedMatch selects what the tests shape.
func shapedMatch() link.Match { return link.Match{Protocol: link.UDP, Port: shapedPort} }

// spec is a link whose end 0 is the host, with a delay each way.
func spec(delay time.Duration) link.Spec {
	d := link.Direction{Shape: link.Shape{Delay: delay}, Seed: 1}
	return link.Spec{Name: "me-world", Ends: [2]link.Port{{Name: "eth1"}, {}}, Directions: [2]link.Direction{d, d}}
}

// hasFile reports whether there is anything in the folder.
func hasFile(t testing.TB, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries) > 0
}
