package netem

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

func match(protocol link.Protocol, destination string) link.Match {
	return link.Match{Protocol: protocol, Destination: netip.MustParsePrefix(destination)}
}

// arrival is a frame as it came.
type arrival struct {
	number uint32
	after  time.Duration // since listening began
	frame  []byte
}

// listen begins to take the test's frames at an end. What it returns waits until nothing comes any
// more for a while, and is to be called once.
func (b bed) listen(t testing.TB, end int, while time.Duration) func() []arrival {
	t.Helper()
	var sock int
	err := b.spec.Ends[end].Node.Do(func() (err error) {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		if sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all); err != nil {
			return err
		}
		within := unix.NsecToTimeval(int64(while))
		return errors.Join(
			unix.Bind(sock, &unix.SockaddrLinklayer{Ifindex: device.Index, Protocol: all}),
			unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &within),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	result := make(chan []arrival, 1)
	go func() {
		defer unix.Close(sock)
		var all []arrival
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(sock, buffer, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			if n >= 18 {
				all = append(all, arrival{binary.BigEndian.Uint32(buffer[14:]), time.Since(begin), slices.Clone(buffer[:n])})
			}
		}
		result <- all
	}()
	return func() []arrival { return <-result }
}

// lostOf are the numbers of the frames that did not come.
func lostOf(came []arrival, sent int) []int {
	missing := make([]bool, sent+1)
	for i := range missing {
		missing[i] = i > 0
	}
	for _, a := range came {
		missing[a.number] = false
	}
	var lost []int
	for i, m := range missing {
		if m {
			lost = append(lost, i)
		}
	}
	return lost
}

func TestListedPacketsAreLost(t *testing.T) {
	for name, test := range map[string]struct {
		loss link.Loss
		want []int
	}{
		"listed":    {link.Loss{Packets: []uint64{1, 3, 4, 99, 101}}, []int{1, 3, 4, 99}},
		"every 7th": {link.Loss{Every: 7}, []int{7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 98}},
	} {
		t.Run(name, func(t *testing.T) {
			b := stand(t, [2]link.Shape{{Delay: time.Millisecond, Loss: test.loss}, {}})
			for round := range 2 { // numbers begin again when it is re-armed
				came := b.listen(t, 1, time.Second)
				b.flood(t, 0, 100, 60)
				lost := lostOf(came(), 100) // by then all have been counted
				c := b.settled(t, 0)
				if diff := cmp.Diff(test.want, lost); diff != "" {
					t.Errorf("round %d: lost (-want +got):\n%s", round, diff)
				}
				if c.Received != 100 || c.Lost != uint64(len(test.want)) || c.Failed+c.Early+c.Overflow != 0 {
					t.Errorf("round %d: %+v", round, c)
				}
				if err := b.link.Rearm(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Losses that depend on what was lost before, told by their share and by how often one follows another.
func TestLossHasItsMemory(t *testing.T) {
	const frames = 8000
	for name, test := range map[string]struct {
		loss   link.Loss
		again  float64 // chance that the next one is lost, too
		spread float64 // of the share: how much greater than that of independent losses
	}{
		"independent": {link.RandomLoss(0.1), 0.1, 1},
		// Gilbert: bursts of 1/0.3 frames. The variance of a sum grows by (1+ρ)/(1-ρ), ρ = 1 - 0.05 - 0.3.
		"Gilbert": {link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.05, ToGood: 0.3, BadLoss: 1}}, 0.7, math.Sqrt(1.65 / 0.35)},
		"alone":   {link.Loss{FourState: &link.FourState{P14: 0.1}}, 0, 1},
		"burst":   {link.Loss{FourState: &link.FourState{P13: 0.05, P31: 0.3}}, 0.7, math.Sqrt(1.65 / 0.35)},
		// The share stays what was asked though the draws crowd around their mean. What follows a loss is from 20 million draws by the same formula.
		"correlated": {link.Loss{Chance: link.Chance{Probability: 0.2, Correlation: 0.5}}, 0.424, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := stand(t, [2]link.Shape{{Loss: test.loss}, {}})
			came := b.listen(t, 1, time.Second)
			b.flood(t, 0, frames, 60)
			lost := lostOf(came(), frames) // by then all have been counted
			c := b.settled(t, 0)
			if int(c.Lost) != len(lost) || c.Received != frames || c.Failed+c.Overflow+c.Early != 0 {
				t.Errorf("%d frames did not come: %+v", len(lost), c)
			}
			// Six standard deviations, as above.
			p := test.loss.Mean()
			if off := math.Abs(float64(len(lost)) - p*frames); off > 6*test.spread*math.Sqrt(frames*p*(1-p)) {
				t.Errorf("lost %d of %d, want about %g", len(lost), frames, p*frames)
			}
			again := 0
			for i := range len(lost) - 1 {
				if lost[i+1] == lost[i]+1 {
					again++
				}
			}
			share, n := float64(again)/float64(len(lost)), float64(len(lost))
			if off := math.Abs(share - test.again); off > 6*math.Sqrt(test.again*(1-test.again)/n)+0.001 {
				t.Errorf("after a loss %.3f are lost, want %.3f", share, test.again)
			}
		})
	}
}

func TestDuplicatesComeTwice(t *testing.T) {
	const frames, p = 4000, 0.2
	b := stand(t, [2]link.Shape{{Delay: time.Millisecond, Duplicate: link.Chance{Probability: p}}, {}})
	came := b.listen(t, 1, time.Second)
	b.flood(t, 0, frames, 60)
	c := b.settled(t, 0)
	times := make([]int, frames+1)
	twice := 0
	for _, a := range came() {
		times[a.number]++
	}
	for n := 1; n <= frames; n++ {
		switch times[n] {
		case 1:
		case 2:
			twice++
		default:
			t.Fatalf("frame %d came %d times", n, times[n])
		}
	}
	if off := math.Abs(float64(twice) - p*frames); off > 6*math.Sqrt(frames*p*(1-p)) {
		t.Errorf("%d frames came twice, want about %g", twice, p*frames)
	}
	want := link.Counters{Received: frames, Delivered: uint64(frames + twice), Duplicated: uint64(twice)}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func TestCorruptTurnsOneBit(t *testing.T) {
	const frames, p = 3000, 0.1
	b := stand(t, [2]link.Shape{{Corrupt: link.Chance{Probability: p}}, {}})
	came := b.listen(t, 1, time.Second)
	b.flood(t, 0, frames, 100)
	b.settled(t, 0)
	damaged := 0
	at := map[int]bool{}
	for i, a := range came() {
		good := slices.Clone(a.frame)
		clear(good)
		copy(good, b.spec.Ends[1].MAC)
		copy(good[6:], b.spec.Ends[0].MAC)
		binary.BigEndian.PutUint16(good[12:], testEtherType)
		binary.BigEndian.PutUint32(good[14:], uint32(i+1)) // in order, and none is lost
		turned := 0
		for j := range good {
			if n := bits.OnesCount8(good[j] ^ a.frame[j]); n > 0 {
				turned += n
				at[j] = true
			}
		}
		if turned > 1 {
			t.Fatalf("frame %d has %d wrong bits", i+1, turned)
		}
		damaged += turned
	}
	if off := math.Abs(float64(damaged) - p*frames); off > 6*math.Sqrt(frames*p*(1-p)) {
		t.Errorf("%d frames are damaged, want about %g", damaged, p*frames)
	}
	if len(at) < 80 {
		t.Errorf("damage was seen at %d of 100 bytes alone", len(at))
	}
}

// The receiver's TCP sees damage, wherever it is, and its data is whole.
func TestCorruptIsSeenByTCP(t *testing.T) {
	b := stand(t, [2]link.Shape{{Delay: time.Millisecond}, {Delay: time.Millisecond}})
	// By a change, so that the ports learn of it while they stand.
	if err := b.link.Change(0, link.Direction{Shape: link.Shape{Delay: time.Millisecond, Corrupt: link.Chance{Probability: 0.03}}}); err != nil {
		t.Fatal(err)
	}
	before := b.snmp(t, "Tcp", "InCsumErrors")
	const size = 2 << 20
	b.bulk(t, "10.0.0.2:0", size, func() {})
	errs := b.snmp(t, "Tcp", "InCsumErrors") - before
	// Of 1448 segments 43 are damaged, of which 1448/1514 in TCP's share, data for nearly all.
	if errs < 15 {
		t.Errorf("TCP saw %d wrong checksums in %d bytes", errs, size)
	}
}

func TestReorderOvertakes(t *testing.T) {
	const frames, p, gap = 2000, 0.5, 4
	b := stand(t, [2]link.Shape{{Delay: 2 * time.Second, Reorder: link.Reorder{Chance: link.Chance{Probability: p}, Gap: gap}}, {}})
	came := b.listen(t, 1, 4*time.Second)
	b.flood(t, 0, frames, 60)
	c := b.settled(t, 0)
	// Those that overtake come first, in order, and then the others.
	all := came()
	first := 1
	for first < len(all) && all[first].number > all[first-1].number {
		first++
	}
	if int(c.Reordered) != first || len(all) != frames {
		t.Errorf("%d of %d frames came first: %+v", first, len(all), c)
	}
	for i := range first - 1 {
		if all[i+1].number-all[i].number < gap {
			t.Fatalf("%d and %d overtook, the gap is %d", all[i].number, all[i+1].number, gap)
		}
	}
	for i := first + 1; i < len(all); i++ {
		if all[i].number < all[i-1].number {
			t.Fatalf("%d came before %d", all[i-1].number, all[i].number)
		}
	}
	// From the gap-th on each has the chance p: one in gap-1+1/p overtakes.
	want := frames / (gap - 1 + 1/p)
	if math.Abs(float64(first)-want) > 6*math.Sqrt(want) {
		t.Errorf("%d overtook, want about %.0f", first, want)
	}
}

func TestJitterSpreadsAndKeepsOrder(t *testing.T) {
	const frames = 600
	const delay, amount = time.Second, 100 * time.Millisecond
	quantiles := []float64{-2, -2, 2, 2} // a third early, a third late
	for name, test := range map[string]struct {
		jitter link.Jitter
		mean   float64 // in amounts
		sigma  float64
	}{
		"uniform":      {link.Jitter{Distribution: link.Uniform}, 0, 1 / math.Sqrt(3)},
		"normal":       {link.Jitter{Distribution: link.Normal}, 0, 1},
		"pareto":       {link.Jitter{Distribution: link.Pareto}, 0, 1},
		"paretonormal": {link.Jitter{Distribution: link.ParetoNormal}, 0, 1},
		"table":        {link.Jitter{Distribution: link.Table, Quantiles: quantiles}, 0, 2 * math.Sqrt(7./9)},
	} {
		for _, reorder := range []bool{true, false} {
			how := "/order"
			if reorder {
				how = "/reorder"
			} else if name != "normal" {
				continue // one is enough
			}
			t.Run(name+how, func(t *testing.T) {
				test.jitter.Amount, test.jitter.Reorder = amount, reorder
				var mean, sigma float64
				for range 3 {
					b := stand(t, [2]link.Shape{{Delay: delay, Jitter: test.jitter}, {}})
					came := b.listen(t, 1, 2*time.Second)
					b.flood(t, 0, frames, 60)
					all := came()
					if len(all) != frames {
						t.Fatalf("%d of %d frames came", len(all), frames)
					}
					inOrder := slices.IsSortedFunc(all, func(a, b arrival) int { return int(a.number) - int(b.number) })
					if inOrder == reorder {
						t.Errorf("in order %v, asked reorder %v", inOrder, reorder)
					}
					if !reorder {
						return // each waits behind the latest
					}
					var sum, squares float64
					for _, a := range all {
						off := (a.after - delay).Seconds() / amount.Seconds()
						sum += off
						squares += off * off
					}
					mean = sum / frames
					sigma = math.Sqrt(squares/frames - mean*mean)
					if mean < test.mean+0.5 {
						break
					}
					t.Logf("this host stood still: all frames came %.0f ms late", mean*amount.Seconds()*1e3)
				}
				// The flood and a busy host come on top of the mean, never of the spread.
				if sigma < 0.8*test.sigma || sigma > 1.25*test.sigma {
					t.Errorf("delays spread by %.2f jitters, want %.2f", sigma, test.sigma)
				}
				if mean < test.mean-6*test.sigma/math.Sqrt(frames) {
					t.Errorf("delays are %.2f jitters off their mean", mean)
				}
				t.Logf("mean %+.3f, spread %.3f, want %+.3f and %.3f", mean, sigma, test.mean, test.sigma)
			})
		}
	}
}

func TestDownLosesWhatComesAndNotWhatIsUnderWay(t *testing.T) {
	up := link.Shape{Delay: time.Second, Loss: link.RandomLoss(0)}
	down := up
	down.Down = true
	b := stand(t, [2]link.Shape{up, {}})
	b.flood(t, 0, 50, 60)
	if err := b.link.Change(0, link.Direction{Shape: down}); err != nil {
		t.Fatal(err)
	}
	b.flood(t, 0, 70, 60)
	if err := b.link.Change(0, link.Direction{Shape: up}); err != nil {
		t.Fatal(err)
	}
	b.flood(t, 0, 30, 60)
	want := link.Counters{Received: 150, Delivered: 80, Lost: 70}
	if diff := cmp.Diff(want, b.settled(t, 0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An overhead slows down, and a host that is busy does so more: the least is what the test is about.
func TestOverheadCostsItsTime(t *testing.T) {
	const frames, length, rate = 60, 100, 80e3
	for name, overhead := range map[string]link.Overhead{
		"100 bytes": {Bytes: 100},
		"least":     {MinBytes: 200},
		"ATM":       {Bytes: 8, ATM: true},
	} {
		t.Run(name, func(t *testing.T) {
			shape := link.Shape{Rate: rate, Overhead: overhead, Queue: link.Queue{Packets: 100}}
			b := stand(t, [2]link.Shape{shape, {}})
			came := b.listen(t, 1, time.Second)
			b.flood(t, 0, frames, length)
			all := came()
			if len(all) != frames {
				t.Fatalf("%d of %d frames came", len(all), frames)
			}
			// The bucket, which was full, holds a frame and 1 ms.
			saved := float64(overhead.Cost(testFrame))*8/rate + 0.001
			want := float64(frames*overhead.Cost(length))*8/rate - saved
			took := all[frames-1].after.Seconds()
			if took < want || took > 1.1*want+0.1 {
				t.Errorf("%d frames took %.3f s, want %.3f s", frames, took, want)
			}
		})
	}
}

// An idle bottleneck lets its burst through at once, and one frame.
func TestBurstPassesAtOnce(t *testing.T) {
	const length = 1514
	b := stand(t, [2]link.Shape{{Rate: 20e3, Burst: 10 * length, Queue: link.Queue{Packets: 20}}, {}})
	begin := time.Now()
	b.flood(t, 0, 50, length)
	c := b.counters(t)[0]
	for c.Received < 50 && time.Since(begin) < 500*time.Millisecond {
		c = b.counters(t)[0]
	}
	want := link.Counters{Received: 50, Delivered: 11, Overflow: 50 - 11 - 1 - 20, Queued: 20, QueuedSize: 20 * length}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Each packet goes by the first path that selects it, whatever is the port's side and the
// family, and all others by the direction's own shape. Lost ones tell which path that was.
func TestPathsTakeTheirPackets(t *testing.T) {
	lost := link.Shape{Down: true}
	for name, test := range map[string]struct {
		paths []link.Path
		lost  []string // of the packets below
	}{
		"port":       {[]link.Path{{Name: "a", Match: link.Match{Port: 80}, Shape: lost}}, []string{"4 udp 80", "4 udp from 80", "6 udp 80", "6 udp from 80", "4 tcp 80", "6 tcp 80"}},
		"UDP port":   {[]link.Path{{Name: "a", Match: link.Match{Port: 80, Protocol: link.UDP}, Shape: lost}}, []string{"4 udp 80", "4 udp from 80", "6 udp 80", "6 udp from 80"}},
		"TCP":        {[]link.Path{{Name: "a", Match: link.Match{Protocol: link.TCP}, Shape: lost}}, []string{"4 tcp 80", "4 tcp 81", "6 tcp 80"}},
		"IPv4":       {[]link.Path{{Name: "a", Match: match(link.AnyProtocol, "0.0.0.0/0"), Shape: lost}}, []string{"4 udp 80", "4 udp 81", "4 udp from 80", "4 tcp 80", "4 tcp 81"}},
		"IPv6":       {[]link.Path{{Name: "a", Match: match(link.AnyProtocol, "fd00::/64"), Shape: lost}}, []string{"6 udp 80", "6 udp 81", "6 udp from 80", "6 tcp 80"}},
		"nobody":     {[]link.Path{{Name: "a", Match: match(link.AnyProtocol, "10.0.0.3/32"), Shape: lost}}, nil},
		"all others": {[]link.Path{{Name: "a", Match: link.Match{Port: 80}}, {Name: "b", Match: match(link.UDP, "10.0.0.2/32"), Shape: lost}}, []string{"4 udp 81"}},
		"of a path every 1st": {
			[]link.Path{{Name: "a", Match: link.Match{Port: 81}, Shape: link.Shape{Loss: link.Loss{Every: 1}}}},
			[]string{"4 udp 81", "6 udp 81", "4 tcp 81"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := standing(t, [2]link.Direction{{Shape: link.Shape{Delay: time.Millisecond}, Paths: test.paths}, {}})
			b.address(t)
			b.settled(t, 0) // IPv6 has reported its addresses
			for _, kind := range []string{"4 udp 80", "4 udp 81", "4 udp from 80", "6 udp 80", "6 udp 81", "6 udp from 80", "4 tcp 80", "4 tcp 81", "6 tcp 80"} {
				before := b.settled(t, 0).Lost
				b.send(t, kind)
				got := b.settled(t, 0).Lost - before
				if want := slices.Contains(test.lost, kind); (got > 0) != want {
					t.Errorf("%s: lost %d, want any: %v", kind, got, want)
				}
			}
		})
	}
}

// send sends one packet of a kind from end 0.
func (b bed) send(t testing.TB, kind string) {
	t.Helper()
	family, address := unix.AF_INET, unix.Sockaddr(nil)
	to := func(port int) {
		address = &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 0, 0, 2}}
		if family == unix.AF_INET6 {
			address = &unix.SockaddrInet6{Port: port, Addr: [16]byte{0xfd, 15: 2}}
		}
	}
	var version, port int
	var from bool
	protocol := unix.SOCK_DGRAM
	switch kind {
	case "4 udp 80":
		version, port = 4, 80
	case "4 udp 81":
		version, port = 4, 81
	case "4 udp from 80":
		version, port, from = 4, 7, true
	case "6 udp 80":
		version, port = 6, 80
	case "6 udp 81":
		version, port = 6, 81
	case "6 udp from 80":
		version, port, from = 6, 7, true
	case "4 tcp 80":
		version, port, protocol = 4, 80, unix.SOCK_STREAM
	case "4 tcp 81":
		version, port, protocol = 4, 81, unix.SOCK_STREAM
	case "6 tcp 80":
		version, port, protocol = 6, 80, unix.SOCK_STREAM
	}
	if version == 6 {
		family = unix.AF_INET6
	}
	to(port)
	err := b.spec.Ends[0].Node.Do(func() error {
		sock, err := unix.Socket(family, protocol|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(sock)
		if from {
			local := unix.Sockaddr(&unix.SockaddrInet4{Port: 80})
			if version == 6 {
				local = &unix.SockaddrInet6{Port: 80}
			}
			if err := unix.Bind(sock, local); err != nil {
				return err
			}
		}
		if protocol == unix.SOCK_STREAM { // its SYN
			if err := unix.Connect(sock, address); !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
			return nil
		}
		return unix.Sendto(sock, []byte("here"), 0, address)
	})
	if err != nil {
		t.Fatal(err)
	}
}
