package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

// way is one direction of a link: the trees at the egress of the far port. With paths, a prio stands over
// them, whose filters find each frame's tree; the first one is that of all other frames.
type way struct {
	requests *requests
	device   int
	seed     uint64
	frame    int // the longest, in bytes
	branches []*branch
}

// plans are the trees of a direction, the first of them its own, each ready for what its schedule
// makes of it. The error says what cannot be built or changed to.
func plans(d link.Direction, frame int) ([]tree, error) {
	if d.Trace != nil {
		return nil, errors.New("no qdisc of the kernel sends at recorded moments: leave the trace out, or take the wire engine")
	}
	if len(d.Paths) > maxBands-1 {
		return nil, fmt.Errorf("the kernel's prio bears %d trees, which are too few for %d paths: leave some out, or take the wire engine", maxBands, len(d.Paths))
	}
	var all []tree
	for i := range 1 + len(d.Paths) {
		name, shape := "", d.Shape
		if i > 0 {
			name, shape = d.Paths[i-1].Name, d.Paths[i-1].Shape
		}
		t, err := planned(d, name, shape, frame)
		if err != nil {
			if name != "" {
				err = fmt.Errorf("path %s: %w", name, err)
			}
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// planned is the tree of one shape of a direction.
func planned(d link.Direction, name string, shape link.Shape, frame int) (tree, error) {
	var like leaf
	shapes := []link.Shape{shape}
	for _, s := range d.Schedule.Steps {
		if s.Path == name {
			shapes = append(shapes, s.Shape)
		}
	}
	// The first rate decides on the leaf.
	for _, s := range shapes {
		if s.Rate > 0 {
			t, err := plan(s, nil, d.Seed, frame)
			if err != nil {
				return tree{}, err
			}
			like = t.queue
			break
		}
	}
	first, err := plan(shape, like, d.Seed, frame)
	if err != nil {
		return tree{}, err
	}
	before := first
	for _, s := range d.Schedule.Steps {
		if s.Path != name {
			continue
		}
		next, err := plan(s.Shape, before.queue, d.Seed, frame)
		if err == nil {
			err = before.become(next)
		}
		if err != nil {
			return tree{}, fmt.Errorf("schedule at %v: %w", s.At, err)
		}
		before = next
	}
	if d.Schedule.Period > 0 {
		if err := before.become(first); err != nil {
			return tree{}, fmt.Errorf("schedule at %v, where it begins again: %w", d.Schedule.Period, err)
		}
	}
	if len(d.Paths) > 0 {
		for _, s := range shapes {
			if s.Duplicate.Probability > 0 {
				return tree{}, errors.New("netem refuses to duplicate where another netem is on the same port (check_netem_in_tree in net/sched/sch_netem.c): " +
					"leave duplicate or the paths out, or take the wire engine")
			}
		}
	}
	return first, nil
}

// build hangs the trees of a direction where none are.
func (w *way) build(d link.Direction) error {
	trees, err := plans(d, w.frame)
	if err != nil {
		return err
	}
	var all []request
	parent := func(int) uint32 { return handleRoot }
	if len(d.Paths) > 0 {
		all = append(all, adding().to(prioQdisc{bands: len(trees)}, w.prioAt()))
		parent = func(i int) uint32 { return handlePrio | uint32(i+1) }
	}
	for i, t := range trees {
		b := &branch{device: w.device, parent: parent(i), number: uint32(i)}
		if i > 0 {
			b.name, b.match = d.Paths[i-1].Name, d.Paths[i-1].Match
		}
		if counts(t.counted) {
			if b.counter, err = newCounter(t.counted); err != nil {
				return err
			}
		}
		w.branches = append(w.branches, b)
		all = append(all, b.build(t)...)
		if i > 0 {
			for _, f := range filters(b.match, b.parent) {
				all = append(all, f.to(w.prioAt(), i-1))
			}
		}
	}
	_, err = w.requests.each(all...)
	return err
}

func (w *way) prioAt() position { return position{w.device, handleRoot, handlePrio} }

// close gives up what is not the device's.
func (w *way) close() error {
	var errs []error
	for _, b := range w.branches {
		errs = append(errs, b.counter.close())
	}
	return errors.Join(errs...)
}

// reading is a way as the kernel has it.
type reading struct {
	trees    []tree
	counters []link.Counters
	waiting  []int // frames in each leaf
}

func (w *way) read() (reading, error) {
	var r reading
	var all []request
	for _, b := range w.branches {
		all = append(all, b.asking()...)
	}
	answers, err := w.requests.each(all...)
	if err != nil {
		return r, err
	}
	for _, b := range w.branches {
		n := len(b.asking())
		if slices.ContainsFunc(answers[:n], func(a []byte) bool { return a == nil }) {
			return r, errors.New("the kernel did not tell of a qdisc")
		}
		t, c, waiting, err := b.read(answers[:n], w.frame)
		if err != nil {
			return r, err
		}
		answers = answers[n:]
		r.trees, r.counters, r.waiting = append(r.trees, t), append(r.counters, c), append(r.waiting, waiting)
	}
	return r, nil
}

// backlog is what waits in the leaves, and what those have done. Nothing else is asked of the kernel.
func (w *way) backlog() (all link.Backlog, err error) {
	requests := make([]request, len(w.branches))
	for i, b := range w.branches {
		leaf := b.leafAt(b.kind)
		leaf.handle = 0
		requests[i] = asking(leaf)
	}
	answers, err := w.requests.each(requests...)
	if err != nil {
		return all, err
	}
	for _, answer := range answers {
		if answer == nil {
			return all, errors.New("the kernel did not tell of a qdisc")
		}
		queue, err := parseState(answer)
		if err != nil {
			return all, err
		}
		leaf, err := decodeLeaf(queue)
		if err != nil {
			return all, err
		}
		frames, bytes := queue.queued()
		done := leaf.counts(queue)
		all.Frames, all.Bytes = all.Frames+frames, all.Bytes+bytes
		all.Overflow, all.Early, all.Marked = all.Overflow+done.overflow, all.Early+done.early, all.Marked+done.marked
	}
	return all, nil
}

// direction is what was read, with the paths' matches as their filters have them.
func (w *way) direction(r reading) (link.Direction, error) {
	d := link.Direction{Shape: r.trees[0].shape(w.frame)}
	if len(r.trees) == 1 {
		return d, nil
	}
	selecting, err := w.filters()
	if err != nil {
		return d, err
	}
	for i, b := range w.branches[1:] {
		match, err := matchOf(selecting[b.parent])
		if err != nil {
			return d, fmt.Errorf("path %s: %w", b.name, err)
		}
		d.Paths = append(d.Paths, link.Path{Name: b.name, Match: match, Shape: r.trees[i+1].shape(w.frame)})
	}
	return d, nil
}

// filters are those of the prio, by the class that they select.
func (w *way) filters() (map[uint32][]flower, error) {
	messages, err := w.requests.list(request{
		what:    "list the filters",
		message: unix.RTM_GETTFILTER,
		header:  nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(w.device), Parent: handlePrio},
	})
	if err != nil {
		return nil, err
	}
	all := make(map[uint32][]flower)
	for _, message := range messages {
		const header = 20 // struct tcmsg
		if len(message) < header {
			return nil, fmt.Errorf("a filter of %d bytes", len(message))
		}
		attrs, err := attributes(message[header:])
		if err != nil {
			return nil, err
		}
		f, ok, err := decodeFlower(attrs[nl.TCA_OPTIONS])
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		// By preference paths are told apart, and must be in their order.
		if at, want := binary.NativeEndian.Uint32(message[16:])>>16, preference(int(f.class&0xffff)-2, f.ipv6); at != uint32(want) {
			return nil, fmt.Errorf("a filter has preference %d, set %d", at, want)
		}
		all[f.class] = append(all[f.class], f)
	}
	return all, nil
}

// change turns the trees that hang into others, with every frame kept: all of
// them, or on an error none.
func (w *way) change(d link.Direction) error {
	if err := d.Validate(); err != nil {
		return err
	}
	d.Schedule = link.Schedule{}
	if len(d.Paths) != len(w.branches)-1 {
		return fmt.Errorf("the direction has %d paths, and a change cannot make them %d: make the link anew", len(w.branches)-1, len(d.Paths))
	}
	for i, p := range d.Paths {
		if b := w.branches[i+1]; p.Name != b.name || p.Match != b.match {
			return fmt.Errorf("the direction's path %d is %s, and a change cannot alter names, matches or order: make the link anew", i+1, b.name)
		}
	}
	d.Seed = w.seed
	if _, err := plans(d, w.frame); err != nil {
		return err
	}
	now, err := w.read()
	if err != nil {
		return err
	}
	shapes := []link.Shape{d.Shape}
	for _, p := range d.Paths {
		shapes = append(shapes, p.Shape)
	}
	var next []tree
	for i, shape := range shapes {
		t, err := plan(shape, now.trees[i].queue, w.seed, w.frame)
		if err == nil {
			err = now.trees[i].become(t)
		}
		if err == nil && shrinks(now.trees[i].queue, t.queue) && now.waiting[i] > int(t.queue.limits()) {
			err = fmt.Errorf("%d frames wait in the queue, of which the kernel would drop those beyond the new limit of %d: wait until it is shorter, or keep the limit",
				now.waiting[i], t.queue.limits()-1)
		}
		if err != nil {
			return err
		}
		next = append(next, t)
	}
	return w.apply(now.trees, next)
}

// apply makes the changes, and unmakes them where one fails.
func (w *way) apply(now, next []tree) error {
	var there, back []request
	told := make([]link.Jitter, len(w.branches))
	for i, b := range w.branches {
		told[i] = b.jitter
		forth, undo := b.change(now[i], next[i])
		there, back = append(there, forth...), append(undo, back...)
	}
	answers, err := w.requests.all(there)
	if err != nil {
		return err
	}
	var undo []request
	for i, a := range answers {
		if a.err == nil {
			undo = append([]request{back[len(back)-1-i]}, undo...)
		}
		err = errors.Join(err, a.err)
	}
	if err == nil {
		return nil
	}
	for i, b := range w.branches {
		b.jitter = told[i]
	}
	if _, failed := w.requests.each(undo...); failed != nil {
		err = errors.Join(err, fmt.Errorf("undo the change: %w", failed))
	}
	return err
}

// rearm restarts the random generators and the numbers of packets.
func (w *way) rearm() error {
	now, err := w.read()
	if err != nil {
		return err
	}
	var all []request
	for i, b := range w.branches {
		t := now.trees[i]
		t.delay.seed = w.seed
		all = append(all, changing().to(t.delay, b.delayAt()))
		if b.counter != nil {
			if err := b.counter.restart(); err != nil {
				return err
			}
		}
	}
	_, err = w.requests.each(all...)
	return err
}
