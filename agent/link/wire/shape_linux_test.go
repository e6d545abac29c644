package wire

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/netns"
)

// count is a node's counter as nstat calls it: of a group ("Tcp") in a file below /proc/net.
func count(t *testing.T, ns *netns.Handle, file, group, name string) uint64 {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/" + file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != group+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if at := slices.Index(names, name); at >= 0 {
			n, err := strconv.ParseUint(fields[at], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("the kernel has no counter %s %s", group, name)
	return 0
}

// whole sends n random bytes from client to server and fails unless just those arrive.
func whole(t *testing.T, client, server *net.TCPConn, n int64) {
	t.Helper()
	if err := errors.Join(client.SetDeadline(time.Now().Add(time.Minute)), server.SetDeadline(time.Now().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	sent, came := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		random := rand.NewChaCha8([32]byte{1})
		_, err := io.CopyN(io.MultiWriter(client, sent), random, n)
		done <- err
	}()
	_, err := io.CopyN(came, server, n)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent.Sum(nil), came.Sum(nil)); diff != "" {
		t.Errorf("other bytes arrived than were sent:\n%s", diff)
	}
}

// drained are the counters once nothing is under way any more.
func (b *bench) drained(t *testing.T) link.Counters {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		c := b.counters(t)[0]
		if c.Received+c.Duplicated == c.Delivered+c.Lost+c.Overflow+c.Early+c.Failed {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("frames stay under way: %+v", c)
		}
	}
}

// One TCP flow fills each kind of queue, which drops, marks and delays as it should.
func TestOneFlowFillsEachQueue(t *testing.T) {
	const limit = 400                      // packets, 48 ms at 100 Mbit/s
	const interval = 20 * time.Millisecond // two round trips, so that CoDel has settled within a second
	shape := func(q link.Queue) link.Shape {
		return link.Shape{Rate: 100e6, Delay: 5 * time.Millisecond, Queue: q}
	}
	tests := []struct {
		name  string
		queue link.Queue
		ecn   bool
		check func(t *testing.T, c link.Counters, rtt time.Duration, retransmitted, congestion uint64)
	}{
		{"fifo", link.Queue{Packets: limit}, false, full(limit)},
		{"fifo of bytes", link.Queue{Bytes: limit * 1514}, false, full(limit)},
		{"fifo of time", link.Queue{Time: limit * 1514 * 8 * 10 * time.Nanosecond}, false, full(limit)},
		{"head-drop", link.Queue{Packets: limit, Discipline: link.HeadDrop}, false, full(limit)},
		{"codel", link.Queue{Packets: 10 * limit, Discipline: link.CoDel, Interval: interval}, false, func(t *testing.T, c link.Counters, rtt time.Duration, retransmitted, _ uint64) {
			if c.Early == 0 || c.Overflow+c.Marked != 0 || retransmitted < c.Early {
				t.Errorf("%d retransmitted, %+v", retransmitted, c)
			}
			short(t, rtt)
		}},
		{"codel with marks", link.Queue{Packets: 10 * limit, Discipline: link.CoDel, ECN: true, Interval: interval}, true, func(t *testing.T, c link.Counters, rtt time.Duration, retransmitted, congestion uint64) {
			// Nothing is dropped. A busy machine may have TCP probe for a lost tail, but not more.
			if c.Marked == 0 || c.Early+c.Overflow != 0 || congestion != c.Marked || retransmitted > c.Marked/2 {
				t.Errorf("%d retransmitted, %d came with marks, %+v", retransmitted, congestion, c)
			}
			short(t, rtt)
		}},
	}
	forKinds(t, func(t *testing.T, kind PortKind) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				b := stand(t, kind, shape(test.queue), link.Shape{Delay: 5 * time.Millisecond})
				if test.ecn {
					for _, n := range b.nodes {
						if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte("1"), 0) }); err != nil {
							t.Fatal(err)
						}
					}
				}
				client, server := b.connect(t)
				// Once through slow start and its end.
				if err := send(client, server, 9<<20); err != nil {
					t.Fatal(err)
				}
				var rtts []time.Duration
				for range 16 {
					if err := send(client, server, 256<<10); err != nil {
						t.Fatal(err)
					}
					rtts = append(rtts, time.Duration(info(t, client).Rtt)*time.Microsecond)
				}
				slices.Sort(rtts)
				c := b.drained(t)
				if c.Failed != 0 || c.Lost != 0 {
					t.Fatalf("%+v", c)
				}
				ce := count(t, b.nodes[1], "netstat", "IpExt", "InCEPkts")
				if told := count(t, b.nodes[0], "netstat", "TcpExt", "TCPDeliveredCE"); (told > 0) != test.ecn {
					t.Errorf("the sender was told of %d marks", told)
				}
				test.check(t, c, rtts[len(rtts)/2], uint64(info(t, client).Total_retrans), ce)
			})
		}
	})
}

