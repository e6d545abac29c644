package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// leaf is the queue in front of a bottleneck. Its frame in service waits in
// it, whether tbf only looks at it or has had it taken out: limits count it.
type leaf interface {
	qdisc
	// queue is what the leaf was made from.
	queue(frame int) link.Queue
	// limits is its limit, in its unit.
	limits() uint32
	// counts is what it has done with frames.
	counts(state) outcome
	// become says why the leaf cannot turn into another in place.
	become(leaf) error
}

// outcome is what a leaf did with frames.
type outcome struct{ overflow, early, marked uint64 }

// beyondLimit is the outcome of a leaf that counts apart, in 32 bits, what found it full.
func beyondLimit(drops uint64, overflow, marked uint32) outcome {
	o := outcome{overflow: min(drops, uint64(overflow)), marked: uint64(marked)}
	o.early = drops - o.overflow
	return o
}

// unit is what a queue's limit counts.
type unit int

const (
	packets unit = iota // frames
	bytes
)

func (u unit) String() string {
	if u == bytes {
		return "bytes"
	}
	return "frames"
}

// limit sets a queue's from the kernel's, in which the frame in service counts too.
func (u unit) limit(queue *link.Queue, limit uint32, frame int) {
	if u == bytes {
		queue.Bytes = int(limit) - frame
	} else {
		queue.Packets = int(limit) - 1
	}
}

const (
	// idleQueue is the leaf's limit, in frames or bytes, where there is no rate: none.
	// netem hands all frames that are due to its child before it takes the first
	// one back, so that after a stall any number of them passes through the leaf.
	idleQueue = 1 << 30
	// idleRED are thresholds that no queue reaches.
	idleRED = 1 << 28
)

// newLeaf is the leaf for a queue at a rate, with a limit.
func newLeaf(queue link.Queue, rate uint64, frame int) (leaf, error) {
	inBytes := link.Shape{Rate: rate, Queue: queue}.QueueBytes()
	if queue.Packets >= math.MaxInt32 || inBytes >= math.MaxInt32-frame {
		return nil, errors.New("the queue's limit is beyond the kernel's, 2147483647")
	}
	const longest = 4 * time.Second
	target, err := inMicroseconds(queue.TargetOrDefault(), longest)
	if err != nil {
		return nil, err
	}
	interval, err := inMicroseconds(queue.IntervalOrDefault(), 15*time.Minute)
	if err != nil {
		return nil, err
	}
	fifo := fifoQdisc{limit: uint32(queue.Packets + 1)}
	if inBytes > 0 {
		fifo = fifoQdisc{unit: bytes, limit: uint32(inBytes + frame)}
	}
	if queue.Discipline == link.CAKE {
		if queue.Limited() {
			return nil, errors.New("cake counts the memory that its frames take, and neither frames nor bytes nor time: leave the queue's limit out, cake keeps the queue short by itself")
		}
		return cakeQdisc{interval: interval}, nil
	}
	if !queue.Limited() {
		return nil, errors.New("the queue has no limit: resolve its default first")
	}
	switch queue.Discipline {
	case link.FIFO:
		return fifo, nil
	case link.RED:
		limit := float64(inBytes)
		if inBytes == 0 {
			limit = float64(queue.Packets) * float64(frame)
		}
		return newRED(queue, fifo, limit, rate, frame)
	}
	if inBytes > 0 {
		return nil, fmt.Errorf("the kernel's %v counts frames, not bytes or time: give the queue's limit in packets", queue.Discipline)
	}
	switch queue.Discipline {
	case link.HeadDrop:
		fifo.head = true
		return fifo, nil
	case link.CoDel:
		return codelQdisc{limit: fifo.limit, target: target, interval: interval, ecn: queue.ECN}, nil
	case link.FQCoDel:
		if most := fqMemoryMost / fqMemoryOf(frame); queue.Packets > most {
			return nil, fmt.Errorf("fq_codel holds 2 GiB of memory at most, which is sure to be enough for %d packets: make the queue shorter", most)
		}
		return fqCoDelQdisc{limit: fifo.limit, target: target, interval: interval, ecn: queue.ECN}, nil
	case link.PIE:
		return pieQdisc{limit: fifo.limit, target: target, ecn: queue.ECN}, nil
	}
	return nil, fmt.Errorf("the netem engine knows no discipline %v", queue.Discipline)
}

