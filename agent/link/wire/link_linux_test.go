package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/netns"
)

// forKinds runs a test with each kind of port.
func forKinds(t *testing.T, test func(t *testing.T, kind PortKind)) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

// interfaces are the names in a node, without its loopback.
func interfaces(t *testing.T, ns *netns.Handle) []string {
	t.Helper()
	var names []string
	err := ns.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Name != "lo" {
				names = append(names, l.Attrs().Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPortIsAsAsked(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		needs(t, kind)
		nodes := [2]*netns.Handle{node(t, "a"), node(t, "b")}
		spec := link.Spec{Name: "a-b", Ends: [2]link.Port{end(nodes[0], 0), end(nodes[1], 1)}}
		spec.Ends[1].Name, spec.Ends[1].MTU = "east", 9000
		made, err := engine(t, kind).Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range spec.Ends {
			err := nodes[i].Do(func() error {
				l, err := netlink.LinkByName(p.Name)
				if err != nil {
					return err
				}
				a := l.Attrs()
				if a.MTU != p.MTU || a.HardwareAddr.String() != p.MAC.String() || a.Flags&net.FlagUp == 0 || a.OperState == netlink.OperDown {
					t.Errorf("%s: MTU %d, address %v, %v, %v", p.Name, a.MTU, a.HardwareAddr, a.Flags, a.OperState)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if err := made.Close(); err != nil {
			t.Fatal(err)
		}
		for i, n := range nodes {
			if left := interfaces(t, n); left != nil {
				t.Errorf("closed, the link left %v at end %d", left, i)
			}
		}
		if err := made.Close(); err != nil {
			t.Errorf("closing it again: %v", err)
		}
		if _, err := made.Counters(); !errors.Is(err, errEnded) {
			t.Errorf("a closed link's counters: %v", err)
		}
	})
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		needs(t, kind)
		nodes := [2]*netns.Handle{node(t, "a"), node(t, "b")}
		e := engine(t, kind)
		good := link.Spec{Name: "a-b", Ends: [2]link.Port{end(nodes[0], 0), end(nodes[1], 1)}}
		taken := good
		taken.Ends[1] = taken.Ends[0] // the same name in the same node
		before := descriptors(t)
		if _, err := e.Create(t.Context(), taken); err == nil {
			t.Error("two interfaces of one name were made in one node")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := e.Create(ctx, good); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled, Create said %v", err)
		}
		for i, n := range nodes {
			if left := interfaces(t, n); left != nil {
				t.Errorf("it left %v at end %d", left, i)
			}
		}
		allowed := before
		if kind == Packet {
			allowed++ // the fabric namespace, which is the engine's
		}
		// A thread that has left a namespace closes the descriptor of its own one a moment later.
		for deadline := time.Now().Add(10 * time.Second); descriptors(t) > allowed; {
			if time.Now().After(deadline) {
				t.Fatalf("%d descriptors are open, %d were", descriptors(t), before)
			}
		}
		made, err := e.Create(t.Context(), good)
		if err != nil {
			t.Fatalf("after that: %v", err)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	})
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func TestCheckRefuses(t *testing.T) {
	queue := link.Queue{Packets: 10}
	tests := []struct {
		name  string
		shape link.Shape
		mtu   int
		want  string // in the error; "": none
	}{
		{"nothing asked", link.Shape{}, 1500, ""},
		{"a rate with its queue", link.Shape{Rate: 1e6, Queue: queue}, 1500, ""},
		{"a rate without a queue", link.Shape{Rate: 1e6}, 1500, "resolve"},
		{"a queue without a rate", link.Shape{Queue: queue}, 1500, "give the link a rate"},
		{"negative delay", link.Shape{Delay: -1}, 1500, "negative"},
		{"a rate beyond the clock", link.Shape{Rate: 1 << 63, Queue: queue}, 1500, "beyond"},
		{"an MTU too small", link.Shape{}, 67, "MTU"},
		{"an MTU too large", link.Shape{}, 65_522, "MTU"},
	}
	e := &Engine{kind: TAP}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := link.Spec{Name: "x", Ends: [2]link.Port{{MTU: test.mtu}, {MTU: 1500}}}
			spec.Directions[1].Shape = test.shape
			err := e.Check(spec)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("Check said %v, want %q", err, test.want)
			}
		})
	}
	if _, err := New(Options{Port: "pigeon"}); err == nil {
		t.Error("an engine with pigeons was made")
	}
}

// One flow fills the queue to its limit and no further. TCP Small Queues would
// prevent it if the frames still belonged to their socket.
func TestOneFlowFillsTheQueue(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		const limit = 300
		b := stand(t, kind, link.Shape{Rate: 50e6, Delay: 2 * time.Millisecond, Queue: link.Queue{Packets: limit}}, link.Shape{Delay: 2 * time.Millisecond})
		client, server := b.connect(t)
		if err := send(client, server, 4<<20); err != nil {
			t.Fatal(err)
		}
		c := b.counters(t)[0]
		if c.PeakQueue != limit || c.Overflow == 0 || c.Failed != 0 {
			t.Errorf("the queue of %d frames: %+v", limit, c)
		}
	})
}

