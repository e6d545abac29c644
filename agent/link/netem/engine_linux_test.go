package netem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/rpcerr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a link between two nodes with addresses.
type bed struct {
	spec link.Spec
	link link.Link
}

func stand(t testing.TB, shapes [2]link.Shape) bed {
	t.Helper()
	return standing(t, [2]link.Direction{{Shape: shapes[0]}, {Shape: shapes[1]}})
}

// standing is a link with whole directions.
func standing(t testing.TB, directions [2]link.Direction) bed {
	t.Helper()
	need.Qdisc(t, "netem")
	b := bed{spec: link.Spec{Name: "tested"}}
	for i := range b.spec.Ends {
		ns, err := netns.New(fmt.Sprintf("node%d", i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		b.spec.Ends[i] = link.Port{Node: ns, Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}, MTU: 1500}
		b.spec.Directions[i] = directions[i]
		b.spec.Directions[i].Seed = uint64(i + 1)
	}
	engine := New()
	l, err := engine.Create(t.Context(), b.spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), engine.Close()); err != nil {
			t.Error(err)
		}
	})
	b.link = l
	return b
}

// address gives both nodes addresses and each other's hardware address. An IPv6 address is reported to
// the link by two frames or more, so that tests which count frames do without.
func (b bed) address(t testing.TB) {
	t.Helper()
	for i := range b.spec.Ends {
		err := b.spec.Ends[i].Node.Do(func() error {
			device, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, form := range []string{"10.0.0.%d/24", "fd00::%d/64"} {
				address, err := netlink.ParseAddr(fmt.Sprintf(form, i+1))
				if err != nil {
					return err
				}
				address.Flags = unix.IFA_F_NODAD // or an IPv6 address serves only once a worker has run
				peer, err := netlink.ParseAddr(fmt.Sprintf(form, 2-i))
				if err != nil {
					return err
				}
				neighbour := &netlink.Neigh{
					LinkIndex: device.Attrs().Index, State: netlink.NUD_PERMANENT,
					IP: peer.IP, HardwareAddr: b.spec.Ends[1-i].MAC,
				}
				if err := errors.Join(netlink.AddrAdd(device, address), netlink.NeighSet(neighbour)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (b bed) counters(t testing.TB) [2]link.Counters {
	t.Helper()
	counts, err := b.link.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

// testEtherType is of frames that only tests look at (IEEE 802: local experimental).
const testEtherType = 0x88b5

// flood sends frames of a length, numbered from 1, from one end as fast as it goes.
func (b bed) flood(t testing.TB, end, frames, length int) {
	t.Helper()
	var sock int
	err := b.spec.Ends[end].Node.Do(func() (err error) {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		return unix.Bind(sock, &unix.SockaddrLinklayer{Ifindex: device.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, length)
	copy(frame, b.spec.Ends[1-end].MAC)
	copy(frame[6:], b.spec.Ends[end].MAC)
	binary.BigEndian.PutUint16(frame[12:], testEtherType)
	for n := range frames {
		binary.BigEndian.PutUint32(frame[14:], uint32(n+1))
		if _, err := unix.Write(sock, frame); err != nil {
			t.Fatal(err)
		}
	}
}

// settled waits until nothing waits or flies in a direction any more.
func (b bed) settled(t testing.TB, direction int) link.Counters {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c := b.counters(t)[direction]
		if c.Received+c.Duplicated == c.Delivered+c.Lost+c.Overflow+c.Early+c.Failed {
			return c
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still under way: %+v", c)
		}
	}
}

// bulk sends bytes by TCP from end 0 to end 1 and returns the greatest smoothed
// RTT that the sender saw. watch is called now and then.
func (b bed) bulk(t testing.TB, address string, bytes int64, watch func()) (rtt time.Duration, took time.Duration) {
	t.Helper()
	b.address(t)
	var listener net.Listener
	err := b.spec.Ends[1].Node.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var conn net.Conn
	err = b.spec.Ends[0].Node.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// Reno: its slow start ends with the first loss, and not with a guess as cubic's does.
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	deadline := time.Now().Add(60 * time.Second)
	begin := time.Now()
	var group errgroup.Group
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		server, err := listener.Accept()
		if err != nil {
			return err
		}
		defer server.Close()
		if err := server.SetDeadline(deadline); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, server)
		if err == nil && n != bytes {
			err = fmt.Errorf("%d bytes arrived, %d were sent", n, bytes)
		}
		took = time.Since(begin)
		return err
	})
	group.Go(func() error {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		if _, err := io.CopyN(conn, zeros{}, bytes); err != nil {
			return err
		}
		return conn.(*net.TCPConn).CloseWrite()
	})
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
			watch()
			err := raw.Control(func(fd uintptr) {
				if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
					rtt = max(rtt, time.Duration(info.Rtt)*time.Microsecond)
				}
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return rtt, took
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	need.NetNS(t)
	err := New().Check(link.Spec{Name: "any", Ends: [2]link.Port{{MTU: 1500}, {MTU: 1500}}})
	if err == nil {
		return // this kernel has it all, and the tests below use it
	}
	e := rpcerr.From(err)
	if !strings.HasPrefix(e.Message, "this kernel has no ") || e.Reason != rpcerr.HostUnsupported {
		t.Errorf("the reason does not name what is missing: %v", err)
	}
	for _, word := range []string{"sch_netem", "modprobe", "wire"} {
		if !strings.Contains(e.Remedy, word) {
			t.Errorf("the remedy does not mention %s: %s", word, e.Remedy)
		}
	}
}

func TestReadBackIsWhatWasAsked(t *testing.T) {
	shapes := [2]link.Shape{
		{Rate: 10e6, Delay: 20 * time.Millisecond, Loss: link.RandomLoss(0.25), Queue: link.Queue{Packets: 50}},
		{Rate: 1e6, Delay: 5*time.Millisecond + 1, Queue: link.Queue{Bytes: 30000}},
	}
	b := stand(t, shapes)
	expect := func(want [2]link.Shape) {
		t.Helper()
		got, err := b.link.ReadBack()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, [2]link.Shape{got[0].Shape, got[1].Shape}); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	}
	expect(shapes)
	for _, step := range []link.Shape{
		{Rate: 20e6, Delay: 7 * time.Millisecond, Queue: link.Queue{Packets: 10}},
		{},
		{Rate: 5e9, Queue: link.Queue{Packets: 5000}},
		{Delay: time.Second, Loss: link.RandomLoss(1)},
		{Rate: 8, Queue: link.Queue{Packets: 1}},
	} {
		if err := b.link.Change(0, link.Direction{Shape: step}); err != nil {
			t.Fatalf("change to %+v: %v", step, err)
		}
		expect([2]link.Shape{step, shapes[1]})
	}
	if err := b.link.Change(1, link.Direction{Shape: link.Shape{Rate: 1e6, Queue: link.Queue{Packets: 3}}}); err == nil {
		t.Error("a queue of bytes became one of frames while it may hold some")
	}
	if err := b.link.Change(1, link.Direction{Shape: link.Shape{Loss: link.RandomLoss(2)}}); err == nil {
		t.Error("a loss of 2 was accepted")
	}
	expect([2]link.Shape{{Rate: 8, Queue: link.Queue{Packets: 1}}, shapes[1]})
}

// A flood into a slow link leaves the queue full to its limit: one frame through at once
// (tbf's bucket), one in service, the queue; all others overflow.
func TestQueueHoldsItsLimitAndNoMore(t *testing.T) {
	const rate, length = 20e3, 1514 // 606 ms a frame: none leaves while the flood comes
	for name, test := range map[string]struct {
		queue link.Queue
		holds int
	}{
		"frames": {link.Queue{Packets: 20}, 20},
		"one":    {link.Queue{Packets: 1}, 1},
		"bytes":  {link.Queue{Bytes: 10 * length}, 10},
		"time":   {link.Queue{Time: 5 * 605600 * time.Microsecond}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			b := stand(t, [2]link.Shape{{Rate: rate, Queue: test.queue}, {}})
			begin := time.Now()
			const frames = 60
			b.flood(t, 0, frames, length)
			c := b.counters(t)[0]
			for c.Delivered+c.Overflow+uint64(c.Queued)+1 < frames && time.Since(begin) < 500*time.Millisecond {
				c = b.counters(t)[0] // the last ones are still on their way to the queue
			}
			if time.Since(begin) > 500*time.Millisecond {
				t.Fatalf("this host took %v for %d frames: the queue has moved meanwhile", time.Since(begin), frames)
			}
			want := link.Counters{Received: frames, Delivered: 1, Overflow: uint64(frames - 2 - test.holds), Queued: test.holds, QueuedSize: test.holds * length}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// One TCP flow fills the queue: its frames no longer belong to its socket, or
// TCP Small Queues would hold it back at a few frames.
func TestOneFlowFillsTheQueue(t *testing.T) {
	const limit, rate, delay = 200, 10e6, 5 * time.Millisecond
	b := stand(t, [2]link.Shape{
		{Rate: rate, Delay: delay, Queue: link.Queue{Packets: limit}},
		{Delay: delay},
	})
	peak := 0
	rtt, took := b.bulk(t, "10.0.0.2:0", 4<<20, func() {
		c := b.counters(t)[0]
		if c.Queued > limit {
			t.Errorf("%d frames wait in a queue of %d", c.Queued, limit)
		}
		peak = max(peak, c.Queued)
	})
	c := b.settled(t, 0)
	if c.Overflow == 0 {
		t.Errorf("nothing overflowed: %+v", c)
	}
	if peak < limit*95/100 {
		t.Errorf("the queue held %d frames at most, want its limit %d", peak, limit)
	}
	want := 2*delay + time.Duration(limit*1514*8/rate*1e9)
	// A busy host may be slower than the rate; that the queue held no more is counted above.
	if rtt < want*85/100 {
		t.Errorf("round trip under load %v, want %v", rtt, want)
	}
	if c.Failed > 0 || c.Lost > 0 {
		t.Errorf("the engine lost frames: %+v", c)
	}
	t.Logf("peak %d of %d, RTT %v (closed form %v), goodput %.2f Mbit/s, %+v", peak, limit, rtt, want, 8*float64(4<<20)/took.Seconds()/1e6, c)
}

func TestIPv6Passes(t *testing.T) {
	b := stand(t, [2]link.Shape{{Delay: 10 * time.Millisecond}, {Delay: 10 * time.Millisecond}})
	rtt, _ := b.bulk(t, "[fd00::2]:0", 100_000, func() {})
	if rtt > 0 && rtt < 20*time.Millisecond {
		t.Errorf("round trip %v, want at least 20ms", rtt)
	}
	b.settled(t, 0)
}

func TestLossIsIndependentAndCounted(t *testing.T) {
	const frames, p = 5000, 0.1
	b := stand(t, [2]link.Shape{{Loss: link.RandomLoss(p)}, {}})
	b.flood(t, 0, frames, 60)
	c := b.settled(t, 0)
	// Six standard deviations: a false alarm in 500 million runs.
	if off := math.Abs(float64(c.Lost) - p*frames); off > 6*math.Sqrt(frames*p*(1-p)) {
		t.Errorf("lost %d of %d frames, want about %g", c.Lost, frames, p*frames)
	}
	if c.Received != frames || c.Delivered+c.Lost != frames || c.Overflow+c.Failed != 0 {
		t.Errorf("counters do not add up: %+v", c)
	}
	if other := b.counters(t)[1]; other.Received != 0 {
		t.Errorf("the other direction saw %+v", other)
	}
	if err := b.link.Rearm(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([2]link.Counters{}, b.counters(t)); diff != "" {
		t.Errorf("counters after re-arming (-want +got):\n%s", diff)
	}
}

// Shapes change in place under a flow: no frame is lost by it, and a delay that
// shrinks lets none overtake.
func TestChangeLosesAndReordersNothing(t *testing.T) {
	b := stand(t, [2]link.Shape{{Delay: 30 * time.Millisecond}, {Delay: time.Millisecond}})
	steps := []link.Shape{
		{Delay: 5 * time.Millisecond},
		{Delay: 5 * time.Millisecond, Rate: 50e6, Queue: link.Queue{Packets: 5000}},
		{Delay: time.Millisecond, Rate: 20e6, Queue: link.Queue{Packets: 6000}},
		{},
		{Rate: 30e6, Queue: link.Queue{Packets: 7000}},
		{Delay: 10 * time.Millisecond, Rate: 60e6, Queue: link.Queue{Packets: 8000}},
	}
	// A step without a rate lets go of all that waits, at once, and the receiver's
	// backlog is the host's (net.core.netdev_max_backlog: 1000 frames): no more
	// than some 700 may be on their way.
	if err := b.spec.Ends[0].Node.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/tcp_wmem", []byte("4096 16384 1000000"), 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	changes := 0
	b.bulk(t, "10.0.0.2:0", 12<<20, func() {
		step := steps[changes%len(steps)]
		if err := b.link.Change(0, link.Direction{Shape: step}); err != nil {
			t.Errorf("change to %+v: %v", step, err)
		}
		changes++
	})
	c := b.settled(t, 0)
	if c.Lost+c.Overflow+c.Failed != 0 {
		t.Errorf("frames were lost: %+v", c)
	}
	var overtaken uint32
	if err := b.spec.Ends[1].Node.Do(func() (err error) {
		overtaken, err = netstat("TCPOFOQueue")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if overtaken != 0 {
		t.Errorf("%d segments were overtaken", overtaken)
	}
	if changes < 2*len(steps) {
		t.Errorf("only %d changes happened", changes)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	b := stand(t, [2]link.Shape{{Delay: time.Millisecond}, {}})
	fabric := b.link.(*wire).fabric.ns
	if err := b.link.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []*netns.Handle{b.spec.Ends[0].Node, b.spec.Ends[1].Node, fabric} {
		err := ns.Do(func() error {
			links, err := netlink.LinkList()
			if len(links) != 1 {
				t.Errorf("%s has %d interfaces, want its loopback alone", ns.Name(), len(links))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := b.link.ReadBack(); err == nil {
		t.Error("a closed link reads back")
	}
	if err := b.link.Close(); err != nil {
		t.Errorf("closing it once more: %v", err)
	}
}

// netstat reads one of the TCP extension counters of this thread's namespace.
func netstat(name string) (uint32, error) {
	data, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		return 0, err
	}
	var header []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if header == nil {
			header = fields
			continue
		}
		for i, field := range header {
			if field == name {
				var value uint32
				_, err := fmt.Sscan(fields[i], &value)
				return value, err
			}
		}
	}
	return 0, fmt.Errorf("no counter %s", name)
}

func BenchmarkCreate(b *testing.B) {
	for b.Loop() {
		stand(b, [2]link.Shape{{Rate: 1e6, Queue: link.Queue{Packets: 10}}, {}})
	}
}
