package netem

import (
	"github.com/tcplab/tcplab/agent/link"
)

// Handles of qdiscs: the major number is the upper half. Each branch has sixteen of them.
const (
	handleRoot = 0xffffffff // TC_H_ROOT
	handlePrio = 1 << 16    // the prio over several branches

	onlyClass = 1 // netem, tbf and red have one class, minor number 1
)

// branch is a tree in its place: a direction's own, or that of one of its paths.
type branch struct {
	name    string
	match   link.Match // of a path
	device  int
	parent  uint32
	number  uint32
	counter *counter // nil: no frame is lost by its number

	kind   string      // of the leaf, which stays
	jitter link.Jitter // whose table netem was told last; uniform: none yet
}

// handle is one of the branch's: a qdisc of another kind must have another.
func (b *branch) handle(role uint32) uint32 { return ((b.number+1)<<4 | role) << 16 }

// Roles of qdiscs in a branch.
const (
	roleCount = iota
	roleDelay
	roleRate
	roleLeaf // and behind it one for each kind of leaf
	roleFIFO = 14
)

// leafRole is the role of a leaf.
func leafRole(kind string) uint32 {
	for i, k := range []string{"pfifo", "bfifo", "pfifo_head_drop", "red", "codel", "fq_codel", "pie", "cake"} {
		if k == kind {
			return roleLeaf + uint32(i)
		}
	}
	return roleFIFO + 1
}

func (b *branch) countAt() position { return position{b.device, b.parent, b.handle(roleCount)} }

func (b *branch) delayAt() position {
	parent := b.parent
	if b.counter != nil {
		parent = b.handle(roleCount) | 1
	}
	return position{b.device, parent, b.handle(roleDelay)}
}

func (b *branch) rateAt() position {
	return position{b.device, b.handle(roleDelay) | onlyClass, b.handle(roleRate)}
}

func (b *branch) leafAt(kind string) position {
	return position{b.device, b.handle(roleRate) | onlyClass, b.handle(leafRole(kind))}
}

// fifoAt is where the fifo of a red hangs.
func (b *branch) fifoAt() position {
	return position{b.device, b.handle(leafRole("red")) | onlyClass, b.handle(roleFIFO)}
}

// build is what makes the tree where none is.
func (b *branch) build(t tree) []request {
	var all []request
	if b.counter != nil {
		all = append(all, replacing().to(prioQdisc{}, b.countAt()), b.counter.to(b.countAt()))
	}
	t.delay.distribution = b.tell(t.jitter)
	all = append(all,
		replacing().to(t.delay, b.delayAt()), // where prio has put a pfifo, too
		adding().to(t.rate, b.rateAt()),
		replacing().to(t.queue, b.leafAt(t.queue.kind())), // tbf came with a bfifo of its own
	)
	if red, ok := t.queue.(redQdisc); ok {
		all = append(all, replacing().to(red.fifo, b.fifoAt()))
	}
	b.kind = t.queue.kind()
	return all
}

// tell is the table that netem must be told for a jitter; nil: it has it, or needs none.
func (b *branch) tell(j link.Jitter) []int16 {
	if j.IsZero() || sameDistribution(j, b.jitter) {
		return nil
	}
	b.jitter = j
	return table(j)
}

func sameDistribution(a, b link.Jitter) bool {
	a = link.Jitter{Distribution: a.Distribution, Quantiles: a.Quantiles}
	b = link.Jitter{Distribution: b.Distribution, Quantiles: b.Quantiles}
	return link.Shape{Jitter: a}.Equal(link.Shape{Jitter: b})
}

