package observe

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Backlog is what one direction of a link holds and has done at a moment.
type Backlog struct {
	Packets  uint32 `parquet:"packets"`  // that wait for the bottleneck
	Bytes    uint64 `parquet:"bytes"`    // of these
	Received uint64 `parquet:"received"` // and on: frames since the trial began
	Overflow uint64 `parquet:"overflow"`
	Early    uint64 `parquet:"early"`
	Marked   uint64 `parquet:"marked"`
}

// QueueRow is one look as it is in Parquet.
type QueueRow struct {
	Link      string `parquet:"link,dict"`
	Direction string `parquet:"direction,dict"` // "forward" or "backward"
	Time      int64  `parquet:"time_ns,delta"`  // as in [SampleRow]
	Backlog
}

// queueRecord is a look as it is kept.
type queueRecord struct {
	link uint32
	way  uint32
	time int64 // ns since begin
	Backlog
}

// Queued names a link whose queues are looked at.
type Queued struct {
	Name string
	// Read is what both directions hold, forward first. It is called from one goroutine at a time.
	Read func() ([2]Backlog, error)
}

// Queues looks at the queues of links from Start to Stop, as often as is asked for, any number of times, and keeps
// what it saw. It belongs to one goroutine.
type Queues struct {
	links    []Queued
	begin    time.Time
	recorder *Recorder[queueRecord]
	depths   [][2]*depths

	interval time.Duration
	stop     chan struct{} // nil: not started
	running  sync.WaitGroup
	err      error // of the looks, once they have ended
	missed   uint64
}

// NewQueues keeps looks at links in the scratch file, which it closes.
func NewQueues(links []Queued, scratch Scratch) *Queues {
	q := &Queues{links: links, begin: time.Now(), recorder: NewRecorder[queueRecord](scratch)}
	for range links {
		q.depths = append(q.depths, [2]*depths{{}, {}})
	}
	return q
}

// Start begins to look.
func (q *Queues) Start(interval time.Duration) {
	q.interval = interval
	q.stop = make(chan struct{})
	q.running.Go(func() { q.err = errors.Join(q.err, q.run(interval, q.stop)) })
}

// Stop ends looking, and waits for it. A link that could not be read is its error.
func (q *Queues) Stop() error {
	if q.stop == nil {
		return nil
	}
	close(q.stop)
	q.running.Wait()
	q.stop = nil
	return q.err
}

// run looks at once and each interval.
func (q *Queues) run(interval time.Duration, stop <-chan struct{}) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := time.Now()
	for {
		for i := range q.links {
			if err := q.look(i); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		case now := <-ticker.C:
			// A ticker drops the ticks that nobody takes.
			q.missed += uint64(max(0, (now.Sub(last)+interval/2)/interval-1))
			last = now
		}
	}
}

func (q *Queues) look(i int) error {
	both, err := q.links[i].Read()
	if err != nil {
		return fmt.Errorf("look at the queues of link %s: %w", q.links[i].Name, err)
	}
	at := int64(time.Since(q.begin))
	for way, b := range both {
		q.recorder.Add(&queueRecord{link: uint32(i), way: uint32(way), time: at, Backlog: b})
		q.depths[i][way].add(b)
	}
	return nil
}

// Summary is what one direction, 0 or 1, of the link at the index held; nil where nobody looked.
func (q *Queues) Summary(link, way int) *tcplabv1.QueueSummary {
	d := q.depths[link][way]
	if d.packets.count == 0 {
		return nil
	}
	return &tcplabv1.QueueSummary{
		Count: d.packets.count, Interval: duration(q.interval), Missed: q.missed,
		Mean: d.packets.mean(), P50: d.packets.quantile(0.5), P99: d.packets.quantile(0.99), Max: d.packets.quantile(1),
		BytesMean: d.bytes.mean(), BytesP50: d.bytes.quantile(0.5), BytesP99: d.bytes.quantile(0.99), BytesMax: d.bytes.quantile(1),
	}
}

// Finish writes all that was seen to Parquet files. It is called once, unless Discard is, after Stop.
func (q *Queues) Finish(files Files) error {
	out := newChunks[QueueRow](files)
	rows := make([]QueueRow, 0, recordChunk)
	err := q.recorder.Finish(func(records []queueRecord) error {
		rows = rows[:0]
		for _, r := range records {
			rows = append(rows, QueueRow{
				Link: q.links[r.link].Name, Direction: [...]string{"forward", "backward"}[r.way],
				Time: q.begin.UnixNano() + r.time, Backlog: r.Backlog,
			})
		}
		return out.write(rows)
	})
	return out.close(err)
}

// Discard forgets what was seen.
func (q *Queues) Discard() error { return q.recorder.Discard() }

// depths are what one direction held at each look.
type depths struct{ packets, bytes tally }

func (d *depths) add(b Backlog) {
	d.packets.add(uint64(b.Packets))
	d.bytes.add(b.Bytes)
}

// tally counts how often each number was seen. Numbers are as many as a queue has depths; beyond mostNumbers
// of them they are counted with the next greater that was seen.
type tally struct {
	count uint64
	sum   float64
	seen  map[uint64]uint64
}

// mostNumbers bounds a tally's memory: some 2 MB.
const mostNumbers = 1 << 16

func (t *tally) add(n uint64) {
	t.count++
	t.sum += float64(n)
	if t.seen == nil {
		t.seen = map[uint64]uint64{}
	}
	if _, ok := t.seen[n]; !ok && len(t.seen) >= mostNumbers {
		t.coarsen()
	}
	t.seen[n]++
}

// coarsen counts each number that is not the greatest with another one: each second, in their order, with the next greater.
func (t *tally) coarsen() {
	sorted := t.sorted()
	for i := 0; i+1 < len(sorted); i += 2 {
		t.seen[sorted[i+1]] += t.seen[sorted[i]]
		delete(t.seen, sorted[i])
	}
}

func (t *tally) sorted() []uint64 {
	numbers := make([]uint64, 0, len(t.seen))
	for n := range t.seen {
		numbers = append(numbers, n)
	}
	slices.SortFunc(numbers, cmp.Compare)
	return numbers
}

func (t *tally) mean() float64 { return t.sum / float64(t.count) }

// quantile is the least number that such a share of all does not exceed (nearest rank).
func (t *tally) quantile(share float64) float64 {
	rank := uint64(math.Ceil(share * float64(t.count)))
	var below uint64
	numbers := t.sorted()
	for _, n := range numbers {
		if below += t.seen[n]; below >= rank {
			return float64(n)
		}
	}
	return 0
}
