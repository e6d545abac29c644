// Package port makes the interfaces at the ends of links, for every engine
// alike: named, addressed, quiet and exact.
//
// Quiet means that the kernel sends nothing on them by itself, for a dozen
// router solicitations and duplicate address probes would be counted as
// traffic of the lab, and would take the losses meant for it. Exact means that a
// frame is a frame: without segmentation offloads a loss, a queue's limit and a
// rate apply to what a wire would carry, not to buffers of 64 KB, and frames
// keep their order on machines with several processors.
//
// It refuses to leave an interface half made: what cannot be finished is
// removed.
package port

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/rtnl"
	"github.com/tcplab/tcplab/internal/netns"
)

// End is one interface in one namespace.
type End struct {
	NS    *netns.Handle    // where it is
	Name  string           // of the interface there, ≤ 15 bytes
	MAC   net.HardwareAddr // its address; nil: the kernel's choice
	MTU   int              // bytes of an IP packet; 0: the kernel's default of 1500
	Plain bool             // keep segmentation and receive offloads as the kernel sets them
	// Direct lets the processor that hands a frame in handle it, for engines
	// that hand in all frames by one thread and then know that each has arrived: no backlog of
	// another processor can overflow.
	Direct bool
}

// Veth makes a veth pair with its ends in their namespaces, quiet, exact, up and
// ready to send. Two requests to the kernel for one pair would leave a moment in which a
// killed process loses the pair; here each end is born where it belongs.
func Veth(a, b End) error {
	for _, end := range []End{a, b} {
		if end.NS.Own() {
			continue // a setting for all its interfaces is the host's own to make
		}
		if err := end.NS.Do(steerNew); err != nil {
			return fmt.Errorf("keep frames in order in %s: %w", end.NS.Name(), err)
		}
	}
	err := a.NS.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a.Name
		attrs.MTU = a.MTU
		attrs.HardwareAddr = a.MAC
		// One queue each way: frames keep their order, and the root qdisc is one
		// qdisc and not an mq with a child for each processor.
		attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
		veth := netlink.NewVeth(attrs)
		veth.PeerName = b.Name
		veth.PeerNamespace = netlink.NsFd(b.NS.FD())
		veth.PeerMTU = uint32(b.MTU)
		veth.PeerHardwareAddr = b.MAC
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make veth %s in %s with its peer %s in %s: %w", a.Name, a.NS.Name(), b.Name, b.NS.Name(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = func() error {
		for _, end := range []End{a, b} {
			if err := raise(end); err != nil {
				return err
			}
		}
		// b finds its peer up and can send at once; a, which came up first, must be waited for.
		return ready(a)
	}()
	if err != nil {
		return errors.Join(err, Remove(a))
	}
	return nil
}

// raise makes an interface that exists quiet, and brings it up.
func raise(end End) error {
	c, err := rtnl.Dial(end.NS)
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := Quiet(end, c)
	if err == nil {
		err = Up(end, c, index)
	}
	return err
}

// Quiet makes an interface that exists, and is still down, quiet and exact as
// the package says: IPv6 without duplicate address detection, router
// solicitation and generated addresses; segmentation and receive offloads off
// unless End.Plain; frames received on one processor unless End.Direct. It asks through a
// connection to End.NS, and returns the interface's index.
func Quiet(end End, c *rtnl.Conn) (index int, err error) {
	found, err := c.ByName(end.Name)
	if err == nil {
		err = end.NS.Do(func() error {
			if err := silence(end.Name, found.IPv6); err != nil {
				return err
			}
			if !end.Plain {
				if err := exact(end.Name); err != nil {
					return err
				}
			}
			if end.Direct {
				return nil
			}
			return steer(end.Name)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("quieten %s in %s: %w", end.Name, end.NS.Name(), err)
	}
	return found.Index, nil
}

// Up brings the interface of that index up.
func Up(end End, c *rtnl.Conn, index int) error {
	if err := c.Do(rtnl.Up(index)); err != nil {
		return fmt.Errorf("bring up %s in %s: %w", end.Name, end.NS.Name(), err)
	}
	return nil
}

// Remove deletes the interface, and its peer with it where it is a veth. One
// that is not there any more is no error.
func Remove(end End) error {
	return end.NS.Do(func() error {
		link, err := netlink.LinkByName(end.Name)
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s in %s: %w", end.Name, end.NS.Name(), err)
		}
		return nil
	})
}
