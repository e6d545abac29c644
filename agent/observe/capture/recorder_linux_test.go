package capture

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// twoNodes are joined by a veth that says nothing by itself; each end is eth0.
func twoNodes(t testing.TB) (nodes [2]*netns.Handle) {
	t.Helper()
	need.NetNS(t)
	for i := range nodes {
		ns, err := netns.New(fmt.Sprintf("node%d", i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		nodes[i] = ns
	}
	nl, err := nodes[0].Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(nodes[1].FD())}
	if err := nl.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	var macs [2]net.HardwareAddr
	var links [2]netlink.Link
	for i, ns := range nodes {
		at, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if links[i], err = at.LinkByName("eth0"); err != nil {
			t.Fatal(err)
		}
		macs[i] = links[i].Attrs().HardwareAddr
		address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, byte(i+1)), Mask: net.CIDRMask(24, 32)}}
		if err := at.AddrAdd(links[i], address); err != nil {
			t.Fatal(err)
		}
		// Frames of the neighbour discovery would be counted too.
		if err := at.LinkSetIP6AddrGenMode(links[i], int(netlinkAddrGenNone)); err != nil {
			t.Fatal(err)
		}
		if err := at.LinkSetUp(links[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, ns := range nodes {
		// Each datagram that nobody wants is answered, not only some a second.
		if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/icmp_ratemask", []byte("0"), 0) }); err != nil {
			t.Fatal(err)
		}
		at, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		err = at.NeighSet(&netlink.Neigh{
			LinkIndex: links[i].Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 0, 0, byte(2-i)), HardwareAddr: macs[1-i],
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

// netlinkAddrGenNone is IN6_ADDR_GEN_MODE_NONE (include/uapi/linux/if_link.h).
const netlinkAddrGenNone = 1

// send sends datagrams of the sizes from node 0 to node 1's port.
func send(t testing.TB, nodes [2]*netns.Handle, port uint16, sizes ...int) {
	t.Helper()
	err := nodes[0].Do(func() error {
		// Not connected, so that an answer that nobody listens is no error of the next write.
		conn, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, n := range sizes {
			if _, err := conn.WriteToUDPAddrPort(make([]byte, n), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// udpHeaders is Ethernet's, IPv4's and UDP's together.
const udpHeaders = 14 + 20 + 8

// read lists the packets of a file.
func read(t testing.TB, file []byte) (packets []trace.Packet, info trace.Info) {
	t.Helper()
	info, err := trace.Each(bytes.NewReader(file), func(p trace.Packet) error {
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
		return nil
	})
	if err != nil || info.Truncated {
		t.Fatalf("the file cannot be read: %v, truncated %v", err, info.Truncated)
	}
	return packets, info
}

// record captures at both nodes while fn runs.
func record(t testing.TB, nodes [2]*netns.Handle, o Options, fn func()) (files [2][]byte, counts [2]Counts) {
	t.Helper()
	var buffers [2]bytes.Buffer
	var opened [2]*File
	var recorders [2]*Recorder
	for i, ns := range nodes {
		opened[i] = NewFile(&buffers[i])
		r, err := Start(ns, []string{"eth0"}, opened[i], o)
		if err != nil {
			t.Fatal(err)
		}
		recorders[i] = r
	}
	fn()
	for i, r := range recorders {
		var err error
		if counts[i], err = r.Stop(); err != nil {
			t.Error(err)
		}
		if err := opened[i].Close(); err != nil {
			t.Error(err)
		}
		files[i] = buffers[i].Bytes()
	}
	return files, counts
}

func TestBothWays(t *testing.T) {
	nodes := twoNodes(t)
	sizes := []int{1, 86, 87, 1000, 1400}
	begin := time.Now()
	files, counts := record(t, nodes, Options{Snap: 128, Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_UDP, Description: "node"},
		func() { send(t, nodes, 9, sizes...) })
	end := time.Now()
	for i, way := range []trace.Way{trace.Out, trace.In} {
		packets, info := read(t, files[i])
		if len(info.Interfaces) != 1 || info.Interfaces[0] != (trace.Interface{Name: "eth0", Description: "node", Snap: 128}) {
			t.Errorf("node %d: interfaces %+v", i, info.Interfaces)
		}
		if len(packets) != len(sizes) || counts[i] != (Counts{Packets: uint64(len(sizes))}) {
			t.Fatalf("node %d: %d packets, counted %+v", i, len(packets), counts[i])
		}
		last := begin
		for j, p := range packets {
			if p.Way != way || p.Length != udpHeaders+sizes[j] || len(p.Data) != min(p.Length, 128) {
				t.Errorf("node %d, packet %d: way %d, %d bytes of %d", i, j, p.Way, len(p.Data), p.Length)
			}
			if p.Time.Before(last) || p.Time.After(end) {
				t.Errorf("node %d, packet %d: at %v, between %v and %v", i, j, p.Time, last, end)
			}
			last = p.Time
		}
	}
}

func TestFilter(t *testing.T) {
	nodes := twoNodes(t)
	for name, test := range map[string]struct {
		options Options
		want    uint64
	}{
		"all, replies too":  {Options{}, 4 + 4}, // nobody listens: four answers of ICMP
		"UDP":               {Options{Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_UDP}, 4},
		"TCP":               {Options{Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_TCP}, 0},
		"ICMP":              {Options{Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_ICMP}, 4},
		"a port":            {Options{Port: 7}, 1},
		"a port of UDP":     {Options{Port: 9, Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_UDP}, 3},
		"a port of TCP":     {Options{Port: 9, Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_TCP}, 0},
		"a port nobody has": {Options{Port: 8}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, counts := record(t, nodes, test.options, func() {
				send(t, nodes, 9, 10, 20, 30)
				send(t, nodes, 7, 10)
			})
			for i, c := range counts {
				if c.Packets != test.want {
					t.Errorf("node %d: %+v, want %d packets", i, c, test.want)
				}
			}
		})
	}
}

func TestBounds(t *testing.T) {
	nodes := twoNodes(t)
	udp := tcplabv1.IpProtocol_IP_PROTOCOL_UDP
	sizes := make([]int, 100)
	for i := range sizes {
		sizes[i] = 200
	}
	_, counts := record(t, nodes, Options{Protocol: udp, LimitPackets: 30}, func() { send(t, nodes, 9, sizes...) })
	for i, c := range counts {
		if c != (Counts{Packets: 30, LeftOut: 70}) {
			t.Errorf("node %d, 30 packets: %+v", i, c)
		}
	}
	files, counts := record(t, nodes, Options{Protocol: udp, LimitBytes: 4096}, func() { send(t, nodes, 9, sizes...) })
	for i, c := range counts {
		if c.Packets == 0 || c.Packets+c.LeftOut != 100 || len(files[i]) > 4096 || len(files[i]) < 4096-interfaceOverhead-trace.PacketBytes(DefaultSnap) {
			t.Errorf("node %d, 4096 bytes: %+v, %d bytes", i, c, len(files[i]))
		}
	}
}

// blocked is a disk that takes nothing until it is freed.
type blocked struct {
	freed chan struct{}
	size  atomic.Uint64
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.freed
	b.size.Add(uint64(len(p)))
	return len(p), nil
}

// Whatever has no room in the ring is counted: none of 20,000 packets is lost silently.
func TestDropsAreCounted(t *testing.T) {
	nodes := twoNodes(t)
	disk := &blocked{freed: make(chan struct{})}
	file := NewFile(disk)
	r, err := Start(nodes[0], []string{"eth0"}, file, Options{Snap: 1514, Ring: blockBytes, Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_UDP})
	if err != nil {
		t.Fatal(err)
	}
	sizes := make([]int, 20_000)
	for i := range sizes {
		sizes[i] = 100
	}
	send(t, nodes, 9, sizes...)
	close(disk.freed)
	counts, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if counts.Dropped == 0 || counts.Packets == 0 || counts.Packets+counts.Dropped != uint64(len(sizes)) {
		t.Errorf("of %d packets: %+v", len(sizes), counts)
	}
}

// failing is a disk that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestFullDisk(t *testing.T) {
	nodes := twoNodes(t)
	r, err := Start(nodes[0], []string{"eth0"}, NewFile(failing{}), Options{Snap: 1514})
	if err != nil {
		t.Fatal(err)
	}
	sizes := make([]int, 1000)
	for i := range sizes {
		sizes[i] = 1000
	}
	send(t, nodes, 9, sizes...)
	if _, err := r.Stop(); err == nil {
		t.Error("a full disk is no error")
	}
}

func TestNoSuchInterface(t *testing.T) {
	nodes := twoNodes(t)
	if _, err := Start(nodes[0], []string{"eth7"}, NewFile(io.Discard), Options{}); err == nil {
		t.Error("an interface that is not there is recorded")
	}
}