// A window that fits the queue loses nothing, and the time is that of the rate.
func TestTransferTakesWhatTheRateSays(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		const rate, size = 100_000_000, 2 << 20
		b := stand(t, kind, link.Shape{Rate: rate, Delay: time.Millisecond, Queue: link.Queue{Packets: 20_000}}, link.Shape{Delay: time.Millisecond})
		client, server := b.connect(t)
		before := b.counters(t)[0]
		started := time.Now()
		if err := send(client, server, size); err != nil {
			t.Fatal(err)
		}
		took := time.Since(started)
		c := b.counters(t)[0]
		if got := outOfOrder(t, b.nodes[1]); got != 0 || c.Overflow+c.Failed+c.Lost != 0 {
			t.Errorf("%d segments out of order; %+v", got, c)
		}
		// 1448 bytes of each frame of 1514 are the transfer's.
		least := link.Shape{Rate: rate}.Serialization(size * 1514 / 1448)
		if took < least {
			t.Errorf("%d bytes in %v at 100 Mbit/s, %v at least", size, took, least)
		}
		if frames := c.Received - before.Received; frames < size/1448 || frames > size/1448+size/1448/10+20 {
			t.Errorf("%d bytes were %d frames", size, frames)
		}
	})
}

func TestChangeUnderTrafficLosesAndReordersNothing(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{Delay: 5 * time.Millisecond})
		client, server := b.connect(t)
		done := make(chan error, 1)
		go func() { done <- send(client, server, 32<<20) }()
		wide := link.Queue{Packets: 100_000}
		shapes := []link.Shape{
			{Delay: time.Millisecond}, {Rate: 500e6, Queue: wide}, {Rate: 2e9, Delay: 3 * time.Millisecond, Queue: wide}, {}, {Delay: 5 * time.Millisecond},
		}
		changes := 0
		for running := true; running; changes++ {
			shape := shapes[changes%len(shapes)]
			if err := b.link.Change(0, link.Direction{Shape: shape}); err != nil {
				t.Fatal(err)
			}
			got, err := b.link.ReadBack()
			if err != nil {
				t.Fatal(err)
			}
			if !got[0].Shape.Equal(shape) || !got[1].Shape.Equal(link.Shape{Delay: 5 * time.Millisecond}) {
				t.Fatalf("changed to %+v, in force is %+v", shape, got)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				running = false
			case <-time.After(2 * time.Millisecond):
			}
		}
		c := b.counters(t)
		if got := outOfOrder(t, b.nodes[1]); got != 0 || c[0].Overflow+c[0].Failed+c[0].Lost != 0 {
			t.Errorf("after %d changes: %d segments out of order, %+v", changes, got, c[0])
		}
		if changes < len(shapes) {
			t.Errorf("only %d changes while the transfer ran", changes)
		}
	})
}

// outOfOrder is the node's TcpExtTCPOFOQueue: segments that arrived before one sent earlier.
func outOfOrder(t *testing.T, ns *netns.Handle) (n uint64) {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/netstat")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "TCPOFOQueue" {
			for _, digit := range values[i] {
				n = n*10 + uint64(digit-'0')
			}
			return n
		}
	}
	t.Fatal("the kernel does not count segments out of order")
	return 0
}

// raw sends Ethernet frames of a protocol of its own from a node, and receives them.
type raw struct {
	sock  int
	index int
}

const experimental = 0x88b5 // IEEE 802 local experimental EtherType 1

