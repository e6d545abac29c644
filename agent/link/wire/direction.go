package wire

import (
	"math/rand/v2"

	"github.com/tcplab/tcplab/agent/link"
)

// direction is one way across a link as a model in virtual time. It knows no
// kernel and no clock: offer tells it when a frame arrived, next asks what has
// come through by a given time. Both must be called with times that do not
// fall. All its work is a constant number of steps for each frame.
type direction struct {
	shape      link.Shape
	queueBytes int // limit of waiting in bytes; 0: none
	seed       uint64
	random     *rand.Rand
	discard    func(*frame) // takes back frames that do not arrive

	delayed list        // between the sender and the bottleneck
	waiting list        // in front of the bottleneck; empty unless it is sending
	sending *frame      // at the bottleneck
	clock   transmitter // when that has been sent
	latest  int64       // when the last frame leaves the delay

	tally
}

// tally is what a direction has done.
type tally struct {
	received uint64
	lost     uint64
	overflow uint64
	peak     int // most frames that waited
}

// newDirection makes a direction with nothing on its way. The shape is valid
// and its queue resolved.
func newDirection(shape link.Shape, seed uint64, discard func(*frame)) *direction {
	d := &direction{seed: seed, discard: discard}
	d.adopt(shape)
	d.restart()
	return d
}

func (d *direction) adopt(shape link.Shape) {
	d.shape = shape
	d.queueBytes = shape.QueueBytes()
}

// restart makes the direction as it was when new: nothing on its way, nothing
// counted, the random generator at its start.
//
// The generator is PCG-DXSM of math/rand/v2 with (seed, 0). The frame received
// as number i is lost where the generator's i-th Float64 is below Loss, whatever the
// shape was before: the same seed loses the same frames, and a greater Loss
// loses those and more.
func (d *direction) restart() {
	for _, l := range []*list{&d.waiting, &d.delayed} {
		for f := l.pop(); f != nil; f = l.pop() {
			d.discard(f)
		}
	}
	if d.sending != nil {
		d.discard(d.sending)
		d.sending = nil
	}
	d.clock = transmitter{rate: d.shape.Rate}
	d.latest = 0
	d.tally = tally{}
	d.random = rand.New(rand.NewPCG(d.seed, 0))
}

// offer takes a frame that arrived at the given time.
func (d *direction) offer(arrival int64, f *frame) {
	d.received++
	if d.random.Float64() < d.shape.Loss.Probability {
		d.lost++
		d.discard(f)
		return
	}
	// Never earlier than the frame before: where the delay has fallen, frames
	// queue up behind the slower ones and none overtakes.
	d.latest = max(d.latest, arrival+int64(d.shape.Delay))
	f.leaves = d.latest
	d.delayed.push(f)
}

// next is the next frame that has come through by now, with the time at which it
// did in leaves; or nil. The frame is the caller's, who returns it to the store.
func (d *direction) next(now int64) *frame {
	if d.sending == nil {
		first := d.delayed.head
		if first == nil || first.leaves > now {
			return nil
		}
		d.delayed.pop()
		d.clock.wait(first.leaves)
		d.send(first)
	}
	due := d.clock.end()
	// What reaches the bottleneck while it sends waits, if there is room. What
	// reaches it in the moment in which it ends finds one place more.
	d.admit(min(now, due-1))
	if due > now {
		return nil
	}
	f := d.sending
	f.leaves, d.sending = due, nil
	if second := d.waiting.pop(); second != nil {
		d.send(second)
	}
	return f
}

// due is when next will have a frame; false: with nothing on its way, never.
func (d *direction) due() (int64, bool) {
	if d.sending != nil {
		return d.clock.end(), true
	}
	first := d.delayed.head
	if first == nil {
		return 0, false
	}
	clock := d.clock
	clock.wait(first.leaves)
	clock.send(first.size)
	return clock.end(), true
}

// send begins to send a frame where the one before has ended.
func (d *direction) send(f *frame) {
	d.sending = f
	d.clock.send(f.size)
}

// admit moves the frames that leave the delay by the given time into the
// queue, or drops those that find it full.
func (d *direction) admit(until int64) {
	for f := d.delayed.head; f != nil && f.leaves <= until; f = d.delayed.head {
		d.delayed.pop()
		if d.full(f) {
			d.overflow++
			d.discard(f)
			continue
		}
		d.waiting.push(f)
		d.peak = max(d.peak, d.waiting.frames)
	}
}

// full reports whether there is no room for the frame in the queue.
func (d *direction) full(f *frame) bool {
	if limit := d.shape.Queue.Packets; limit > 0 && d.waiting.frames >= limit {
		return true
	}
	return d.queueBytes > 0 && d.waiting.bytes+f.size > d.queueBytes
}

// change replaces the shape from now on. The caller has taken all that next has
// by now. What is on its way stays: frames in the delay keep their time, the
// queue keeps those that wait even above a lower limit, and the frame being sent goes on at the new
// rate.
func (d *direction) change(now int64, shape link.Shape) {
	d.clock.setRate(shape.Rate, now)
	d.adopt(shape)
}

// underWay is how many frames the direction holds.
func (d *direction) underWay() int {
	n := d.delayed.frames + d.waiting.frames
	if d.sending != nil {
		n++
	}
	return n
}
