// Package topology turns a lab's nodes and links into network namespaces that
// reach one another.
//
// [New] computes a [Plan] from a lab in which every address is assigned: pure,
// without the kernel, and the same for the same lab. [Build] makes the kernel agree
// with it, and takes away what it made when any part fails. Links carry the
// lab's own packets and nothing else: neighbours are permanent, switches know
// beforehand which port leads to which address, and IPv6 says nothing unasked.
//
// It refuses labs that could not work: an address twice, a subnet in two places,
// switches in a loop, settings outside net.
package topology

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// DefaultMTU is the MTU of a link that names none, in bytes of an IP packet.
const DefaultMTU = 1500

// bridgeName is the bridge's interface in a switch. No port may have it.
const bridgeName = "bridge"

// Plan is all that stands when the lab stands. Nodes and links are in the lab's order.
type Plan struct {
	Nodes []Node
	Links []Link

	owners map[netip.Addr]int // which node has an address
}

// Node is one network namespace.
type Node struct {
	Name       string
	Kind       tcplabv1.NodeKind // never NODE_KIND_UNSPECIFIED
	Foreign    bool              // the host's own stack, or outside: nothing is made for it
	Interfaces []Interface       // in the order of the lab's links
	Neighbours []Neighbour       // permanent, for every other address on its segments
	Stations   []Station         // of a switch
	Routes     []Route           // those of the lab, then to every subnet that is not its own
	Sysctls    []Sysctl          // tcplab's defaults, then the lab's own by name
}

// Interface is a node's end of a link.
type Interface struct {
	Name      string           // ≤ 15 bytes
	MAC       net.HardwareAddr // 6 bytes
	MTU       int              // bytes of an IP packet
	Addresses []netip.Prefix   // with host bits; none on a switch
}

// Neighbour says at which MAC address an IP address is found.
type Neighbour struct {
	Interface string
	Address   netip.Addr
	MAC       net.HardwareAddr
}

// Station says behind which port of a switch a MAC address is found.
type Station struct {
	Interface string
	MAC       net.HardwareAddr
}

// Route leads to a subnet through a router on one of the node's segments.
type Route struct {
	Destination netip.Prefix // without host bits
	Via         netip.Addr
	Interface   string
}

// Link joins two interfaces.
type Link struct {
	Name       string
	Ends       [2]End            // a, b
	Directions [2]link.Direction // a to b, b to a; queues filled in
	Engine     tcplabv1.Engine   // as the lab asks; never ENGINE_UNSPECIFIED
	Offload    bool              // keep GSO, TSO and GRO
	Host       *HostLink         // at an interface of the host's own; nil: between namespaces
}

// HostLink is a link that shapes packets of an interface that the host has.
type HostLink struct {
	End   int        // 0 or 1: the end that is the host
	Match link.Match // which packets, as the host sends them
}

// End finds an interface in the plan.
type End struct {
	Node      int // index into Plan.Nodes
	Interface int // index into Node.Interfaces
}

// New plans the lab. The error names what contradicts itself, one line each.
func New(lab *tcplabv1.Lab) (*Plan, error) {
	p := &Plan{}
	index := make(map[string]int, len(lab.GetNodes()))
	for _, n := range lab.GetNodes() {
		if _, twice := index[n.GetName()]; twice {
			return nil, fmt.Errorf("two nodes are called %q", n.GetName())
		}
		index[n.GetName()] = len(p.Nodes)
		kind := n.GetKind()
		if kind == tcplabv1.NodeKind_NODE_KIND_UNSPECIFIED {
			kind = tcplabv1.NodeKind_NODE_KIND_ENDPOINT
		}
		p.Nodes = append(p.Nodes, Node{Name: n.GetName(), Kind: kind, Foreign: foreign(n)})
	}
	names := make(map[string]bool, len(lab.GetLinks()))
	for _, l := range lab.GetLinks() {
		if names[l.GetName()] {
			return nil, fmt.Errorf("two links are called %q", l.GetName())
		}
		names[l.GetName()] = true
		if err := p.addLink(index, l); err != nil {
			return nil, fmt.Errorf("link %s: %w", l.GetName(), err)
		}
	}
	segments, err := p.segments()
	if err != nil {
		return nil, err
	}
	if err := p.checkAddresses(segments); err != nil {
		return nil, err
	}
	p.owners = make(map[netip.Addr]int)
	for i, n := range p.Nodes {
		for _, iface := range n.Interfaces {
			for _, a := range iface.Addresses {
				p.owners[a.Addr()] = i
			}
		}
	}
	p.addNeighbours(segments)
	p.addStations()
	if err := p.addRoutes(lab, segments); err != nil {
		return nil, err
	}
	for i, n := range lab.GetNodes() {
		if p.Nodes[i].Foreign {
			continue
		}
		if p.Nodes[i].Sysctls, err = sysctls(&p.Nodes[i], n.GetSysctls()); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.GetName(), err)
		}
	}
	return p, nil
}

