//go:build linux

package agent

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// readLinks reads back the links with the names, or all where none is named, with
// what they have counted.
func (d *deployment) readLinks(names []string) ([]*tcplabv1.LinkReport, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	which, err := d.linksNamed(names)
	if err != nil {
		return nil, err
	}
	var all []*tcplabv1.LinkReport
	for _, i := range which {
		reports, err := d.readLink(i)
		if err != nil {
			return nil, err
		}
		all = append(all, reports...)
	}
	return all, nil
}

// readLink is what is known of the link at the index, read back and counted.
func (d *deployment) readLink(i int) ([]*tcplabv1.LinkReport, error) {
	d.mu.Lock() // what was asked and what is in force are of one moment
	defer d.mu.Unlock()
	var reports [2][]*tcplabv1.LinkReport
	for way := range reports {
		for _, r := range d.place(d.reports, i, way) {
			reports[way] = append(reports[way], proto.CloneOf(r))
		}
	}
	if err := d.readBackLink(i, reports); err != nil {
		return nil, err
	}
	counters, err := d.standing.Links[i].Counters()
	if err != nil {
		return nil, fmt.Errorf("count the frames of link %s: %w", d.plan.Links[i].Name, err)
	}
	for way, c := range counters {
		reports[way][0].Counters = countersMessage(c)
	}
	return append(reports[0], reports[1]...), nil
}

// linksNamed are the indices of the links with the names, in the lab's order, or of all where none is
// named.
func (d *deployment) linksNamed(names []string) ([]int, error) {
	if len(names) == 0 {
		return d.allLinks(), nil
	}
	var which []int
	for _, name := range names {
		i, err := d.linkNamed(name)
		if err != nil {
			return nil, err
		}
		which = append(which, i)
	}
	slices.Sort(which)
	return slices.Compact(which), nil
}

// allLinks are the indices of all links.
func (d *deployment) allLinks() []int {
	all := make([]int, len(d.plan.Links))
	for i := range all {
		all[i] = i
	}
	return all
}

// linkNamed is the index of a link.
func (d *deployment) linkNamed(name string) (int, error) {
	i := slices.IndexFunc(d.plan.Links, func(l topology.Link) bool { return l.Name == name })
	if i < 0 {
		return i, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "deployment %s has no link %s", d.id, name)
	}
	return i, nil
}

// changeLink gives both directions of a link the shapes of the one that is sent, or changes
// neither.
func (d *deployment) changeLink(to *tcplabv1.Link) ([]*tcplabv1.LinkReport, error) {
	release, err := d.occupy("a link's change")
	if err != nil {
		return nil, err
	}
	defer release()
	i, err := d.linkNamed(to.GetName())
	if err != nil {
		return nil, err
	}
	directions, err := topology.Directions(to)
	if err != nil {
		return nil, rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "", "change link %s: %w", to.GetName(), err)
	}
	if err := d.checkChange(i, directions); err != nil {
		return nil, err
	}
	d.mu.Lock()
	scheduled := d.isPlayed(i, 0) || d.isPlayed(i, 1)
	d.mu.Unlock()
	if scheduled {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "Let the lab stand without its schedule, and change the link by hand.",
			"link %s follows the schedule of its lab", to.GetName())
	}
	before := d.plan.Links[i].Directions
	if err := d.applyChange(i, before, directions); err != nil {
		return nil, fmt.Errorf("change link %s: %w", to.GetName(), err)
	}
	d.mu.Lock()
	d.plan.Links[i].Directions = directions
	// What was measured is of another shape. Paths are the same as before.
	fresh := d.unmeasured()
	for way := range directions {
		copy(d.place(d.reports, i, way), d.place(fresh, i, way))
	}
	d.mu.Unlock()
	return d.readLink(i)
}

// checkChange refuses what the link's engine could not make of it from the start.
func (d *deployment) checkChange(i int, directions [2]link.Direction) error {
	spec := d.standing.Spec(i)
	spec.Directions = directions
	if d.choice.kinds[i] == tcplabv1.Engine_ENGINE_VETH && (!directions[0].IsZero() || !directions[1].IsZero()) {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid,
			"Build it with an engine: --engine wire or netem, or a shape in the lab, however small.",
			"link %s was built without any shape, as a plain veth pair, which shapes nothing", spec.Name)
	}
	for way, now := range d.plan.Links[i].Directions {
		if directions[way].Seed != now.Seed {
			return rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "Build the lab anew with another seed.",
				"link %s, %s: its random generator goes on, and its seed cannot be changed", spec.Name, wayWord(way))
		}
	}
	if err := d.choice.engines[i].Check(spec); err != nil {
		return unsupported(spec.Name, err)
	}
	return nil
}

// applyChange changes what differs, and sees that it is in force; else all is put back.
func (d *deployment) applyChange(i int, before, after [2]link.Direction) (err error) {
	l := d.standing.Links[i]
	var changed []int
	defer func() {
		if err == nil {
			return
		}
		for _, way := range changed {
			if back := l.Change(way, before[way]); back != nil {
				err = errors.Join(err, fmt.Errorf("put back its direction %d: %w", way, back))
			}
		}
	}()
	for way := range after {
		if reflect.DeepEqual(before[way], after[way]) {
			continue
		}
		if err := l.Change(way, after[way]); err != nil {
			return rpcerr.New(codes.FailedPrecondition, rpcerr.RequestInvalid, "", "%s: %w", wayWord(way), err)
		}
		changed = append(changed, way)
	}
	for way := range after {
		if err := d.drifted(i, way, after[way]); err != nil {
			return rpcerr.New(codes.Internal, "", "Report it.", "%s: %w", wayWord(way), err)
		}
	}
	return nil
}

// countersMessage are counters as they travel.
func countersMessage(c link.Counters) *tcplabv1.LinkCounters {
	return &tcplabv1.LinkCounters{
		Received: c.Received, Delivered: c.Delivered, Lost: c.Lost, Overflow: c.Overflow, Early: c.Early, Marked: c.Marked,
		Duplicated: c.Duplicated, Corrupted: c.Corrupted, Reordered: c.Reordered, Failed: c.Failed,
		Queued: uint32(min(c.Queued, math.MaxUint32)), PeakQueue: uint32(min(c.PeakQueue, math.MaxUint32)),
		QueuedBytes: uint64(c.QueuedSize),
	}
}
