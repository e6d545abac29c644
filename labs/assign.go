package labs

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// pools are where IPv4 subnets come from, in this order: private space (RFC
// 1918) that few sites route, shared space (RFC 6598), space for benchmarks
// (RFC 2544), and the rest of private space.
func pools() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.64.0.0/10"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
}

// Assign gives every link end its interface name ("eth" and the number of the
// link among the node's links, from 0) and MAC address (locally administered)
// where it has none, and each end without addresses, unless in a switch, one
// IPv4 address and one unique local IPv6 address (RFC 4193). All links that
// switches join share one subnet, and ends join the subnets that the lab gives
// to others on their link. A link whose MTU is below 1280 has no IPv6. In the
// matches of paths it puts addresses in the place of nodes' names: a path for each.
//
// The same lab and avoid make the same addresses. Subnets overlap neither
// the lab's own nor the prefixes in avoid, which are the host's routes; default
// routes among them are ignored. The lab must be valid. Errors: no space is
// left, or a subnet that the lab gives has no address left.
func Assign(lab *tcplabv1.Lab, avoid []netip.Prefix) error {
	nameInterfaces(lab)
	macAddresses(lab)
	segments := segmentsOf(lab)
	a := newAllocator(lab.GetName(), segments, avoid)
	for _, s := range segments {
		if err := a.segment(s); err != nil {
			return fmt.Errorf("assign addresses in lab %s: %w", lab.GetName(), err)
		}
	}
	if err := nameDestinations(lab); err != nil {
		return fmt.Errorf("lab %s: %w", lab.GetName(), err)
	}
	return nil
}

func nameInterfaces(lab *tcplabv1.Lab) {
	taken := make(map[string]bool)
	eachEnd(lab, func(_, _ int, e *tcplabv1.LinkEnd) {
		taken[e.GetNode()+" "+e.GetInterface()] = true
	})
	links := make(map[string]int) // of each node, so far
	eachEnd(lab, func(_, _ int, e *tcplabv1.LinkEnd) {
		number := links[e.GetNode()]
		links[e.GetNode()]++
		if e.GetInterface() != "" {
			return
		}
		name := "eth" + strconv.Itoa(number)
		for taken[e.GetNode()+" "+name] {
			number++
			name = "eth" + strconv.Itoa(number)
		}
		taken[e.GetNode()+" "+name] = true
		e.Interface = name
	})
}

// macAddresses makes each MAC from the lab's name, so that two labs differ, and
// the number of the link and its end, so that one can be read in a capture.
func macAddresses(lab *tcplabv1.Lab) {
	taken := make(map[string]bool)
	eachEnd(lab, func(_, _ int, e *tcplabv1.LinkEnd) { taken[e.GetMac()] = true })
	sum := sha256.Sum256([]byte(lab.GetName()))
	eachEnd(lab, func(link, end int, e *tcplabv1.LinkEnd) {
		for last := end + 1; e.GetMac() == ""; last += 2 {
			mac := fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], byte(link>>8), byte(link), byte(last))
			if !taken[mac] {
				e.Mac = mac
			}
		}
		taken[e.GetMac()] = true
	})
}

// eachEnd visits the ends at which something is to be made.
func eachEnd(lab *tcplabv1.Lab, f func(link, end int, e *tcplabv1.LinkEnd)) {
	foreign := hostLinks(lab)
	for i, l := range lab.GetLinks() {
		if foreign[l] {
			continue
		}
		f(i, 0, l.GetA())
		f(i, 1, l.GetB())
	}
}

// allocator hands out subnets that nobody uses.
type allocator struct {
	used   []netip.Prefix // by the host and by the lab
	site   netip.Prefix   // the lab's own /48 of IPv6
	subnet int            // of the site, handed out so far
	pools  []netip.Prefix // of IPv4
	next   netip.Addr     // of the first pool
}

func newAllocator(name string, segments []segment, avoid []netip.Prefix) *allocator {
	a := &allocator{pools: pools()}
	for _, p := range avoid {
		if p.IsValid() && p.Bits() > 0 {
			a.used = append(a.used, p.Masked())
		}
	}
	for _, s := range segments {
		a.used = append(a.used, s.subnets()...)
	}
	a.next = a.pools[0].Addr()
	for try := 0; ; try++ { // ends: the host cannot route all of fd00::/8 in the 40 bits tried, but see below
		a.site = site(name, try)
		if try == 100 || !a.overlaps(a.site) {
			return a
		}
	}
}