// full checks a queue that drops what does not fit: it was as long as it may be, and what it
// dropped was sent again.
func full(limit int) func(t *testing.T, c link.Counters, rtt time.Duration, retransmitted, congestion uint64) {
	return func(t *testing.T, c link.Counters, rtt time.Duration, retransmitted, _ uint64) {
		t.Helper()
		if c.Overflow == 0 || c.Early+c.Marked != 0 || retransmitted < c.Overflow {
			t.Errorf("%d retransmitted, %+v", retransmitted, c)
		}
		if c.PeakQueue != limit {
			t.Errorf("at most %d packets waited, want %d", c.PeakQueue, limit)
		}
		// What is under way fills the queue and 83 packets of delay, and reno halves it: 160 packets
		// are 29 ms, and after a second halving at the end of slow start 18 ms.
		if rtt < 18*time.Millisecond {
			t.Errorf("the round trip takes %v: the queue is not felt", rtt)
		}
	}
}

// short checks that a queue is held short: 10 ms of delay, a target of 5 ms, and what reno
// oscillates around it. Unheld, 4000 packets are 480 ms.
func short(t *testing.T, rtt time.Duration) {
	t.Helper()
	if rtt > 30*time.Millisecond {
		t.Errorf("the round trip takes %v: the queue is not held short", rtt)
	}
}

// Damage is a checksum error to the receiver's kernel, and nothing to those above.
func TestCorruptionIsAChecksumError(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{Delay: time.Millisecond, Corrupt: link.Chance{Probability: 0.02}}, link.Shape{Delay: time.Millisecond})
		client, server := b.connect(t)
		whole(t, client, server, 4<<20)
		c := b.drained(t)
		noticed := count(t, b.nodes[1], "snmp", "Tcp", "InCsumErrors") + count(t, b.nodes[1], "snmp", "Ip", "InHdrErrors")
		if c.Corrupted < 10 || noticed != c.Corrupted || c.Lost+c.Overflow+c.Failed != 0 {
			t.Errorf("%d noticed, %+v", noticed, c)
		}
	})
}

// The unfinished checksum of a super-packet is finished before the damage. What sends it on a packet
// port would give the damaged packet a new checksum: that is refused.
func TestCorruptionOfSuperPackets(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		needs(t, kind)
		b := &bench{nodes: [2]*netns.Handle{node(t, "a"), node(t, "b")}}
		spec := link.Spec{Name: "a-b"}
		for i, n := range b.nodes {
			spec.Ends[i] = end(n, i)
			spec.Ends[i].Plain = true
			spec.Directions[i].Shape.Delay = time.Millisecond
		}
		spec.Directions[0].Shape.Corrupt.Probability = 0.02
		e := engine(t, kind)
		asked := spec.Directions[0]
		if kind == Packet {
			if err := e.Check(spec); err == nil || !strings.Contains(err.Error(), "corrupt") {
				t.Errorf("super-packets are to be corrupted: %v", err)
			}
			spec.Directions[0].Shape.Corrupt = link.Chance{}
		}
		made, err := e.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		b.link = made.(*Link)
		t.Cleanup(func() { made.Close() })
		if kind == Packet {
			if err := b.link.Change(0, asked); err == nil {
				t.Error("a change to it is not refused")
			}
			return
		}
		for i := range b.nodes {
			if err := b.address(spec.Ends, i); err != nil {
				t.Fatal(err)
			}
		}
		client, server := b.connect(t)
		whole(t, client, server, 16<<20)
		c := b.drained(t)
		noticed := count(t, b.nodes[1], "snmp", "Tcp", "InCsumErrors") + count(t, b.nodes[1], "snmp", "Ip", "InHdrErrors")
		if c.Corrupted == 0 || noticed != c.Corrupted || c.Lost+c.Overflow+c.Failed != 0 {
			t.Errorf("%d noticed, %+v", noticed, c)
		}
	})
}

