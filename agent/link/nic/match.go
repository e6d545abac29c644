package nic

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tcplab/tcplab/agent/link"
)

// IP protocol numbers (IANA, Protocol Numbers).
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// alwaysKept is what no host needs to be told to keep: the way in, and what gives
// addresses to hosts.
func alwaysKept() []link.Match {
	return []link.Match{
		{Protocol: link.TCP, Port: 22},  // ssh
		{Protocol: link.UDP, Port: 67},  // DHCP
		{Protocol: link.UDP, Port: 68},  //
		{Protocol: link.UDP, Port: 546}, // DHCPv6
		{Protocol: link.UDP, Port: 547}, //
	}
}

// covers reports whether every packet that b selects is selected by a.
func covers(a, b link.Match) bool {
	if a.Destination.IsValid() &&
		(!b.Destination.IsValid() || a.Destination.Bits() > b.Destination.Bits() || !a.Destination.Contains(b.Destination.Addr())) {
		return false
	}
	if a.Protocol != link.AnyProtocol && a.Protocol != b.Protocol {
		return false
	}
	return a.Port == 0 || a.Port == b.Port
}

// overlap reports whether some packet is selected by both.
func overlap(a, b link.Match) bool {
	if a.Destination.IsValid() && b.Destination.IsValid() && !a.Destination.Overlaps(b.Destination) {
		return false
	}
	if a.Protocol != link.AnyProtocol && b.Protocol != link.AnyProtocol && a.Protocol != b.Protocol {
		return false
	}
	if a.Protocol == link.ICMP && b.Port != 0 || b.Protocol == link.ICMP && a.Port != 0 {
		return false
	}
	// A packet has two ports, one for each.
	return true
}

// check refuses a match that cannot be carried out as it stands.
func check(m link.Match, keep []link.Match) error {
	keep = slices.Concat(alwaysKept(), keep)
	if m == (link.Match{}) {
		return errors.New("a host's interface is shaped for what a match selects, and never as a whole: give a destination, a protocol or a port")
	}
	if m.Destination.IsValid() && m.Destination.Addr().Is4In6() {
		return fmt.Errorf("the destination %s is IPv4 in IPv6: write it as IPv4", m.Destination)
	}
	var by []string
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		part := m
		if !m.Destination.IsValid() {
			part.Destination = all
		} else if m.Destination.Addr().Is6() != all.Addr().Is6() {
			continue
		}
		i := slices.IndexFunc(keep, func(k link.Match) bool { return covers(k, part) })
		if i < 0 {
			return nil
		}
		by = append(by, describe(keep[i]))
	}
	return fmt.Errorf("all that the match (%s) selects is never shaped on a host's interface (%s): by it the host is reached and kept alive",
		describe(m), strings.Join(slices.Compact(by), " and "))
}

// everything reports whether the match, of one family, selects every packet of it.
func everything(m link.Match) bool {
	return m.Protocol == link.AnyProtocol && m.Port == 0 && m.Destination.Bits() <= 0
}

// describe is the match in words.
func describe(m link.Match) string {
	text := "any address"
	if m.Destination.IsValid() {
		text = m.Destination.String()
	}
	if m.Protocol != link.AnyProtocol {
		text += ", " + string(m.Protocol)
	}
	if m.Port != 0 {
		text += fmt.Sprintf(", port %d", m.Port)
	}
	return text
}

// number is the protocol as IP headers have it; 0: any.
func number(p link.Protocol, v6 bool) int32 {
	switch p {
	case link.TCP:
		return protoTCP
	case link.UDP:
		return protoUDP
	case link.ICMP:
		if v6 {
			return protoICMPv6
		}
		return protoICMP
	}
	return 0
}

// ofFamily reports whether the prefix, where there is one, is of the family.
func ofFamily(p netip.Prefix, v6 bool) bool {
	return !p.IsValid() || p.Addr().Is6() == v6
}
