// Package netem is the link engine of the kernel. Both ends of a link are veths
// into one fabric namespace that the engine owns; there, tc redirects what comes
// in on one port to the other port's egress, and the qdiscs of that egress shape
// it: netem (loss and delay) over tbf (rate) over a fifo (the queue).
//
// All shaping of a lab stands in that one place, off the senders' own stacks.
// When the process ends in any way the kernel removes the namespace, and all of
// it with it.
//
// The package refuses kernels that lack one of these parts, and says how to
// come by it. A frame that meets an idle bottleneck leaves it at once and not
// after its serialization, since tbf has no other way; behind a busy one each
// frame takes its time. Before kernel 6.6 netem's random generator cannot be
// seeded.
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
	probe sync.Once
	lacks error // what probe found

	mu     sync.Mutex
	fabric *fabric // made with the first link
	serial int     // links made so far, for the names of ports
}

var _ link.Engine = (*Engine)(nil)

// New makes an engine. Nothing is set up before the first link.
func New() *Engine { return &Engine{} }

// Name is "netem".
func (*Engine) Name() string { return "netem" }

// Check says why this kernel cannot make the link. The kernel is tried once, in
// a namespace that ends with the trial.
func (e *Engine) Check(spec link.Spec) error {
	for i, direction := range spec.Directions {
		err := direction.Validate()
		if err == nil && (len(direction.Paths) > 0 || direction.Trace != nil || len(direction.Schedule.Steps) > 0) {
			err = errors.New("the netem engine carries one shape in each direction")
		}
		if err == nil {
			_, err = plan(direction.Shape, direction.Seed, frame(spec))
		}
		if err != nil {
			return fmt.Errorf("link %s, direction %d: %w", spec.Name, i, err)
		}
	}
	e.probe.Do(func() { e.lacks = probe() })
	return e.lacks
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