// What overtakes is put in order again, and the receiver tells the sender.
func TestReorderingIsSeenByTCP(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		for name, shape := range map[string]link.Shape{
			"reorder": {Delay: 5 * time.Millisecond, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.02}}},
			"jitter":  {Delay: 5 * time.Millisecond, Jitter: link.Jitter{Amount: time.Millisecond, Distribution: link.Normal, Reorder: true}},
		} {
			t.Run(name, func(t *testing.T) {
				b := stand(t, kind, shape, link.Shape{Delay: time.Millisecond})
				client, server := b.connect(t)
				whole(t, client, server, 4<<20)
				c := b.drained(t)
				if got := outOfOrder(t, b.nodes[1]); got == 0 || c.Failed+c.Lost+c.Overflow != 0 || (name == "reorder") != (c.Reordered > 0) {
					t.Errorf("%d out of order, %+v", got, c)
				}
			})
		}
		t.Run("jitter in order", func(t *testing.T) {
			b := stand(t, kind, link.Shape{Delay: 5 * time.Millisecond, Jitter: link.Jitter{Amount: time.Millisecond, Distribution: link.Normal}}, link.Shape{})
			client, server := b.connect(t)
			whole(t, client, server, 4<<20)
			if got := outOfOrder(t, b.nodes[1]); got != 0 {
				t.Errorf("%d out of order", got)
			}
		})
	})
}

// The receiver tells the sender of each segment that came twice (RFC 2883).
func TestDuplicatesAreSeenByTCP(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{Delay: time.Millisecond, Duplicate: link.Chance{Probability: 0.05}}, link.Shape{Delay: time.Millisecond})
		client, server := b.connect(t)
		whole(t, client, server, 4<<20)
		c := b.drained(t)
		// A copy of a bare acknowledgement is no duplicate to TCP: there are a few of the handshake.
		sent := count(t, b.nodes[1], "netstat", "TcpExt", "TCPDSACKOldSent")
		if c.Duplicated < 50 || sent > c.Duplicated || sent+5 < c.Duplicated || c.Delivered != c.Received+c.Duplicated {
			t.Errorf("told of %d, %+v", sent, c)
		}
	})
}

func TestListedPacketIsLost(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := stand(t, kind, link.Shape{Loss: link.Loss{Packets: []uint64{3}}}, link.Shape{})
		from, to := openRaw(t, b.nodes[0]), openRaw(t, b.nodes[1])
		for trial := range 2 { // the numbers restart
			if err := b.link.Rearm(); err != nil {
				t.Fatal(err)
			}
			var came []uint32
			for i := range uint32(5) {
				from.send(t, i, 100)
			}
			for range 4 {
				if i, some := to.receive(t); some {
					came = append(came, i)
				}
			}
			if diff := cmp.Diff([]uint32{0, 1, 3, 4}, came); diff != "" {
				t.Errorf("trial %d: frames that came (-want +got):\n%s", trial, diff)
			}
		}
	})
}

// standWith makes a link whose first direction is as given.
func standWith(t *testing.T, kind PortKind, d link.Direction) *bench {
	t.Helper()
	needs(t, kind)
	b := &bench{nodes: [2]*netns.Handle{node(t, "a"), node(t, "b")}}
	spec := link.Spec{Name: "a-b", Directions: [2]link.Direction{d}}
	for i, n := range b.nodes {
		spec.Ends[i] = end(n, i)
	}
	made, err := engine(t, kind).Create(t.Context(), spec)
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

// A path carries what it selects, and nothing else.
func TestPathsOfALink(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		asked := link.Direction{
			Shape: link.Shape{Down: true},
			Paths: []link.Path{
				{Name: "udp", Match: link.Match{Protocol: link.UDP}, Shape: link.Shape{Down: true}},
				{Name: "tcp", Match: link.Match{Protocol: link.TCP}, Shape: link.Shape{Delay: 20 * time.Millisecond}},
			},
		}
		b := standWith(t, kind, asked)
		read, err := b.link.ReadBack()
		if err != nil {
			t.Fatal(err)
		}
		if drift := asked.Drift(read[0], link.Resolution{}); len(drift) > 0 {
			t.Errorf("read back: %v", drift)
		}
		openRaw(t, b.nodes[0]).send(t, 1, 100)
		client, server := b.connect(t)
		whole(t, client, server, 100_000)
		if rtt := info(t, client).Rtt; rtt < 20_000 {
			t.Errorf("a round trip takes %d µs", rtt)
		}
		if c := b.drained(t); c.Lost != 1 {
			t.Errorf("%+v", c)
		}
		// A change reaches one path and leaves the other.
		to := asked
		to.Paths = slices.Clone(asked.Paths)
		to.Paths[1].Shape.Delay = time.Millisecond
		if err := b.link.Change(0, to); err != nil {
			t.Fatal(err)
		}
		if read, err = b.link.ReadBack(); err != nil || len(to.Drift(read[0], link.Resolution{})) > 0 {
			t.Errorf("%v, changed it is %+v", err, read[0])
		}
		if err := b.link.Change(0, link.Direction{}); err == nil {
			t.Error("paths were taken away")
		}
	})
}

