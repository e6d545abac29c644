package wire

import (
	"errors"
	"slices"

	"github.com/tcplab/tcplab/agent/link"
)

// direction is one way across a link as a model in virtual time: its paths, between which a
// frame's addresses decide, and one order in which they hand over what came through. Like
// a path it knows no kernel and no clock, and is called with times that do not fall.
type direction struct {
	own     *path // of what no other selects
	others  []*path
	matches []link.Match // of others
	dues    []int64      // when each may have a frame, own first; where there are others

	copies *copies
	tally
}

// tally is what a direction has done.
type tally struct {
	received   uint64
	lost       uint64
	overflow   uint64
	early      uint64
	marked     uint64
	duplicated uint64
	corrupted  uint64
	reordered  uint64
	peak       int // most frames that waited in front of one bottleneck
}

// newDirection makes a direction with nothing on its way. What is asked is valid
// and its queues are resolved; frames have room for so many bytes, and discard takes back those that do not
// arrive.
func newDirection(asked link.Direction, room int, discard func(*frame)) *direction {
	d := &direction{copies: &copies{room: room, discard: discard}}
	d.own = newPath(prepare("", asked.Shape, nil), asked.Seed, asked.Trace, &d.tally, d.copies)
	for _, p := range asked.Paths {
		d.others = append(d.others, newPath(prepare(p.Name, p.Shape, nil), asked.Seed, nil, &d.tally, d.copies))
		d.matches = append(d.matches, p.Match)
	}
	d.dues = make([]int64, 1+len(d.others))
	d.restart(0)
	return d
}

// restart makes the direction as it was when new: nothing on its way, nothing
// counted, and random generators, numbers of frames and the trace at their beginnings.
func (d *direction) restart(now int64) {
	d.own.restart(now)
	for _, p := range d.others {
		p.restart(now)
	}
	d.tally = tally{}
	d.lookAhead()
}

// offer takes a frame that arrived at the given time.
func (d *direction) offer(arrival int64, f *frame) {
	d.received++
	if len(d.others) == 0 {
		d.own.offer(arrival, f)
	} else {
		d.part(arrival, f)
	}
}

// part offers a frame to the path that it goes by.
func (d *direction) part(arrival int64, f *frame) {
	i := d.classify(f)
	p := d.path(i)
	p.offer(arrival, f)
	d.dues[i] = dueOf(p)
}

// path is own for 0, and then the others.
func (d *direction) path(i int) *path {
	if i == 0 {
		return d.own
	}
	return d.others[i-1]
}

// classify is the number of the path that a frame goes by.
func (d *direction) classify(f *frame) int {
	k := keyOf(f.ethernet())
	for i, m := range d.matches {
		if k.selects(m) {
			return i + 1
		}
	}
	return 0
}

// dueOf is when a path may have a frame, or notDue.
func dueOf(p *path) int64 {
	if due, some := p.due(); some {
		return due
	}
	return notDue
}

// lookAhead asks all paths when they may have a frame.
func (d *direction) lookAhead() {
	if len(d.others) > 0 {
		for i := range d.dues {
			d.dues[i] = dueOf(d.path(i))
		}
	}
}

// next is the next frame that has come through by now, with the time at which it
// did in leaves; or nil. The frame is the caller's, who releases it.
func (d *direction) next(now int64) *frame {
	if len(d.others) == 0 {
		return d.own.next(now)
	}
	return d.merge(now)
}

// merge is the next frame of all paths in the order of their departures.
func (d *direction) merge(now int64) *frame {
	for {
		first := 0
		for i, due := range d.dues {
			if due < d.dues[first] {
				first = i
			}
		}
		due := d.dues[first]
		if due > now {
			break
		}
		// No further than that: another path may be next.
		f := d.path(first).next(due)
		d.dues[first] = dueOf(d.path(first))
		if f != nil {
			return f
		}
	}
	// None: but what has left the delay waits.
	for i := range d.dues {
		d.path(i).next(now)
	}
	return nil
}

// due is when next may have a frame; false: with nothing on its way, never.
func (d *direction) due() (int64, bool) {
	if len(d.others) == 0 {
		return d.own.due()
	}
	due := slices.Min(d.dues)
	return due, due < notDue
}

// takes takes back a frame that next gave, if it is the direction's own; false: the caller has to
// give it back to its store.
func (d *direction) takes(f *frame) bool { return d.copies.takes(f) }

// prepared are the settings of all paths, own first.
type prepared []settings

// prepare works out a change of the shapes. It must not be called while the direction runs
// on another thread, but for the reading of its parts that no frame changes.
func (d *direction) prepare(to link.Direction) (prepared, error) {
	if !sameTrace(d.own.trace.trace, to.Trace) {
		return nil, errors.New("a trace cannot be changed while the link stands: make it anew")
	}
	if len(to.Paths) != len(d.others) {
		return nil, errors.New("paths cannot come or go while the link stands: make it anew, or change their shapes")
	}
	all := prepared{prepare("", to.Shape, &d.own.jitter)}
	for i, p := range d.others {
		if to.Paths[i].Name != p.name || to.Paths[i].Match != d.matches[i] {
			return nil, errors.New("paths keep their names, matches and order while the link stands: make it anew, or change their shapes")
		}
		all = append(all, prepare(p.name, to.Paths[i].Shape, &p.jitter))
	}
	return all, nil
}

func sameTrace(a, b *link.Trace) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.BytesOrDefault() == b.BytesOrDefault() && a.Once == b.Once && slices.Equal(a.Opportunities, b.Opportunities)
}

// change replaces the shapes from now on. The caller has taken all that next has by now. What is
// on its way stays, and in order.
func (d *direction) change(now int64, to prepared) {
	for i, s := range to {
		d.path(i).change(now, s)
	}
	d.lookAhead()
}

// readBack is what the paths do now.
func (d *direction) readBack() link.Direction {
	read := link.Direction{Shape: d.own.shape(), Trace: d.own.trace.trace}
	for i, p := range d.others {
		read.Paths = append(read.Paths, link.Path{Name: p.name, Match: d.matches[i], Shape: p.shape()})
	}
	return read
}

// queued is how many frames wait in front of bottlenecks, and their bytes.
func (d *direction) queued() (frames, bytes int) {
	for i := range d.dues {
		waiting := &d.path(i).waiting
		frames, bytes = frames+waiting.frames, bytes+waiting.bytes
	}
	return frames, bytes
}

// underWay is how many frames the direction holds.
func (d *direction) underWay() int {
	n := 0
	for i := range d.dues {
		n += d.path(i).underWay()
	}
	return n
}
