package topology

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/internal/netns"
)

// Standing is a plan that the kernel agrees with. Close takes it away.
type Standing struct {
	Nodes []*netns.Handle // in the order of Plan.Nodes; nil for those that are Foreign
	Links []link.Link     // in the order of Plan.Links
	plan  *Plan
}

// Build makes the plan's namespaces, links, bridges, addresses, neighbours,
// routes and settings. Each link is made by the engine at its own index. On an
// error, or when ctx ends first, nothing is left.
func Build(ctx context.Context, p *Plan, engines []link.Engine) (_ *Standing, err error) {
	if len(engines) != len(p.Links) {
		return nil, fmt.Errorf("%d engines for %d links", len(engines), len(p.Links))
	}
	s := &Standing{Nodes: make([]*netns.Handle, len(p.Nodes)), plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.eachNode(ctx, s.found); err != nil {
		return nil, err
	}
	if err := s.connect(ctx, engines); err != nil {
		return nil, err
	}
	// Switches last: an address is announced to multicast routers when it is set (see port.Quiet),
	// which a switch would carry to every other node of its segment.
	for _, switches := range []bool{false, true} {
		err := s.eachNode(ctx, func(ctx context.Context, i int, n *Node) error {
			if n.isSwitch() != switches {
				return nil
			}
			return s.furnish(ctx, i, n)
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// connect makes the links, several at a time: the kernel makes interfaces under
// one lock, but a link is more than that.
func (s *Standing) connect(ctx context.Context, engines []link.Engine) error {
	s.Links = make([]link.Link, len(engines))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i, engine := range engines {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			made, err := engine.Create(ctx, s.Spec(i))
			if err != nil {
				return fmt.Errorf("link %s: %w", s.plan.Links[i].Name, err)
			}
			s.Links[i] = made
			return nil
		})
	}
	return group.Wait()
}

// Close removes the links, and then lets go of the namespaces, which the kernel removes
// with all that is left in them.
func (s *Standing) Close() error {
	// Many at a time: to remove an interface is to wait until no processor looks
	// at it any more (net/core/dev.c, netdev_run_todo), some 20 ms in which others
	// wait for the same.
	var group errgroup.Group
	group.SetLimit(closeTogether)
	closed := make([]error, len(s.Links))
	for i, l := range s.Links {
		if l != nil { // nil where Build failed
			group.Go(func() error {
				closed[i] = l.Close()
				return nil
			})
		}
	}
	_ = group.Wait() // the errors are in closed, all of them
	errs := []error{errors.Join(closed...)}
	for _, n := range s.Nodes {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// closeTogether is how many links are closed at a time; each takes a thread.
const closeTogether = 128

// Spec is the link at the index as its engine makes it, for a check before
// anything stands: its ports have no namespace.
func (p *Plan) Spec(i int) link.Spec {
	planned := p.Links[i]
	spec := link.Spec{Name: planned.Name, Directions: planned.Directions}
	for side, end := range planned.Ends {
		iface := p.at(end)
		spec.Ends[side] = link.Port{Name: iface.Name, MAC: iface.MAC, MTU: iface.MTU, Plain: planned.Offload}
	}
	return spec
}

// Spec is the link at the index as its engine made it.
func (s *Standing) Spec(i int) link.Spec {
	spec := s.plan.Spec(i)
	if s.Links != nil {
		if own, ok := s.Links[i].(interface{ Spec() link.Spec }); ok {
			return own.Spec() // of its own ports, not of the lab's
		}
	}
	for side, end := range s.plan.Links[i].Ends {
		spec.Ends[side].Node = s.Nodes[end.Node]
	}
	return spec
}

// eachNode does something for all nodes, a few at once.
func (s *Standing) eachNode(ctx context.Context, do func(ctx context.Context, i int, n *Node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i := range s.plan.Nodes {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := &s.plan.Nodes[i]
			if n.Foreign {
				return nil
			}
			if err := do(ctx, i, n); err != nil {
				return fmt.Errorf("node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// found makes the node's namespace, with the settings that its interfaces will
// inherit.
func (s *Standing) found(_ context.Context, i int, n *Node) error {
	space, err := netns.New(n.Name)
	if err != nil {
		return err
	}
	s.Nodes[i] = space
	if err := port.Prepare(space); err != nil {
		return err
	}
	return space.Do(func() error { return n.set("") })
}

// set applies the settings that are about the interface, or about none.
func (n *Node) set(iface string) error {
	for _, setting := range n.Sysctls {
		if setting.Interface == iface {
			if err := setting.apply(); err != nil {
				return err
			}
		}
	}
	return nil
}
