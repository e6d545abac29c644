package wire

// delayed holds frames until they have been under way long enough. Those that leave in
// the order in which they came are in a list; those that may overtake others in a heap: a
// constant number of steps for the former, O(log n) for the latter.
type delayed struct {
	ordered list
	free    []flight // a heap of four children each
	serial  uint64   // of the next flight
	latest  int64    // when the last leaves
	nominal int64    // when the last would leave, if there were no jitter
}

// flight is a frame in the heap. What decides is here, so that frames are not
// touched before they leave.
type flight struct {
	leaves int64
	serial uint64
	frame  *frame
}

func (f flight) before(g flight) bool {
	return f.leaves < g.leaves || f.leaves == g.leaves && f.serial < g.serial
}

// frames is how many are held.
func (d *delayed) frames() int { return d.ordered.frames + len(d.free) }

// follow holds a frame until the given time, and behind those that came before: where the delay
// has fallen, frames queue up behind the slower ones.
func (d *delayed) follow(until int64, f *frame) {
	d.latest = max(d.latest, until)
	f.leaves = d.latest
	d.ordered.push(f)
}

// overtake holds a frame until the given time, whatever the others do.
func (d *delayed) overtake(until int64, f *frame) {
	d.latest = max(d.latest, until)
	f.leaves = until
	d.free = append(d.free, flight{until, d.serial, f})
	d.serial++
	// The hole rises to where the new one fits.
	fresh, i := d.free[len(d.free)-1], len(d.free)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !fresh.before(d.free[parent]) {
			break
		}
		d.free[i] = d.free[parent]
		i = parent
	}
	d.free[i] = fresh
}

// first is the frame that leaves next, or nil. Of two at the same time it is the one that may
// overtake: those that may not are behind all that came before them.
func (d *delayed) first() *frame {
	if len(d.free) > 0 && (d.ordered.head == nil || d.free[0].leaves <= d.ordered.head.leaves) {
		return d.free[0].frame
	}
	return d.ordered.head
}

// pop removes the frame that is first, or returns nil.
func (d *delayed) pop() *frame {
	if len(d.free) == 0 {
		return d.ordered.pop()
	}
	return d.popFree()
}

func (d *delayed) popFree() *frame {
	f := d.first()
	if f == d.ordered.head {
		return d.ordered.pop()
	}
	last := len(d.free) - 1
	moved := d.free[last]
	d.free[last].frame = nil
	d.free = d.free[:last]
	if last == 0 {
		return f
	}
	// The hole sinks to where the last one fits.
	i := 0
	for {
		child := 4*i + 1
		if child >= last {
			break
		}
		for other := child + 1; other < min(child+4, last); other++ {
			if d.free[other].before(d.free[child]) {
				child = other
			}
		}
		if !d.free[child].before(moved) {
			break
		}
		d.free[i] = d.free[child]
		i = child
	}
	d.free[i] = moved
	return f
}

// restart begins anew, after all frames have been taken out.
func (d *delayed) restart() {
	d.latest, d.nominal, d.serial = 0, 0, 0
}
