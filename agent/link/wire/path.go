package wire

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// path is what happens to the frames of one shape, as a model in virtual time. It knows no
// kernel and no clock: offer tells it when a frame arrived, next asks what has
// come through by a given time. Both must be called with times that do not
// fall. All its work is a constant number of steps for each frame, or O(log n) with n of them
// in flight where frames may overtake others.
type path struct {
	settings
	seed uint64

	loss      losses
	duplicate chance
	corrupt   chance
	damage    *rand.Rand // which bit
	reorder   chance
	unstruck  int // frames in a row that reordering has not struck
	jitter    jitter

	delayed delayed     // between the sender and the bottleneck
	waiting waiting     // in front of the bottleneck; with a rate, empty unless it is sending
	sending *frame      // at the bottleneck
	clock   transmitter // when that has been sent, without a trace

	trace   opportunities // of a bottleneck with a trace
	moment  int64         // the last of them
	left    int           // bytes that it still sends
	remains int           // bytes that are still to be sent of the frame at the bottleneck

	tally  *tally // the direction's
	copies *copies
}

// settings are what a shape means to a path, worked out before it is adopted. That takes some ms
// where there is jitter or correlation, and must not be done while frames wait.
type settings struct {
	name     string
	delay    int64
	down     bool
	overhead link.Overhead
	gap      int
	simple   bool // frames are lost or delayed, and nothing else happens to them before the bottleneck

	fresh parts
}

// parts are those of a path that keep a state of their own.
type parts struct {
	shape                       link.Shape
	loss                        losses
	duplicate, corrupt, reorder chance
	jitter                      jitter
}

// prepare works out a shape. Of an old one's tables it takes those that stay.
func prepare(name string, shape link.Shape, old *jitter) settings {
	s := settings{
		name:     name,
		delay:    int64(shape.Delay),
		down:     shape.Down,
		overhead: shape.Overhead,
		gap:      shape.Reorder.Gap,
		simple: shape.Duplicate.Probability == 0 && shape.Corrupt.Probability == 0 &&
			shape.Reorder.IsZero() && shape.Jitter.IsZero(),
		fresh: parts{
			shape:     shape,
			loss:      newLosses(shape.Loss),
			duplicate: newChance(shape.Duplicate),
			corrupt:   newChance(shape.Corrupt),
			reorder:   newChance(shape.Reorder.Chance),
		},
	}
	if old != nil && old.is(shape.Jitter) {
		s.fresh.jitter = jitter{asked: old.asked, deviations: old.deviations, spread: old.spread}
	} else {
		s.fresh.jitter = newJitter(shape.Jitter)
	}
	return s
}

// newPath makes a path that has not been restarted yet.
func newPath(s settings, seed uint64, trace *link.Trace, t *tally, c *copies) *path {
	p := &path{seed: seed, trace: opportunities{trace: trace}, tally: t, copies: c}
	p.waiting.tally, p.waiting.discard = t, c.release
	p.waiting.strike = p.waiting.early
	p.adopt(s)
	return p
}

// adopt takes over what a shape says.
func (p *path) adopt(s settings) {
	p.settings = s
	p.fresh = parts{}
	p.loss.adopt(s.fresh.loss)
	p.duplicate.adopt(s.fresh.duplicate)
	p.corrupt.adopt(s.fresh.corrupt)
	p.reorder.adopt(s.fresh.reorder)
	p.jitter.adopt(s.fresh.jitter)
	p.waiting.settle(s.fresh.shape)
	p.clock.rate = s.fresh.shape.Rate
	p.clock.setBurst(s.fresh.shape.Burst)
}

// change replaces the shape from now on. The caller has taken all that next has
// by now. What is on its way stays: frames in the delay keep their time, the
// queue keeps those that wait even above a lower limit, and the frame being sent goes on at the new
// rate.
func (p *path) change(now int64, s settings) {
	p.clock.setRate(s.fresh.shape.Rate, s.fresh.shape.Burst, now)
	p.adopt(s)
}

// shape is the shape that the path's parts follow.
func (p *path) shape() link.Shape {
	return link.Shape{
		Rate:      p.clock.rate,
		Overhead:  p.overhead,
		Burst:     p.clock.burst,
		Delay:     time.Duration(p.delay),
		Jitter:    p.jitter.asked,
		Reorder:   link.Reorder{Chance: p.reorder.asked, Gap: p.gap},
		Loss:      p.loss.asked,
		Duplicate: p.duplicate.asked,
		Corrupt:   p.corrupt.asked,
		Down:      p.down,
		Queue:     p.waiting.asked,
	}
}

