package netem

import (
	"fmt"

	"github.com/tcplab/tcplab/agent/link"
)

// Handles of a tree's qdiscs: the major number is the upper half.
const (
	handleDelay   = 1 << 16
	handleRate    = 2 << 16
	handlePackets = 3 << 16 // of a pfifo
	handleBytes   = 4 << 16 // of a bfifo: a qdisc of another kind must have another handle

	handleRoot = 0xffffffff // TC_H_ROOT
	onlyClass  = 1          // netem and tbf have one class, minor number 1
)

// way is one direction of a link: the tree at the egress of the far port.
type way struct {
	requests *requests
	device   int
	seed     uint64
}

func (w *way) at(parent, handle uint32) position {
	return position{device: w.device, parent: parent, handle: handle}
}

func (w *way) delayAt() position { return w.at(handleRoot, handleDelay) }
func (w *way) rateAt() position  { return w.at(handleDelay|onlyClass, handleRate) }

// queueAt is where the fifo hangs, whichever it is.
func (w *way) queueAt() position { return w.at(handleRate|onlyClass, 0) }

// hang puts a fifo in the place of the one that is there, whose frames are dropped.
func (w *way) hang(q queueQdisc) error {
	at := w.queueAt()
	at.handle = handlePackets
	if q.bytes {
		at.handle = handleBytes
	}
	return w.requests.replace(at, q)
}

// build hangs the tree where none is.
func (w *way) build(t tree) error {
	if err := w.requests.add(w.delayAt(), t.delay); err != nil {
		return err
	}
	if err := w.requests.add(w.rateAt(), t.rate); err != nil {
		return err
	}
	// tbf came with a bfifo of its own.
	return w.hang(t.queue)
}

// change turns the tree that hangs into another, with every frame kept.
func (w *way) change(to tree) error {
	now, _, err := w.read()
	if err != nil {
		return err
	}
	if now.queue.bytes != to.queue.bytes && to.limited() {
		return fmt.Errorf("a queue limited by %s cannot become one limited by %s while traffic flows: "+
			"the kernel would drop what is in it; give the limit in the same unit, or make the link anew",
			unit(now.queue.bytes), unit(to.queue.bytes))
	}
	if err := w.requests.change(w.delayAt(), to.delay); err != nil {
		return err
	}
	return w.requests.change(w.rateAt(), to.rate) // sets the limit of its fifo too
}

func unit(bytes bool) string {
	if bytes {
		return "bytes"
	}
	return "frames"
}

// read is the tree as the kernel has it, and what its qdiscs have counted.
func (w *way) read() (tree, link.Counters, error) {
	var t tree
	// From the root down: frames that a lower qdisc drops in between are then
	// missing above, where they would look like frames that netem lost.
	delay, err := w.requests.get(w.delayAt())
	if err == nil {
		err = t.delay.decode(delay.options)
	}
	if err != nil {
		return tree{}, link.Counters{}, err
	}
	rate, err := w.requests.get(w.rateAt())
	if err == nil {
		err = t.rate.decode(rate.options)
	}
	if err != nil {
		return tree{}, link.Counters{}, err
	}
	queue, err := w.requests.get(w.queueAt())
	if err == nil {
		err = t.queue.decode(queue.kind, queue.options)
	}
	if err != nil {
		return tree{}, link.Counters{}, err
	}
	// A parent counts its child's drops among its own.
	c := link.Counters{
		Delivered: delay.sent,
		Lost:      delay.drops - min(delay.drops, rate.drops),
		Overflow:  queue.drops,
		Failed:    rate.drops - min(rate.drops, queue.drops),
		Queued:    max(0, queue.waiting-1), // without the frame in service
	}
	c.Received = c.Delivered + max(delay.drops, rate.drops) + uint64(delay.waiting)
	return t, c, nil
}