// site is a /48 whose 40-bit global ID comes from the lab's name. RFC 4193 has
// it random; that it is the same each time is worth more to a lab.
func site(name string, try int) netip.Prefix {
	sum := sha256.Sum256(fmt.Appendf(nil, "tcplab %s %d", name, try))
	b := [16]byte{0: 0xfd}
	copy(b[1:6], sum[:5])
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

func (a *allocator) overlaps(p netip.Prefix) bool {
	return slices.ContainsFunc(a.used, p.Overlaps)
}

// ipv4 is a free subnet for so many hosts: a /24, or larger where it must be.
func (a *allocator) ipv4(hosts int) (netip.Prefix, error) {
	bits := 24
	for 1<<(32-bits)-2 < hosts {
		bits--
	}
	for len(a.pools) > 0 {
		p := netip.PrefixFrom(a.next, bits).Masked()
		switch {
		case !a.pools[0].Contains(p.Addr()) || p.Bits() < a.pools[0].Bits():
			if a.pools = a.pools[1:]; len(a.pools) > 0 {
				a.next = a.pools[0].Addr()
			}
			continue
		case p.Addr().Less(a.next): // rounded down into what is handed out
			a.next = lastOf(p).Next()
			continue
		}
		a.next = lastOf(p).Next()
		if !a.overlaps(p) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no IPv4 subnet is left that this host does not route: give the links addresses")
}

// ipv6 is a free /64.
func (a *allocator) ipv6() (netip.Prefix, error) {
	for ; a.subnet < 1<<16; a.subnet++ {
		b := a.site.Addr().As16()
		b[6], b[7] = byte(a.subnet>>8), byte(a.subnet)
		if p := netip.PrefixFrom(netip.AddrFrom16(b), 64); !a.overlaps(p) {
			a.subnet++
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no IPv6 subnet is left that this host does not route: give the links addresses")
}

// subnets are those that the lab gives on a segment.
func (s segment) subnets() []netip.Prefix {
	var out []netip.Prefix
	for _, m := range s.members {
		for _, text := range m.end.GetAddresses() {
			if p, problem := hostAddress(text); problem == "" && !slices.Contains(out, p.Masked()) {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

// segment gives addresses to the ends of one segment that have none.
func (a *allocator) segment(s segment) error {
	var bare []*tcplabv1.LinkEnd
	taken := make(map[netip.Addr]bool)
	small := false // for IPv6
	for _, m := range s.members {
		small = small || m.link.GetMtu() != 0 && m.link.GetMtu() < minIPv6MTU
		if len(m.end.GetAddresses()) == 0 {
			bare = append(bare, m.end)
		}
		for _, text := range m.end.GetAddresses() {
			if p, problem := hostAddress(text); problem == "" {
				taken[p.Addr()] = true
			}
		}
	}
	if len(bare) == 0 {
		return nil
	}
	subnets := s.subnets()
	if len(subnets) == 0 {
		v4, err := a.ipv4(len(s.members))
		if err != nil {
			return err
		}
		subnets = append(subnets, v4)
		if !small {
			v6, err := a.ipv6()
			if err != nil {
				return err
			}
			subnets = append(subnets, v6)
		}
	}
	for _, subnet := range subnets {
		if err := fill(subnet, bare, taken); err != nil {
			return err
		}
	}
	return nil
}

// fill numbers the ends within a subnet, from its first host.
func fill(subnet netip.Prefix, ends []*tcplabv1.LinkEnd, taken map[netip.Addr]bool) error {
	host := subnet.Addr()
	if subnet.Addr().Is6() || subnet.Bits() < 31 {
		host = host.Next() // past the subnet's own address (IPv4), or the routers' anycast (IPv6)
	}
	for _, e := range ends {
		for taken[host] {
			host = host.Next()
		}
		if !subnet.Contains(host) || host.Is4() && subnet.Bits() < 31 && host == lastOf(subnet) {
			return fmt.Errorf("the subnet %s has no address left for %s: give a larger one", subnet, e.GetNode())
		}
		taken[host] = true
		e.Addresses = append(e.Addresses, netip.PrefixFrom(host, subnet.Bits()).String())
	}
	return nil
}