// restart makes the path as it was when new: nothing on its way, the random generators, the
// numbers of frames and the trace at their beginnings.
func (p *path) restart(now int64) {
	for f := p.waiting.pop(); f != nil; f = p.waiting.pop() {
		p.copies.release(f)
	}
	for f := p.delayed.pop(); f != nil; f = p.delayed.pop() {
		p.copies.release(f)
	}
	if p.sending != nil {
		p.copies.release(p.sending)
		p.sending = nil
	}
	p.delayed.restart()
	p.waiting.codel.restart()
	p.clock.restart()
	p.trace.restart(now)
	p.moment, p.left, p.remains = 0, 0, 0

	p.loss.restart(generator(p.seed, p.name, forLoss))
	p.duplicate.restart(generator(p.seed, p.name, forDuplicate))
	p.corrupt.restart(generator(p.seed, p.name, forCorrupt))
	which := generator(p.seed, p.name, forDamage)
	p.damage = rand.New(&which)
	p.reorder.restart(generator(p.seed, p.name, forReorder))
	p.unstruck = 0
	p.jitter.restart(generator(p.seed, p.name, forJitter))
}

// offer takes a frame that arrived at the given time.
func (p *path) offer(arrival int64, f *frame) {
	// A loss of its own for each frame is judged here, without a call.
	var struck bool
	if p.loss.alone {
		p.loss.number++
		struck = p.loss.uniform() < p.loss.threshold
	} else {
		struck = p.loss.strikes()
	}
	if struck || p.down {
		p.tally.lost++
		p.copies.release(f)
		return
	}
	if p.simple {
		p.delayed.follow(p.nominal(arrival), f)
		return
	}
	if p.duplicate.strikes() {
		p.tally.duplicated++
		twin := p.copies.of(f)
		p.hold(arrival, f)
		f = twin
	}
	p.hold(arrival, f)
}

// nominal is when a frame leaves the delay, but for jitter. Never earlier than the frame before:
// a delay that has fallen is no reason to overtake.
func (p *path) nominal(arrival int64) int64 {
	p.delayed.nominal = max(p.delayed.nominal, arrival+p.delay)
	return p.delayed.nominal
}

// hold corrupts a frame, if it does, and delays it.
func (p *path) hold(arrival int64, f *frame) {
	if p.corrupt.strikes() && corrupt(f, p.damage) {
		p.tally.corrupted++
	}
	if p.overtakes() {
		if p.delayed.latest > arrival {
			p.tally.reordered++
		}
		p.delayed.overtake(arrival, f)
		return
	}
	leaves := p.nominal(arrival)
	if p.jitter.asked.Amount == 0 {
		p.delayed.follow(leaves, f)
		return
	}
	leaves = max(arrival, leaves+p.jitter.next())
	if p.jitter.asked.Reorder {
		p.delayed.overtake(leaves, f)
	} else {
		p.delayed.follow(leaves, f)
	}
}

// overtakes reports whether the next frame gets no delay, as netem decides it: with a gap
// of n there are at least n-1 frames from one that is struck to the next (netem_enqueue in
// net/sched/sch_netem.c).
func (p *path) overtakes() bool {
	if p.reorder.threshold == 0 {
		return false
	}
	if p.unstruck < p.gap-1 || !p.reorder.strikes() {
		p.unstruck++
		return false
	}
	p.unstruck = 0
	return true
}

// next is the next frame that has come through by now, with the time at which it
// did in leaves; or nil. The frame is the caller's, who releases it.
func (p *path) next(now int64) *frame {
	if p.trace.trace != nil {
		return p.nextTraced(now)
	}
	if p.sending == nil {
		first := p.delayed.first()
		if first == nil || first.leaves > now {
			return nil
		}
		p.delayed.pop()
		if p.clock.rate == 0 {
			first.leaves = max(first.leaves, p.clock.at)
			return first
		}
		p.waiting.passed()
		p.clock.wait(first.leaves)
		p.send(first)
	}
	due := p.clock.end()
	// What reaches the bottleneck while it sends waits, if there is room. What
	// reaches it in the moment in which it ends finds one place more.
	if until, first := min(now, due-1), p.delayed.first(); first != nil && first.leaves <= until {
		p.admit(until)
	}
	if due > now {
		return nil
	}
	f := p.sending
	f.leaves, p.sending = due, nil
	if p.waiting.head != nil {
		if second := p.waiting.take(due); second != nil {
			p.clock.follow()
			p.send(second)
		}
	}
	return f
}

// due is when next may have a frame; false: with nothing on its way, never.
func (p *path) due() (int64, bool) {
	if p.trace.trace != nil {
		return p.dueTraced()
	}
	if p.sending != nil {
		return p.clock.end(), true
	}
	first := p.delayed.first()
	if first == nil {
		return 0, false
	}
	clock := p.clock
	clock.wait(first.leaves)
	clock.send(p.overhead.Cost(first.size))
	return clock.end(), true
}

// send begins to send a frame where the one before has ended.
func (p *path) send(f *frame) {
	p.sending = f
	p.clock.send(p.overhead.Cost(f.size))
}

// admit moves the frames that leave the delay by the given time into the
// queue.
func (p *path) admit(until int64) {
	for f := p.delayed.first(); f != nil && f.leaves <= until; f = p.delayed.first() {
		p.delayed.pop()
		p.waiting.admit(f)
	}
}

// underWay is how many frames the path holds.
func (p *path) underWay() int {
	n := p.delayed.frames() + p.waiting.frames
	if p.sending != nil {
		n++
	}
	return n
}

// notDue is later than anything.
const notDue = math.MaxInt64