func openRaw(t *testing.T, ns *netns.Handle) raw {
	t.Helper()
	r := raw{}
	err := ns.Do(func() error {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		var protocol [2]byte
		binary.BigEndian.PutUint16(protocol[:], experimental)
		r.index = iface.Index
		r.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		patience := unix.NsecToTimeval(time.Second.Nanoseconds())
		if err := unix.SetsockoptTimeval(r.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
			return err
		}
		return unix.Bind(r.sock, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(protocol[:]), Ifindex: r.index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(r.sock) })
	return r
}

func (r raw) send(t *testing.T, number uint32, size int) {
	t.Helper()
	if err := r.trySend(number, size); err != nil {
		t.Fatal(err)
	}
}

func (r raw) trySend(number uint32, size int) error {
	frame := make([]byte, size)
	copy(frame, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(frame[12:], experimental)
	binary.BigEndian.PutUint32(frame[14:], number)
	return unix.Sendto(r.sock, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.index})
}

// receive is the number of the next frame; false: none came within a second.
func (r raw) receive(t *testing.T) (uint32, bool) {
	t.Helper()
	frame := make([]byte, 2048)
	for {
		_, _, err := unix.Recvfrom(r.sock, frame, 0)
		switch err {
		case nil:
			return binary.BigEndian.Uint32(frame[14:]), true
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, false
		default:
			t.Fatal(err)
		}
	}
}

// survivors sends n numbered frames and returns which of them came, in order of coming. A last frame over the
// lossless change of the shape marks the end.
func survivors(t *testing.T, b *bench, from, to raw, lossy link.Shape, n uint32) []uint32 {
	t.Helper()
	for i := range n {
		from.send(t, i, 100)
	}
	// All frames have been read by the loop when their number has been counted.
	for b.counters(t)[0].Received < uint64(n) {
	}
	if err := b.link.Change(0, link.Direction{Shape: link.Shape{Delay: lossy.Delay}}); err != nil {
		t.Fatal(err)
	}
	from.send(t, n, 100)
	var came []uint32
	for {
		i, some := to.receive(t)
		if !some {
			t.Fatal("the last frame did not come")
		}
		if i == n {
			break
		}
		came = append(came, i)
	}
	if err := b.link.Change(0, link.Direction{Shape: lossy}); err != nil {
		t.Fatal(err)
	}
	return came
}

func TestRearmRepeatsTheLosses(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		const n = 200 // fits a socket's buffer on any machine: the socket must not be what loses them
		lossy := link.Shape{Loss: link.RandomLoss(0.1), Delay: time.Millisecond}
		b := stand(t, kind, lossy, link.Shape{})
		from, to := openRaw(t, b.nodes[0]), openRaw(t, b.nodes[1])
		var want []uint32
		for i := range survivorsOf(0.1, n) {
			want = append(want, i)
		}
		for trial := range 3 {
			if err := b.link.Rearm(); err != nil {
				t.Fatal(err)
			}
			if c := b.counters(t)[0]; c != (link.Counters{}) {
				t.Fatalf("re-armed, it has counted %+v", c)
			}
			if diff := cmp.Diff(want, survivors(t, b, from, to, lossy, n)); diff != "" {
				t.Fatalf("trial %d: frames that came (-want +got):\n%s", trial, diff)
			}
			if c := b.counters(t)[0]; c.Received != n+1 || c.Lost != n-uint64(len(want)) || c.Overflow+c.Failed != 0 {
				t.Errorf("trial %d: %+v", trial, c)
			}
		}
	})
}

// survivorsOf yields the numbers of the frames that the model of seed 1 lets through.
func survivorsOf(loss float64, n int) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		lost := lostOf(newModel(link.Shape{Loss: link.RandomLoss(loss)}, 1), n)
		for i := range n {
			if !lost[i] && !yield(uint32(i)) {
				return
			}
		}
	}
}

func TestRearmEmptiesTheLink(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{Delay: time.Hour}, link.Shape{})
		from, to := openRaw(t, b.nodes[0]), openRaw(t, b.nodes[1])
		from.send(t, 1, 100)
		for b.counters(t)[0].Received < 1 {
		}
		if err := b.link.Rearm(); err != nil {
			t.Fatal(err)
		}
		if err := b.link.Change(0, link.Direction{Shape: link.Shape{}}); err != nil {
			t.Fatal(err)
		}
		from.send(t, 2, 100)
		if got, some := to.receive(t); !some || got != 2 {
			t.Errorf("frame %d came (%v), want that after the re-arming", got, some)
		}
	})
}