// addLink adds the link and the interfaces at its ends.
func (p *Plan) addLink(index map[string]int, l *tcplabv1.Link) error {
	mtu := int(l.GetMtu())
	if mtu == 0 {
		mtu = DefaultMTU
	}
	if l.GetA().GetNode() == l.GetB().GetNode() {
		return fmt.Errorf("both ends are at node %s", l.GetA().GetNode())
	}
	directions, err := directions(l, mtu)
	if err != nil {
		return err
	}
	planned := Link{Name: l.GetName(), Directions: directions, Engine: l.GetEngine(), Offload: l.GetOffload()}
	if planned.Engine == tcplabv1.Engine_ENGINE_UNSPECIFIED {
		planned.Engine = tcplabv1.Engine_ENGINE_AUTO
	}
	if planned.Host, err = p.hostLink(index, l); err != nil {
		return err
	}
	for i, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
		at, ok := index[end.GetNode()]
		if !ok {
			return fmt.Errorf("there is no node %q", end.GetNode())
		}
		node := &p.Nodes[at]
		iface := Interface{Name: end.GetInterface(), MTU: mtu}
		if planned.Host == nil {
			if iface, err = newInterface(node, end, mtu); err != nil {
				return fmt.Errorf("at node %s: %w", node.Name, err)
			}
		}
		planned.Ends[i] = End{Node: at, Interface: len(node.Interfaces)}
		node.Interfaces = append(node.Interfaces, iface)
	}
	p.Links = append(p.Links, planned)
	return nil
}

// newInterface reads one end of a link, which must fit the node's others.
func newInterface(node *Node, end *tcplabv1.LinkEnd, mtu int) (Interface, error) {
	iface := Interface{Name: end.GetInterface(), MTU: mtu}
	if iface.Name == "" {
		iface.Name = fmt.Sprintf("eth%d", len(node.Interfaces))
	}
	switch {
	case len(iface.Name) > 15 || strings.ContainsAny(iface.Name, "/: \t\n") || iface.Name == "." || iface.Name == "..":
		return iface, fmt.Errorf("%q is no interface name: 1 to 15 bytes without slash, colon and space", iface.Name)
	case iface.Name == "lo" || iface.Name == bridgeName || iface.Name == "all" || iface.Name == "default":
		return iface, fmt.Errorf("the interface name %q is taken", iface.Name)
	case slices.ContainsFunc(node.Interfaces, func(other Interface) bool { return other.Name == iface.Name }):
		return iface, fmt.Errorf("two interfaces are called %q", iface.Name)
	}
	mac, err := net.ParseMAC(end.GetMac())
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return iface, fmt.Errorf("interface %s: %q is no MAC address of one station", iface.Name, end.GetMac())
	}
	iface.MAC = mac
	if node.Kind == tcplabv1.NodeKind_NODE_KIND_SWITCH && len(end.GetAddresses()) > 0 {
		return iface, fmt.Errorf("interface %s: a switch has no address", iface.Name)
	}
	for _, text := range end.GetAddresses() {
		address, err := netip.ParsePrefix(text)
		if err != nil {
			return iface, fmt.Errorf("interface %s: %w", iface.Name, err)
		}
		if a := address.Addr(); a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.Is4In6() {
			return iface, fmt.Errorf("interface %s: %s is no address for an interface", iface.Name, text)
		}
		iface.Addresses = append(iface.Addresses, address)
	}
	return iface, nil
}

// at finds an end's interface.
func (p *Plan) at(e End) *Interface { return &p.Nodes[e.Node].Interfaces[e.Interface] }

// isSwitch reports whether the node bridges.
func (n *Node) isSwitch() bool { return n.Kind == tcplabv1.NodeKind_NODE_KIND_SWITCH }

// isRouter reports whether the node forwards.
func (n *Node) isRouter() bool { return n.Kind == tcplabv1.NodeKind_NODE_KIND_ROUTER }
