package topology

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tcplab/tcplab/agent/rtnl"
)

// furnish gives a node, whose interfaces stand, its bridge, addresses,
// neighbours, routes and settings.
func (s *Standing) furnish(ctx context.Context, i int, n *Node) (err error) {
	c, err := rtnl.Dial(s.Nodes[i])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	index := make(map[string]int, len(n.Interfaces))
	for _, iface := range n.Interfaces {
		found, err := c.ByName(iface.Name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", iface.Name, err)
		}
		index[iface.Name] = found.Index
	}
	if n.isSwitch() {
		if err := n.bridge(c, index); err != nil {
			return err
		}
	}
	if err := n.address(c, index); err != nil {
		return err
	}
	if err := n.meet(c, index); err != nil {
		return err
	}
	if err := n.route(c, index); err != nil {
		return err
	}
	err = s.Nodes[i].Do(func() error {
		for _, iface := range n.Interfaces {
			if err := n.set(iface.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.awaitAddresses(ctx, c)
}

// apply makes the kernel do something for each of some things.
func apply[T any](c *rtnl.Conn, things []T, request func(T) rtnl.Message, explain func(T) string) error {
	failed, err := c.Apply(func(yield func(rtnl.Message) bool) {
		for _, thing := range things {
			if !yield(request(thing)) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", explain(things[failed]), err)
	}
	return nil
}

// address gives the node its addresses, which serve at once.
func (n *Node) address(c *rtnl.Conn, index map[string]int) error {
	type given struct {
		iface   string
		address netip.Prefix
	}
	var all []given
	for _, iface := range n.Interfaces {
		for _, a := range iface.Addresses {
			all = append(all, given{iface.Name, a})
		}
	}
	return apply(c, all,
		func(g given) rtnl.Message { return rtnl.AddAddress(index[g.iface], g.address) },
		func(g given) string { return fmt.Sprintf("give %s to interface %s", g.address, g.iface) })
}

// meet tells the node its neighbours.
func (n *Node) meet(c *rtnl.Conn, index map[string]int) error {
	return apply(c, n.Neighbours,
		func(x Neighbour) rtnl.Message { return rtnl.SetNeighbour(index[x.Interface], x.Address, x.MAC) },
		func(x Neighbour) string {
			return fmt.Sprintf("make %s a neighbour on interface %s", x.Address, x.Interface)
		})
}

// route gives the node its routes.
func (n *Node) route(c *rtnl.Conn, index map[string]int) error {
	return apply(c, n.Routes,
		func(x Route) rtnl.Message { return rtnl.AddRoute(index[x.Interface], x.Destination, x.Via) },
		func(x Route) string { return fmt.Sprintf("route %s via %s", x.Destination, x.Via) })
}

// bridge joins a switch's ports. It floods as a switch does, but every address
// of the segment is known to it beforehand.
func (n *Node) bridge(c *rtnl.Conn, index map[string]int) error {
	if err := c.Do(rtnl.AddBridge(bridgeName)); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	bridge, err := c.ByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	err = apply(c, n.Interfaces,
		func(x Interface) rtnl.Message { return rtnl.SetMaster(index[x.Name], bridge.Index) },
		func(x Interface) string { return fmt.Sprintf("join interface %s to the bridge", x.Name) })
	if err != nil {
		return err
	}
	err = apply(c, n.Stations,
		func(x Station) rtnl.Message { return rtnl.SetStation(index[x.Interface], x.MAC) },
		func(x Station) string { return fmt.Sprintf("place %s behind interface %s", x.MAC, x.Interface) })
	if err != nil {
		return err
	}
	if err := c.Do(rtnl.Up(bridge.Index)); err != nil {
		return fmt.Errorf("bring up the bridge: %w", err)
	}
	return nil
}

// addressTimeout bounds how long the kernel may take to serve a node's addresses.
const addressTimeout = 5 * time.Second

// awaitAddresses waits until the node receives what is sent to its IPv6
// addresses. Their local routes are the work of a kernel thread even without duplicate address
// detection (net/ipv6/addrconf.c, addrconf_dad_work); until it has run, packets
// that arrive are dropped as another's, and a first SYN comes again a second later.
func (n *Node) awaitAddresses(ctx context.Context, c *rtnl.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, addressTimeout)
	defer cancel()
	for _, a := range n.addresses(true) {
		for {
			local, err := c.IsLocal(a.Addr())
			if err == nil && local {
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