// What the sender's kernel drops before the loop can read it is counted.
func TestFailedCountsWhatTheLoopMissed(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{})
		from := openRaw(t, b.nodes[0])
		const flood = 120_000 // more than either kind of port holds
		err := b.link.loops[0].do(func() {
			for i := range uint32(flood) {
				// The sender is told of a full port, and goes on.
				if err := from.trySend(i, 60); err != nil && !errors.Is(err, unix.ENOBUFS) {
					t.Error(err)
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		var c link.Counters
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if c = b.counters(t)[0]; c.Received+c.Failed == flood && c.Delivered == c.Received {
				break
			}
		}
		if c.Received+c.Failed != flood || c.Failed == 0 || c.Delivered != c.Received {
			t.Errorf("of %d frames: %+v", flood, c)
		}
		if err := b.link.Rearm(); err != nil {
			t.Fatal(err)
		}
		if c := b.counters(t)[0]; c.Failed != 0 {
			t.Errorf("re-armed: %+v", c)
		}
	})
}

// A link whose interface somebody has deleted says so.
func TestInterfaceThatGoesIsReported(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{})
		err := b.nodes[0].Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		})
		if err != nil {
			t.Fatal(err)
		}
		// The loop that reads from the interface ends by itself.
		select {
		case <-b.link.loops[0].ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the loop goes on")
		}
		if _, err := b.link.Counters(); err == nil {
			t.Error("its counters say nothing of it")
		}
		if err := b.link.Close(); err == nil {
			t.Error("closed, it says nothing of it")
		}
	})
}

// Plain ports pass super-packets on with their unfinished headers.
func TestPlainPortsCarrySuperPackets(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		for _, plain := range [][2]bool{{true, true}, {true, false}, {false, true}} {
			needs(t, kind)
			b := &bench{nodes: [2]*netns.Handle{node(t, "a"), node(t, "b")}}
			spec := link.Spec{Name: "a-b"}
			for i, n := range b.nodes {
				spec.Ends[i] = end(n, i)
				spec.Ends[i].Plain = plain[i]
				spec.Directions[i].Shape.Delay = time.Millisecond
			}
			made, err := engine(t, kind).Create(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			b.link = made.(*Link)
			t.Cleanup(func() { made.Close() })
			for i := range b.nodes {
				if err := b.address(spec.Ends, i); err != nil {
					t.Fatal(err)
				}
			}
			const size = 8 << 20
			client, server := b.connect(t)
			if err := send(client, server, size); err != nil {
				t.Fatal(err)
			}
			c := b.counters(t)[0]
			if super := c.Received < size/1448; super != plain[0] || c.Failed != 0 {
				t.Errorf("plain %v: %d bytes were %+v", plain, size, c)
			}
		}
	})
}

// A port's queue holds what its link can have under way, and never less than bursts need.
func TestQueueFor(t *testing.T) {
	for name, test := range map[string]struct {
		shape link.Shape
		want  int
	}{
		"no rate":        {link.Shape{}, tapQueue},
		"a slow link":    {link.Shape{Rate: 10e6, Delay: 10 * time.Millisecond, Queue: link.Queue{Packets: 100}}, leastQueue + 2*100 + 33},
		"a queue":        {link.Shape{Rate: 10e6, Queue: link.Queue{Packets: 20_000}}, leastQueue + 40_000},
		"in bytes":       {link.Shape{Rate: 10e6, Queue: link.Queue{Bytes: 15_140_000}}, leastQueue + 20_000},
		"in time":        {link.Shape{Rate: 12_112_000, Queue: link.Queue{Time: 10 * time.Second}}, leastQueue + 20_000},
		"a fast link":    {link.Shape{Rate: 10e9, Delay: 100 * time.Millisecond, Queue: link.Queue{Packets: 100_000}}, tapQueue},
		"an endless one": {link.Shape{Rate: math.MaxInt64, Delay: time.Hour, Queue: link.Queue{Bytes: math.MaxInt}}, tapQueue},
	} {
		if got := queueFor(link.Direction{Shape: test.shape}, 1500); got != test.want {
			t.Errorf("%s: %d frames, want %d", name, got, test.want)
		}
	}
}
