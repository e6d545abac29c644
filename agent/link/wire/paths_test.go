package wire

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tcplab/tcplab/agent/link"
)

func modelOf(d link.Direction) *model {
	m := &model{store: newStore(1523)}
	m.direction = newDirection(d, 1523, m.store.release)
	return m
}

// carry lets a frame arrive whose first byte, of an address that nobody asks for, is its name.
func (m *model) carry(at int64, frame []byte, id byte) {
	buf := m.store.reserve()
	n := copy(buf, frame)
	buf[0] = id
	f := m.store.commit(n)
	f.size = n
	m.offer(at, f)
}

func udpTo(t testing.TB, port layers.UDPPort, payload int) []byte {
	ip := ipv4(layers.IPProtocolUDP, 0)
	return ethernet(t, header(layers.EthernetTypeIPv4), ip, udp(ip, 5000, port), gopacket.Payload(make([]byte, payload)))
}

func TestPathsHaveTheirOwnShapes(t *testing.T) {
	m := modelOf(link.Direction{
		Shape: link.Shape{Delay: 1000},
		Paths: []link.Path{
			{Name: "dns", Match: link.Match{Port: 53}, Shape: link.Shape{Delay: 100}},
			{Name: "slow", Match: link.Match{Protocol: link.UDP}, Shape: link.Shape{Rate: 8e9, Queue: link.Queue{Packets: 1}}},
		},
	})
	dns, bulk, other := udpTo(t, 53, 58), udpTo(t, 99, 58), tcp4(t, 0, 46) // 100 bytes each
	for i, f := range [][]byte{other, bulk, dns, bulk, bulk, dns, other} {
		m.carry(0, f, byte(i))
	}
	want := []departure{{100, 1}, {100, 2}, {100, 5}, {200, 3}, {1000, 0}, {1000, 6}}
	var got []departure
	for at, some := m.due(); some; at, some = m.due() {
		if early := m.until(at - 1); early != nil {
			t.Fatalf("due at %d, but %v came before", at, early)
		}
		got = append(got, m.until(at)...)
	}
	slices.SortStableFunc(got, func(a, b departure) int { return int(a.At-b.At)*256 + int(a.ID) - int(b.ID) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	if m.received != 7 || m.overflow != 1 || m.peak != 1 {
		t.Errorf("%+v", m.tally)
	}
}

// What comes out is in the order of its times, whatever the paths do.
func TestPathsMergeInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d := link.Direction{
		Shape: link.Shape{Queue: link.Queue{Packets: 50}}, Trace: &link.Trace{Opportunities: []time.Duration{10, 700, 1500, 1500, 4000}},
		Paths: []link.Path{
			{Name: "a", Match: link.Match{Port: 1}, Shape: link.Shape{Delay: 5000, Jitter: link.Jitter{Amount: 2000, Reorder: true}}},
			{Name: "b", Match: link.Match{Port: 2}, Shape: link.Shape{Rate: 2e9, Delay: 100, Queue: link.Queue{Packets: 20, Discipline: link.CoDel, Target: 100, Interval: 3000}}},
			{Name: "c", Match: link.Match{Port: 3}, Shape: link.Shape{Duplicate: link.Chance{Probability: 0.3}, Rate: 1e9, Burst: 500, Queue: link.Queue{Bytes: 9000}}},
		},
	}
	m := modelOf(d)
	frames := [][]byte{udpTo(t, 1, 300), udpTo(t, 2, 200), udpTo(t, 3, 100), udpTo(t, 4, 400)}
	now, last, came := int64(0), int64(0), uint64(0)
	take := func() {
		for _, d := range m.until(now) {
			if d.At < last || d.At > now {
				t.Fatalf("one came at %d after %d, by %d", d.At, last, now)
			}
			last = d.At
			came++
		}
	}
	for range 30_000 {
		now += random.Int64N(700)
		take()
		m.carry(now, frames[random.IntN(4)], 0)
		if got := came + uint64(m.underWay()) + m.lost + m.overflow + m.early; got != m.received+m.duplicated {
			t.Fatalf("%d are accounted for, of %+v", got, m.tally)
		}
	}
	now += int64(time.Second)
	take()
	if m.underWay() != 0 || m.early == 0 || m.duplicated == 0 || m.overflow == 0 {
		t.Errorf("%d under way, %+v", m.underWay(), m.tally)
	}
}

// Which frames of a path are lost does not depend on the others' traffic, nor on other impairments.
func TestPathsLoseForThemselves(t *testing.T) {
	lossy := link.Shape{Loss: link.RandomLoss(0.1)}
	run := func(d link.Direction, others int) (lost []int) {
		m := modelOf(d)
		dns, other := udpTo(t, 53, 10), tcp4(t, 0, 10)
		random := rand.New(rand.NewPCG(uint64(others), 1))
		for i := range 500 {
			for range others {
				if random.IntN(2) == 0 {
					m.carry(int64(i), other, 0)
				}
			}
			before := m.lost
			m.carry(int64(i), dns, 0)
			if m.lost > before {
				lost = append(lost, i)
			}
			m.until(int64(i))
		}
		return lost
	}
	dns := link.Path{Name: "dns", Match: link.Match{Port: 53}, Shape: lossy}
	first := link.Path{Name: "first", Match: link.Match{Port: 1}, Shape: lossy}
	alone := run(link.Direction{Paths: []link.Path{dns}, Seed: 9}, 0)
	if len(alone) < 20 {
		t.Fatalf("%d were lost", len(alone))
	}
	busy := link.Shape{Loss: link.RandomLoss(0.5), Delay: 10, Jitter: link.Jitter{Amount: 5, Distribution: link.Normal}}
	noisy := dns
	noisy.Shape.Duplicate.Probability, noisy.Shape.Corrupt.Probability = 0.3, 0.3
	for name, d := range map[string]link.Direction{
		"beside lossy traffic":   {Shape: busy, Paths: []link.Path{dns}, Seed: 9},
		"behind another path":    {Shape: busy, Paths: []link.Path{first, dns}, Seed: 9},
		"with other impairments": {Shape: busy, Paths: []link.Path{noisy}, Seed: 9},
	} {
		if diff := cmp.Diff(alone, run(d, 5)); diff != "" {
			t.Errorf("%s it loses others (-alone +got):\n%s", name, diff)
		}
	}
	if cmp.Equal(alone, run(link.Direction{Paths: []link.Path{dns}, Seed: 10}, 0)) {
		t.Error("another seed loses the same")
	}
	renamed := dns
	renamed.Name = "names"
	if cmp.Equal(alone, run(link.Direction{Paths: []link.Path{renamed}, Seed: 9}, 0)) {
		t.Error("another path loses the same")
	}
}

func TestPathsChange(t *testing.T) {
	asked := link.Direction{
		Shape: link.Shape{Delay: 10},
		Paths: []link.Path{{Name: "dns", Match: link.Match{Port: 53}, Shape: link.Shape{Delay: 1000}}},
	}
	m := modelOf(asked)
	dns := udpTo(t, 53, 10)
	m.carry(0, dns, 1)
	to := asked
	to.Paths = slices.Clone(asked.Paths)
	to.Paths[0].Shape = link.Shape{Delay: 100, Loss: link.RandomLoss(0)}
	prepared, err := m.prepare(to)
	if err != nil {
		t.Fatal(err)
	}
	m.direction.change(50, prepared)
	if diff := cmp.Diff(to, m.readBack(), cmp.Comparer(func(a, b link.Match) bool { return a == b })); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
	m.carry(60, dns, 2)
	m.carry(1000, dns, 3)
	if diff := cmp.Diff([]departure{{1000, 1}, {1000, 2}, {1100, 3}}, m.until(5000)); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	more, other, none := to, to, to
	more.Paths = append(slices.Clone(to.Paths), link.Path{Name: "more"})
	other.Paths = []link.Path{{Name: "dns", Match: link.Match{Port: 54}}}
	none.Paths = nil
	for name, refused := range map[string]link.Direction{"more": more, "another match": other, "none": none} {
		if _, err := m.prepare(refused); err == nil {
			t.Errorf("changed to %s", name)
		}
	}
}

// In steady state nothing is allocated, whatever is asked.
func TestDirectionAllocatesNothing(t *testing.T) {
	queue := link.Queue{Packets: 50, Discipline: link.CoDel, ECN: true, Target: 1000, Interval: 20_000}
	everything := link.Shape{
		Rate: 8e9, Burst: 3000, Delay: 100 * time.Microsecond, Jitter: link.Jitter{Amount: 50_000, Distribution: link.Pareto, Correlation: 0.5, Reorder: true},
		Reorder: link.Reorder{Chance: link.Chance{Probability: 0.1, Correlation: 0.25}}, Duplicate: link.Chance{Probability: 0.1}, Corrupt: link.Chance{Probability: 0.1},
		Loss: link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: 0.01, ToGood: 0.3, BadLoss: 1}}, Queue: queue,
	}
	frame := tcp4(t, 2, 1000)
	for name, d := range map[string]link.Direction{
		"plain":      {Shape: link.Shape{Delay: 100_000, Rate: 8e9, Queue: link.Queue{Packets: 100}}},
		"everything": {Shape: everything},
		"paths":      {Shape: everything, Paths: []link.Path{{Name: "tcp", Match: link.Match{Protocol: link.TCP}, Shape: everything}}},
		"trace":      {Shape: link.Shape{Queue: queue}, Trace: &link.Trace{Opportunities: []time.Duration{2000}}},
	} {
		m := modelOf(d)
		now := int64(0)
		turn := func() {
			now += 1000
			m.carry(now, frame, 0)
			for f := m.next(now); f != nil; f = m.next(now) {
				m.giveBack(f)
			}
		}
		for range 20_000 {
			turn()
		}
		if n := testing.AllocsPerRun(20_000, turn); n != 0 {
			t.Errorf("%s: %v allocations a frame", name, n)
		}
	}
}
