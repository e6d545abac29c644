package labs

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Bounds of a link.
const (
	minMTU     = 576   // RFC 791: what every IPv4 host must take
	maxMTU     = 65521 // the largest that a TAP takes: 65535 less the Ethernet header
	minIPv6MTU = 1280  // RFC 8200, section 5
)

func (v *validation) links() {
	taken := make(map[string]bool)
	interfaces, macs := make(map[string]bool), make(map[string]bool)
	foreign := hostLinks(v.lab)
	for i, l := range v.lab.GetLinks() {
		field := fmt.Sprintf("links[%d]", i)
		if l.GetName() != "" {
			if taken[l.GetName()] {
				v.add(field+".name", "", "the link %q is there twice", l.GetName())
			}
			taken[l.GetName()] = true
		}
		if strings.ContainsAny(l.GetName(), "/\n\t\x00 ") {
			v.add(field+".name", "", "the name %q holds a blank or a slash", l.GetName())
		}
		a, b := v.known(field+".a", l.GetA().GetNode()), v.known(field+".b", l.GetB().GetNode())
		if a && b && l.GetA().GetNode() == l.GetB().GetNode() {
			v.add(field+".b", "", "the link joins %q to itself", l.GetA().GetNode())
		}
		if foreign[l] {
			v.hostLink(field, l)
		} else {
			v.linkEnd(field+".a", l.GetA(), interfaces, macs)
			v.linkEnd(field+".b", l.GetB(), interfaces, macs)
			if l.GetHostMatch() != nil {
				v.add(field+".host_match", "paths: with a match shape some packets of a link", "the link has a match, and is not between a host's own stack and outside")
			}
		}
		if mtu := l.GetMtu(); mtu != 0 && (mtu < minMTU || mtu > maxMTU) {
			v.add(field+".mtu", "", "an MTU of %d bytes is outside %d to %d", mtu, minMTU, maxMTU)
		}
		v.direction(field+".forward", l, l.GetForward())
		v.direction(field+".backward", l, l.GetBackward())
	}
	v.smallMTU()
}

// smallMTU refuses IPv6 over links that are too small for it: the kernel takes
// IPv6 off such an interface.
func (v *validation) smallMTU() {
	for i, e := range v.lab.GetExperiments() {
		for j, f := range e.GetFlows() {
			if f.GetFamily() != tcplabv1.IpFamily_IP_FAMILY_IPV6 {
				continue
			}
			for _, l := range v.lab.GetLinks() {
				if mtu := l.GetMtu(); mtu >= minMTU && mtu < minIPv6MTU {
					v.add(fmt.Sprintf("experiments[%d].flows[%d].family", i, j), "", "the link between %q and %q has an MTU of %d, and IPv6 needs %d", l.GetA().GetNode(), l.GetB().GetNode(), mtu, minIPv6MTU)
					break
				}
			}
		}
	}
}

func (v *validation) linkEnd(field string, e *tcplabv1.LinkEnd, interfaces, macs map[string]bool) {
	if name := e.GetInterface(); name != "" {
		switch {
		case !interfaceName(name):
			v.add(field+".interface", "", "%q cannot be an interface's name", name)
		case interfaces[e.GetNode()+" "+name]:
			v.add(field+".interface", "", "the node %q has two interfaces %q", e.GetNode(), name)
		}
		interfaces[e.GetNode()+" "+name] = true
	}
	if e.GetMac() == "" {
		return
	}
	mac, err := net.ParseMAC(e.GetMac())
	switch {
	case err != nil || len(mac) != 6:
		v.add(field+".mac", "such as 02:00:00:00:00:01", "%q is not a MAC address", e.GetMac())
	case mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00":
		v.add(field+".mac", "such as 02:00:00:00:00:01", "%q is not the address of one interface", e.GetMac())
	case macs[mac.String()]:
		v.add(field+".mac", "", "two interfaces have the MAC address %s", mac)
	default:
		macs[mac.String()] = true
	}
}

// interfaceName is the kernel's rule (dev_valid_name in net/core/dev.c), less
// the names that mean something else to sysctls and to every namespace.
func interfaceName(s string) bool {
	switch s {
	case "", ".", "..", "lo", "all", "default":
		return false
	}
	return len(s) <= 15 && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c > '~' || c == '%' })
}