// A trace of one packet a ms lets no more through.
func TestTraceOfALink(t *testing.T) {
	forKinds(t, func(t *testing.T, kind PortKind) {
		b := standWith(t, kind, link.Direction{
			Shape: link.Shape{Delay: time.Millisecond, Queue: link.Queue{Packets: 100}},
			Trace: &link.Trace{Opportunities: []time.Duration{time.Millisecond, 2 * time.Millisecond}},
		})
		client, server := b.connect(t)
		begin := time.Now()
		const size = 1_000_000
		whole(t, client, server, size)
		least := size / 1448 * time.Millisecond
		if took := time.Since(begin); took < least {
			t.Errorf("%d bytes took %v, with one packet a ms they take %v", size, took, least)
		}
		if c := b.drained(t); c.PeakQueue == 0 || c.PeakQueue > 100 || c.Failed != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestCheckRefusesShapes(t *testing.T) {
	rate := func(q link.Queue) link.Direction { return link.Direction{Shape: link.Shape{Rate: 1e6, Queue: q}} }
	tests := []struct {
		name string
		asks link.Direction
		want string // part of the refusal; empty: none
	}{
		{"red", rate(link.Queue{Packets: 100, Discipline: link.RED}), "no red: take netem"},
		{"fq_codel", rate(link.Queue{Packets: 100, Discipline: link.FQCoDel}), "no fq_codel: take netem"},
		{"cake", rate(link.Queue{Packets: 100, Discipline: link.CAKE}), "no cake: take netem"},
		{"pie", rate(link.Queue{Packets: 100, Discipline: link.PIE}), "no pie: take netem"},
		{"codel", rate(link.Queue{Packets: 100, Discipline: link.CoDel, ECN: true}), ""},
		{"no queue", rate(link.Queue{}), "the bottleneck has no queue"},
		{"a discipline without a limit", rate(link.Queue{Discipline: link.CoDel}), "the bottleneck has no queue"},
		{"a queue below one frame", rate(link.Queue{Bytes: 1513}), "a queue of 1513 bytes holds no full frame of 1514"},
		{"a queue of one frame", rate(link.Queue{Bytes: 1514}), ""},
		{"a queue of too short a time", rate(link.Queue{Time: time.Millisecond}), "a queue of 125 bytes holds no full frame"},
		{"a trace without a queue", link.Direction{Trace: &link.Trace{Opportunities: []time.Duration{1}}}, "the bottleneck has no queue"},
		{"a path", link.Direction{Paths: []link.Path{{Name: "p", Match: link.Match{Port: 1}, Shape: rate(link.Queue{Packets: 9, Discipline: link.PIE}).Shape}}}, "path p: the wire engine has"},
		{"a step", link.Direction{Schedule: link.Schedule{Steps: []link.Step{{At: time.Second, Shape: rate(link.Queue{}).Shape}}}}, "schedule at 1s: the bottleneck"},
		{"what contradicts itself", link.Direction{Shape: link.Shape{Delay: -1}}, "negative"},
	}
	for _, test := range tests {
		spec := link.Spec{Name: "a-b", Directions: [2]link.Direction{test.asks}, Ends: [2]link.Port{{MTU: 1500}, {MTU: 1500}}}
		err := (&Engine{}).Check(spec)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
