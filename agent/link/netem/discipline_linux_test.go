package netem

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
)

// snmp reads a counter of the receiver.
func (b bed) snmp(t testing.TB, group, name string) int {
	t.Helper()
	value := -1
	err := b.spec.Ends[1].Node.Do(func() error {
		data, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var header []string
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) == 0 || fields[0] != group+":" {
				continue
			}
			if header == nil {
				header = fields
				continue
			}
			_, err := fmt.Sscan(fields[slices.Index(header, name)], &value)
			return err
		}
		return fmt.Errorf("no counter %s %s", group, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// What one flow does to each discipline: it fills those that only have a limit, and those that act
// early keep it short, by drops or by marks.
func TestOneFlowMeetsTheDiscipline(t *testing.T) {
	const limit, rate, delay, size = 200, 10e6, 5 * time.Millisecond, 4 << 20
	for _, test := range []struct {
		queue link.Queue
		full  bool // up to its limit
		early bool
	}{
		{link.Queue{Packets: limit}, true, false},
		{link.Queue{Bytes: limit * 1514}, true, false},
		{link.Queue{Time: limit * 1514 * 8 * time.Second / rate}, true, false},
		{link.Queue{Packets: limit, Discipline: link.HeadDrop}, true, false},
		// Thresholds so high that red acts as the fifo that it stands on.
		{link.Queue{Packets: limit, Discipline: link.RED, RED: link.REDThresholds{MinBytes: 1e6, MaxBytes: 2e6}}, true, false},
		{link.Queue{Bytes: limit * 1514, Discipline: link.RED, RED: link.REDThresholds{MinBytes: 1e6, MaxBytes: 2e6}}, true, false},
		{link.Queue{Packets: limit, Discipline: link.RED}, false, true},
		{link.Queue{Packets: limit, Discipline: link.RED, ECN: true}, false, true},
		{link.Queue{Packets: limit, Discipline: link.CoDel}, false, true},
		{link.Queue{Packets: limit, Discipline: link.CoDel, ECN: true}, false, true},
		{link.Queue{Packets: limit, Discipline: link.FQCoDel}, false, true},
		{link.Queue{Packets: limit, Discipline: link.FQCoDel, ECN: true}, false, true},
		{link.Queue{Packets: limit, Discipline: link.PIE}, false, true},
		{link.Queue{Packets: limit, Discipline: link.PIE, ECN: true}, false, true},
		{link.Queue{Discipline: link.CAKE}, false, true}, // always with marks
	} {
		name := test.queue.Discipline.String()
		switch {
		case test.queue.ECN:
			name += ", ECN"
		case test.queue.Bytes > 0:
			name += ", bytes"
		case test.queue.Time > 0:
			name += ", time"
		case test.full && test.queue.Discipline == link.RED:
			name += ", high"
		}
		t.Run(name, func(t *testing.T) {
			if module := test.queue.Discipline; module != link.FIFO && module != link.HeadDrop {
				need.Qdisc(t, string(module))
			}
			b := stand(t, [2]link.Shape{{Rate: rate, Delay: delay, Queue: test.queue}, {Delay: delay}})
			marks := test.queue.ECN || test.queue.Discipline == link.CAKE
			for _, end := range b.spec.Ends {
				err := end.Node.Do(func() error {
					return os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte(map[bool]string{true: "1", false: "0"}[marks]), 0o644)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			var queued []int
			looks := 0
			_, took := b.bulk(t, "10.0.0.2:0", size, func() {
				// To look costs the guest some ms, which the flow should have.
				if looks++; looks%10 == 0 {
					queued = append(queued, b.counters(t)[0].Queued)
				}
			})
			c := b.settled(t, 0)
			slices.Sort(queued)
			median, peak := queued[len(queued)/2], queued[len(queued)-1]
			t.Logf("queue %d at the median, %d at most; %.2f Mbit/s; %+v", median, peak, 8*size/took.Seconds()/1e6, c)
			if most := int(limit * 1.1); test.queue.Packets > 0 && peak > limit || peak > most && test.queue.Discipline != link.CAKE {
				t.Errorf("%d frames waited in a queue of %d", peak, limit) // of bytes a few more, where they are short
			}
			if test.full && (peak < limit*95/100 || c.Overflow == 0) {
				t.Errorf("the queue held %d frames at most, want its limit of %d and an overflow", peak, limit)
			}
			if !test.early && c.Early+c.Marked > 0 {
				t.Errorf("it acted early")
			}
			if test.early {
				if median > limit/3 {
					t.Errorf("%d frames waited at the median: nothing kept the queue short", median)
				}
				// From a chance of 10 % on pie drops what it would mark (RFC 8033, 5.1), and slow start
				// takes it there at once: that its ECN is on, only what is read back tells.
				if test.queue.Discipline == link.PIE && marks {
					if c.Early+c.Marked == 0 {
						t.Errorf("nothing was marked or dropped early")
					}
				} else if marks && c.Marked == 0 {
					t.Errorf("nothing was marked")
				}
				if !marks && (c.Early == 0 || c.Marked > 0) {
					t.Errorf("nothing was dropped early, or marked that should not")
				}
			}
			if c.Failed > 0 || c.Lost > 0 {
				t.Errorf("the engine lost frames")
			}
			if least := size * 8 * 1514. / 1448 / rate; took.Seconds() < 0.99*least {
				t.Errorf("%d bytes took %v, at this rate at least %.2f s", size, took, least)
			}
		})
	}
}

// Nothing that a flood does moves a limit.
func TestEachDisciplineHoldsItsLimit(t *testing.T) {
	const rate, length, frames, limit = 20e3, 1514, 60, 20 // 606 ms a frame: none leaves while the flood comes
	high := link.REDThresholds{MinBytes: 1e6, MaxBytes: 2e6}
	for name, queue := range map[string]link.Queue{
		"head-drop":  {Packets: limit, Discipline: link.HeadDrop},
		"red":        {Packets: limit, Discipline: link.RED, RED: high},
		"red, bytes": {Bytes: limit * length, Discipline: link.RED, RED: high},
		"red, time":  {Time: limit * length * 8 * time.Second / rate, Discipline: link.RED, RED: high},
		"codel":      {Packets: limit, Discipline: link.CoDel},
		"pie":        {Packets: limit, Discipline: link.PIE},
		"fq_codel":   {Packets: limit, Discipline: link.FQCoDel},
	} {
		t.Run(name, func(t *testing.T) {
			if queue.Discipline != link.HeadDrop {
				need.Qdisc(t, string(queue.Discipline))
			}
			b := stand(t, [2]link.Shape{{Rate: rate, Queue: queue}, {}})
			begin := time.Now()
			b.flood(t, 0, frames, length)
			c := b.counters(t)[0]
			for c.Delivered+c.Overflow+uint64(c.Queued)+1 < frames && time.Since(begin) < 500*time.Millisecond {
				c = b.counters(t)[0]
			}
			if time.Since(begin) > 500*time.Millisecond {
				t.Fatalf("this host took %v for %d frames: the queue has moved meanwhile", time.Since(begin), frames)
			}
			want := link.Counters{Received: frames, Delivered: 1, Overflow: frames - 2 - limit, Queued: limit}
			if queue.Discipline == link.FQCoDel { // when it is full it drops half of the flow
				if c.Queued < limit/2-1 || c.Queued > limit || c.Overflow < frames-2-limit {
					t.Errorf("%+v", c)
				}
				want.Queued, want.Overflow = c.Queued, uint64(frames-2-c.Queued)
			}
			want.QueuedSize = want.Queued * length
			if diff := cmp.Diff(want, c); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A full head-drop queue keeps the last to come, a fifo the first.
func TestHeadDropKeepsTheLatest(t *testing.T) {
	const limit, frames = 10, 60
	for _, discipline := range []link.Discipline{link.FIFO, link.HeadDrop} {
		t.Run(discipline.String(), func(t *testing.T) {
			b := stand(t, [2]link.Shape{{Rate: 200e3, Queue: link.Queue{Packets: limit, Discipline: discipline}}, {}})
			came := b.listen(t, 1, time.Second)
			b.flood(t, 0, frames, 1514)
			all := came()
			if len(all) < limit || len(all) > frames/2 {
				t.Fatalf("%d frames came", len(all))
			}
			last := all[len(all)-1].number
			if got := last == frames; got != (discipline == link.HeadDrop) {
				t.Errorf("the last of %d that came is %d", frames, last)
			}
		})
	}
}