// addresses checks the addresses that the lab gives: each is one host's, none
// is there twice, and the ends that share a wire share its subnets.
func (v *validation) addresses() {
	segments := segmentsOf(v.lab)
	owner := make(map[netip.Addr]string)
	subnets := make(map[netip.Prefix]int) // the segment of each
	for i, s := range segments {
		var first string
		firsts := make(map[bool]netip.Prefix) // the segment's subnet, by whether it is IPv4
		for _, m := range s.members {
			for j, text := range m.end.GetAddresses() {
				field := fmt.Sprintf("%s.addresses[%d]", m.field, j)
				p, problem := hostAddress(text)
				if problem != "" {
					v.add(field, "such as 10.1.0.1/24 or fd00::1/64", "%q %s", text, problem)
					continue
				}
				if other, twice := owner[p.Addr()]; twice {
					v.add(field, "", "%s and %s both have the address %s", other, m.end.GetNode(), p.Addr())
					continue
				}
				owner[p.Addr()] = m.end.GetNode()
				subnet := p.Masked()
				if known, ok := firsts[p.Addr().Is4()]; !ok {
					firsts[p.Addr().Is4()], first = subnet, m.end.GetNode()
				} else if len(m.end.GetAddresses()) == 1 && known != subnet {
					v.add(field, "", "%s and %s are on one link, but %s and %s are different subnets", first, m.end.GetNode(), known, subnet)
					continue
				}
				if p.Addr().Is6() && m.link.GetMtu() != 0 && m.link.GetMtu() < minIPv6MTU {
					v.add(field, "", "an MTU of %d is too small for IPv6, which needs %d", m.link.GetMtu(), minIPv6MTU)
				}
				for other, j := range subnets {
					if j != i && other.Overlaps(subnet) {
						v.add(field, "each link has subnets of its own", "the subnet %s overlaps %s of another link", subnet, other)
						break
					}
				}
				subnets[subnet] = i
			}
		}
		if s.loop != "" {
			v.add(s.loop, "switches run no spanning tree: a frame would circle for ever", "this link closes a circle of switches")
		}
		v.switchEnds(s)
		v.switchedMTU(s)
	}
}

// switchedMTU refuses links of one switched network that differ in their MTU. A router
// says which packets are too large for its next link; a switch drops them without
// a word.
func (v *validation) switchedMTU(s segment) {
	if len(s.ports) == 0 {
		return
	}
	first := s.ports[0]
	for _, p := range s.ports[1:] {
		if mtuOf(p.link) != mtuOf(first.link) {
			v.add(strings.TrimSuffix(strings.TrimSuffix(p.field, ".a"), ".b")+".mtu", "give all links of a switched network one MTU, or make the switch a router",
				"the link has an MTU of %d, and another one at the same switches has %d: what is too large would vanish there", mtuOf(p.link), mtuOf(first.link))
			return
		}
	}
}

func mtuOf(l *tcplabv1.Link) uint32 {
	if l.GetMtu() == 0 {
		return DefaultMTU
	}
	return l.GetMtu()
}

func (v *validation) switchEnds(s segment) {
	for _, p := range s.ports {
		if len(p.end.GetAddresses()) > 0 {
			v.add(p.field+".addresses[0]", "", "%q is a switch and has no address", p.end.GetNode())
		}
	}
	seen := make(map[string]bool)
	for _, m := range s.members {
		if seen[m.end.GetNode()] && v.nodes[m.end.GetNode()] != nil && len(s.ports) > 0 {
			v.add(m.field, "", "%q is on the same switched network twice", m.end.GetNode())
		}
		seen[m.end.GetNode()] = true
	}
}

// hostAddress reads an address with its prefix length, or says what is wrong
// with it.
func hostAddress(s string) (p netip.Prefix, problem string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if _, err := netip.ParseAddr(s); err == nil {
			return p, "has no prefix length"
		}
		return p, "is not an address with a prefix length"
	}
	a := p.Addr()
	switch {
	case a.Is4In6():
		return p, "is IPv4 written as IPv6"
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), p.Bits() == 0:
		return p, "cannot be a host's address on a link"
	case a.Is6() && a.IsLinkLocalUnicast():
		return p, "is link-local, which no route leads to"
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		return p, "is the address of the subnet, not of a host"
	case a.Is4() && p.Bits() < 31 && a == lastOf(p):
		return p, "is the subnet's broadcast address"
	}
	return p, ""
}

// lastOf is the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