// idle is a leaf that lets everything through, of the same kind as another, so that it can become that one.
func idle(of leaf) leaf {
	switch q := of.(type) {
	case fifoQdisc:
		q.limit = idleQueue
		return q
	case redQdisc:
		q.fifo.limit = idleQueue
		q.min, q.max, q.weight, q.idle.rate = idleRED, 2*idleRED, 1, unlimited/8
		return q
	case codelQdisc:
		q.limit = idleQueue
		return q
	case fqCoDelQdisc:
		q.limit = idleQueue
		return q
	case pieQdisc:
		q.limit = idleQueue
		return q
	case cakeQdisc:
		q.memory = idleQueue
		return q
	}
	return of
}

// decodeLeaf reads the leaf that the kernel tells of. Of a red it leaves the fifo below out.
func decodeLeaf(s state) (leaf, error) {
	switch s.kind {
	case "pfifo", "bfifo", "pfifo_head_drop":
		return decodeFIFO(s.kind, s.options)
	case "red":
		return decodeRED(s.kind, s.options)
	case "codel":
		return decodeCoDel(s.kind, s.options)
	case "fq_codel":
		return decodeFQCoDel(s.kind, s.options)
	case "pie":
		return decodePIE(s.kind, s.options)
	case "cake":
		return decodeCAKE(s.kind, s.options)
	}
	return nil, fmt.Errorf("a qdisc %q is where the queue should be", s.kind)
}

// another says why one leaf cannot become another.
func another(from, to leaf) error {
	if _, of := from.(fifoQdisc); of {
		if _, fifo := to.(fifoQdisc); fifo {
			return fmt.Errorf("a %s cannot become a %s while traffic flows: the kernel would drop what is in it; "+
				"give the queue's limit in the same unit and the same discipline, or make the link anew", from.kind(), to.kind())
		}
	}
	return fmt.Errorf("a queue of %s cannot become one of %s while traffic flows: the kernel would drop what is in it; keep the discipline, or make the link anew",
		from.kind(), to.kind())
}

var errHeadDrop = errors.New("the kernel's pfifo_head_drop cannot change its limit while traffic flows: keep it, or make the link anew")

// shrinks reports whether a change of the leaf makes the kernel drop what is beyond the new limit: a
// fifo keeps it, the others do not (codel_change and its like).
func shrinks(now, to leaf) bool {
	switch now.(type) {
	case codelQdisc, fqCoDelQdisc, pieQdisc:
		return to.limits() < now.limits()
	}
	return false
}

// same reports whether both leaves are told to the kernel alike; read comes from the kernel.
func same(asked, read leaf) bool {
	switch q := asked.(type) {
	case redQdisc:
		r, ok := read.(redQdisc)
		return ok && q.same(r)
	case codelQdisc:
		r, ok := read.(codelQdisc)
		return ok && q.limit == r.limit && q.ecn == r.ecn && asCoDel(q.target) == asCoDel(r.target) && asCoDel(q.interval) == asCoDel(r.interval)
	case fqCoDelQdisc:
		r, ok := read.(fqCoDelQdisc)
		return ok && q.limit == r.limit && q.ecn == r.ecn && asCoDel(q.target) == asCoDel(r.target) && asCoDel(q.interval) == asCoDel(r.interval)
	case pieQdisc:
		r, ok := read.(pieQdisc)
		return ok && q.limit == r.limit && q.ecn == r.ecn && asTicks(q.target) == asTicks(r.target)
	}
	return asked == read
}

// values32 reads options that are attributes of 32 bits.
func values32(of string, options []byte, kinds ...uint16) ([]uint32, error) {
	attrs, err := attributes(options)
	if err != nil {
		return nil, fmt.Errorf("%s's options: %w", of, err)
	}
	values := make([]uint32, len(kinds))
	for i, kind := range kinds {
		if len(attrs[kind]) < 4 {
			return nil, fmt.Errorf("%s's options lack attribute %d", of, kind)
		}
		values[i] = binary.NativeEndian.Uint32(attrs[kind])
	}
	return values, nil
}
