package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/netns"
)

// Standing is a plan that the kernel agrees with. Close takes it away.
type Standing struct {
	Nodes []*netns.Handle // in the order of Plan.Nodes
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
	// Links one after another: the kernel makes interfaces under one lock.
	for i := range p.Links {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		made, err := engines[i].Create(ctx, s.Spec(i))
		if err != nil {
			return nil, fmt.Errorf("link %s: %w", p.Links[i].Name, err)
		}
		s.Links = append(s.Links, made)
	}
	if err := s.eachNode(ctx, s.furnish); err != nil {
		return nil, err
	}
	return s, nil
}

// Close removes the links, and then lets go of the namespaces, which the kernel removes
// with all that is left in them.
func (s *Standing) Close() error {
	var errs []error
	for _, l := range slices.Backward(s.Links) {
		errs = append(errs, l.Close())
	}
	for _, n := range s.Nodes {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

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

// furnish gives a node, whose interfaces stand, its bridge, addresses,
// neighbours and routes.
func (s *Standing) furnish(ctx context.Context, i int, n *Node) error {
	nl, err := s.Nodes[i].Netlink(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	index := make(map[string]int, len(n.Interfaces))
	for _, iface := range n.Interfaces {
		found, err := nl.LinkByName(iface.Name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", iface.Name, err)
		}
		index[iface.Name] = found.Attrs().Index
	}
	if n.isSwitch() {
		if err := n.bridge(nl, index); err != nil {
			return err
		}
	}
	for _, iface := range n.Interfaces {
		for _, a := range iface.Addresses {
			if err := addAddress(nl, index[iface.Name], a); err != nil {
				return fmt.Errorf("give %s to interface %s: %w", a, iface.Name, err)
			}
		}
	}
	if err := n.awaitAddresses(ctx, nl); err != nil {
		return err
	}
	for _, neighbour := range n.Neighbours {
		err := nl.NeighSet(&netlink.Neigh{
			LinkIndex:    index[neighbour.Interface],
			State:        netlink.NUD_PERMANENT,
			IP:           ip(neighbour.Address),
			HardwareAddr: neighbour.MAC,
		})
		if err != nil {
			return fmt.Errorf("make %s a neighbour on interface %s: %w", neighbour.Address, neighbour.Interface, err)
		}
	}
	for _, route := range n.Routes {
		err := nl.RouteAdd(&netlink.Route{
			LinkIndex: index[route.Interface],
			Dst:       ipNet(route.Destination),
			Gw:        ip(route.Via),
		})
		if err != nil {
			return fmt.Errorf("route %s via %s: %w", route.Destination, route.Via, err)
		}
	}
	return s.Nodes[i].Do(func() error {
		for _, iface := range n.Interfaces {
			if err := n.set(iface.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// bridge joins a switch's ports. It floods as a switch does, but every address
// of the segment is known to it beforehand.
func (n *Node) bridge(nl *netlink.Handle, index map[string]int) error {
	off := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	for _, iface := range n.Interfaces {
		port := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index[iface.Name]}}
		if err := nl.LinkSetMasterByIndex(port, bridge.Index); err != nil {
			return fmt.Errorf("join interface %s to the bridge: %w", iface.Name, err)
		}
	}
	if err := nl.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bring up the bridge: %w", err)
	}
	for _, station := range n.Stations {
		err := nl.NeighSet(&netlink.Neigh{
			LinkIndex:    index[station.Interface],
			Family:       unix.AF_BRIDGE,
			State:        netlink.NUD_NOARP, // static; PERMANENT would be the bridge's own
			Flags:        netlink.NTF_MASTER,
			HardwareAddr: station.MAC,
		})
		if err != nil {
			return fmt.Errorf("place %s behind interface %s: %w", station.MAC, station.Interface, err)
		}
	}
	return nil
}

// addAddress gives an interface an address that serves at once.
func addAddress(nl *netlink.Handle, index int, a netip.Prefix) error {
	address := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return nl.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, address)
}

// addressTimeout bounds how long the kernel may take to serve an address.
const addressTimeout = 2 * time.Second

// awaitAddresses waits until the node receives what is sent to its IPv6
// addresses. Their local routes are the work of a kernel thread even without duplicate address
// detection (net/ipv6/addrconf.c, addrconf_dad_work); until it has run, packets
// that arrive are dropped as another's, and a first SYN comes again a second later.
func (n *Node) awaitAddresses(ctx context.Context, nl *netlink.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, addressTimeout)
	defer cancel()
	for _, a := range n.addresses(true) {
		for {
			routes, err := nl.RouteGet(ip(a.Addr()))
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the kernel does not serve address %s: %w", a, errors.Join(err, ctx.Err()))
			case <-time.After(100 * time.Microsecond):
			}
		}
	}
	return nil
}

// ip is the address as netlink's package takes it.
func ip(a netip.Addr) net.IP { return a.AsSlice() }

// ipNet is the prefix, host bits and all.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: ip(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