// change is what turns the tree that hangs into another, and what turns it back, each in order. The
// requests keep every frame. Nothing is there where nothing differs, so that
// random generators go on.
func (b *branch) change(now, to tree) (there, back []request) {
	step := func(at position, old, next qdisc) {
		there, back = append(there, changing().to(next, at)), append([]request{changing().to(old, at)}, back...)
	}
	before := b.jitter
	values := b.tell(to.jitter)
	if !to.delay.same(now.delay) || values != nil {
		old, next := now.delay, to.delay
		old.seed, old.telling = next.seed, &to.delay
		next.telling, next.distribution = &now.delay, values
		if values != nil {
			old.distribution = table(before)
		}
		step(b.delayAt(), old, next)
	}
	if !same(to.queue, now.queue) {
		step(b.leafAt(b.kind), now.queue, to.queue)
	}
	if red, ok := to.queue.(redQdisc); ok {
		if old := now.queue.(redQdisc).fifo; old != red.fifo {
			step(b.fifoAt(), old, red.fifo)
		}
	}
	if !to.rate.same(now.rate) {
		old := now.rate
		old.limit = max(1, now.queue.limits())
		step(b.rateAt(), old, to.rate)
	}
	return there, back
}

// asking are the requests that read needs answers to. From the root down: frames that a lower qdisc
// drops in between are then missing above, where they would look like frames that netem lost.
func (b *branch) asking() []request {
	leaf := b.leafAt(b.kind)
	leaf.handle = 0
	all := []request{asking(b.delayAt()), asking(b.rateAt()), asking(leaf)}
	if b.kind == "red" {
		all = append(all, asking(b.fifoAt()))
	}
	return all
}

// read is the tree as the kernel has it, from the answers, and what its qdiscs have counted.
func (b *branch) read(answers [][]byte, frame int) (t tree, c link.Counters, waiting int, err error) {
	states := make([]state, len(answers))
	for i, answer := range answers {
		if states[i], err = parseState(answer); err != nil {
			return t, c, 0, err
		}
	}
	delay, rate, queue := states[0], states[1], states[2]
	if err := t.delay.decode(delay.options); err != nil {
		return t, c, 0, err
	}
	t.jitter = b.jitter
	t.jitter.Amount, t.jitter.Reorder = t.delay.jitter, t.delay.reorders
	if err := t.rate.decode(rate.options); err != nil {
		return t, c, 0, err
	}
	least := base(t.rate.bytesPerSecond*8, frame)
	t.rate.burst = least + uint32(t.rate.beyond(least))
	if t.queue, err = decodeLeaf(queue); err != nil {
		return t, c, 0, err
	}
	if red, ok := t.queue.(redQdisc); ok {
		fifo, err := decodeLeaf(states[len(states)-1])
		if err != nil {
			return t, c, 0, err
		}
		if red.fifo, ok = fifo.(fifoQdisc); !ok {
			return t, c, 0, another(fifoQdisc{}, fifo)
		}
		red.idle = idling{frame: uint32(frame), rate: t.rate.bytesPerSecond}
		t.queue = red
	}
	// A parent counts its child's drops among its own.
	done := t.queue.counts(queue)
	c = link.Counters{
		Delivered: delay.sent,
		Lost:      delay.drops - min(delay.drops, rate.drops),
		Overflow:  done.overflow,
		Early:     done.early,
		Marked:    done.marked,
		Reordered: delay.requeues,
		Failed:    rate.drops - min(rate.drops, queue.drops),
	}
	c.Queued, c.QueuedSize = queue.queued()
	c.Received = c.Delivered + max(delay.drops, rate.drops) + uint64(delay.waiting)
	if b.counter != nil {
		if t.counted, err = b.counter.loss(); err != nil {
			return t, c, 0, err
		}
		lost, err := b.counter.lost()
		if err != nil {
			return t, c, 0, err
		}
		c.Lost += lost
		c.Received += lost
	}
	return t, c, queue.waiting, nil
}

// queued is how many frames wait in a qdisc without the one in service, which the bottleneck has taken a look at and
// which still counts; and their bytes, the one in service being as large as they are on average.
func (s *state) queued() (frames, bytes int) {
	if s.waiting < 2 {
		return 0, 0
	}
	return s.waiting - 1, s.backlog * (s.waiting - 1) / s.waiting
}
