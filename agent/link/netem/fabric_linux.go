package netem

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/internal/netns"
)

// fabric is the namespace in which every link of an engine is joined and shaped.
type fabric struct {
	ns       *netns.Handle
	requests *requests
}

func newFabric() (*fabric, error) {
	ns, err := netns.New("fabric")
	if err != nil {
		return nil, err
	}
	f := &fabric{ns: ns}
	if err = port.Mute(ns); err == nil {
		f.requests, err = newRequests(ns)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the fabric: %w", err), ns.Close())
	}
	return f, nil
}

func (f *fabric) close() error {
	f.requests.close()
	return f.ns.Close()
}

// connect makes both ports of a link, shapes both directions and joins them.
func (f *fabric) connect(spec link.Spec, serial int) (_ *wire, err error) {
	w := &wire{fabric: f, frame: frame(spec)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.remove())
		}
	}()
	var devices [2]int
	for i, end := range spec.Ends {
		node := port.End{NS: end.Node, Name: end.Name, MAC: end.MAC, MTU: end.MTU, Plain: end.Plain}
		side := port.End{NS: f.ns, Name: fmt.Sprintf("l%d.%d", serial, i), MTU: end.MTU, Plain: end.Plain}
		if err := port.Veth(node, side); err != nil {
			return nil, err
		}
		w.nodes[i], w.ports[i] = node, &side
		if devices[i], err = f.index(side.Name); err != nil {
			return nil, err
		}
	}
	for i, direction := range spec.Directions {
		if err := w.linear(i, direction); err != nil {
			return nil, err
		}
		w.ways[i] = &way{requests: f.requests, device: devices[1-i], seed: direction.Seed, frame: w.frame}
		if err := w.ways[i].build(direction); err != nil {
			return nil, err
		}
	}
	for i := range devices {
		if err := f.redirect(devices[i], devices[1-i]); err != nil {
			return nil, fmt.Errorf("join the ports: %w", err)
		}
	}
	return w, nil
}

func (f *fabric) index(name string) (index int, err error) {
	err = f.ns.Do(func() error {
		device, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find port %s: %w", name, err)
		}
		index = device.Attrs().Index
		return nil
	})
	return index, err
}

// redirect sends every frame that comes in on one device out of the other.
func (f *fabric) redirect(from, to int) error {
	return f.ns.Do(func() error { return redirect(from, to) })
}

// redirect joins two devices of this thread's namespace, in one direction.
func redirect(from, to int) error {
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from,
		Parent:    netlink.HANDLE_INGRESS,
		Handle:    netlink.MakeHandle(0xffff, 0),
	}}
	if err := netlink.QdiscAdd(ingress); err != nil {
		return fmt.Errorf("add the qdisc ingress: %w", err)
	}
	// u32 without a selection matches everything; more kernels have it than matchall.
	filter := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: from,
			Parent:    ingress.Handle,
			Priority:  1,
			Protocol:  unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{netlink.NewMirredAction(to)},
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("add the filter u32 with action mirred: %w", err)
	}
	return nil
}
