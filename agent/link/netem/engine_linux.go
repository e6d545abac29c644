// Package netem is the link engine of the kernel. Both ends of a link are veths
// into one fabric namespace that the engine owns; there, tc redirects what comes
// in on one port to the other port's egress, and the qdiscs of that egress shape
// it: netem (loss, copies, damage, delay) over tbf (rate) over the queue (pfifo, bfifo,
// pfifo_head_drop, red, codel, fq_codel, pie or cake). A direction with paths has one such tree for each under a prio,
// whose flower filters select them; a shape that loses packets by their number has an eBPF program over its tree.
//
// All shaping of a lab stands in that one place, off the senders' own stacks.
// When the process ends in any way the kernel removes the namespace, and all of
// it with it.
//
// The package refuses kernels that lack a part that a link needs, and says how to
// come by it; and shapes that the kernel would turn into others:
//   - a trace, which no qdisc follows;
//   - reorder at a bottleneck, for netem lets a frame that overtakes pass it;
//   - jitter with correlation, which netem takes and has no memory for;
//   - duplicate beside loss, which would take one of two copies, and beside paths, which the kernel refuses;
//   - an overhead below 0;
//   - a queue by bytes or time of head-drop, codel, fq_codel and pie, which count frames, and any limit of
//     cake, which counts memory;
//   - a change, or a schedule, for which a queue with what is in it would have to go.
//
// A frame that meets an idle bottleneck leaves it at once and not
// after its serialization, since tbf has no other way; behind a busy one each
// frame takes its time. A change of the rate fills tbf's bucket. Fragments have no ports, the first ones neither. Before
// kernel 6.6 netem's random generator cannot be seeded.
package netem

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tcplab/tcplab/agent/link"
)

// Engine makes links in a fabric namespace of its own. The zero value is ready. It
// is safe for concurrent use.
type Engine struct {
	probes sync.Mutex
	lacks  map[feature]error // what the probes found

	mu     sync.Mutex
	fabric *fabric // made with the first link
	serial int     // links made so far, for the names of ports
}

var _ link.Engine = (*Engine)(nil)

// New makes an engine. Nothing is set up before the first link.
func New() *Engine { return &Engine{} }

// Name is "netem".
func (*Engine) Name() string { return "netem" }

// Check says why this kernel cannot make the link. Of the kernel only what the link needs is tried, once, in
// a namespace that ends with the trial.
func (e *Engine) Check(spec link.Spec) error {
	needs := []feature{basics}
	for i, direction := range spec.Directions {
		err := direction.Validate()
		if err == nil && spec.Ends[i].Plain && corrupts(direction) {
			err = errPlain
		}
		var trees []tree
		if err == nil {
			trees, err = plans(direction, frame(spec))
		}
		if err != nil {
			return fmt.Errorf("link %s, direction %d: %w", spec.Name, i, err)
		}
		if len(direction.Paths) > 0 {
			needs = append(needs, selecting)
		}
		for _, t := range trees {
			if counts(t.counted) {
				needs = append(needs, counting)
			}
			needs = append(needs, feature(t.queue.kind()))
		}
	}
	e.probes.Lock()
	defer e.probes.Unlock()
	for _, need := range needs {
		lacks, known := e.lacks[need]
		if !known {
			lacks = probe(need)
			if e.lacks == nil {
				e.lacks = make(map[feature]error)
			}
			e.lacks[need] = lacks
		}
		if lacks != nil {
			return lacks
		}
	}
	return nil
}

// frame is the longest frame of the link, in bytes.
func frame(spec link.Spec) int {
	return max(spec.Ends[0].MTU, spec.Ends[1].MTU) + link.FrameOverhead
}

// Create makes a link.
func (e *Engine) Create(ctx context.Context, spec link.Spec) (link.Link, error) {
	if err := e.Check(spec); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	if e.fabric == nil {
		fabric, err := newFabric()
		if err != nil {
			return nil, err
		}
		e.fabric = fabric
	}
	e.serial++
	wire, err := e.fabric.connect(spec, e.serial)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	return wire, nil
}

// Close lets go of the fabric, and of links that still stand with it.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fabric == nil {
		return nil
	}
	fabric := e.fabric
	e.fabric = nil
	if err := fabric.close(); err != nil {
		return fmt.Errorf("close the fabric: %w", err)
	}
	return nil
}

// errClosed is what a link says after Close.
var errClosed = errors.New("the link is closed")
