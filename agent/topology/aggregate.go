package topology

import (
	"cmp"
	"net/netip"
	"slices"
)

// manyRoutes is from how many routes of a family on a node's are joined. Below,
// they are read by people, one subnet a line; a star of a hundred nodes would have
// twenty thousand.
const manyRoutes = 32

// aggregate joins routes of one family by the same way to neighbouring subnets,
// where there are many. What it leaves sends every packet to a subnet of the
// lab as before, and takes none that had no route but to the node's own subnets,
// which are nearer in any table.
func aggregate(routes []Route, own []netip.Prefix) []Route {
	if len(routes) < manyRoutes {
		return routes
	}
	// Own subnets fit any neighbour, so that one of them makes no gap.
	fits := make(map[netip.Prefix]bool, len(own))
	for _, p := range own {
		fits[p.Masked()] = true
	}
	sorted := slices.Clone(routes)
	byLength := func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Destination.Bits(), a.Destination.Bits()), a.Destination.Addr().Compare(b.Destination.Addr()))
	}
	slices.SortFunc(sorted, byLength)
	byPrefix := make(map[netip.Prefix]Route, len(sorted))
	for _, r := range sorted {
		byPrefix[r.Destination] = r
	}
	// From the longest prefixes up; a join adds to the next length.
	for i := 0; i < len(sorted); i++ {
		r := sorted[i]
		if current, there := byPrefix[r.Destination]; !there || current != r {
			continue // joined already
		}
		wide, other := halves(r.Destination)
		if !wide.IsValid() {
			continue
		}
		beside, there := byPrefix[other]
		if _, taken := byPrefix[wide]; taken || !there && !fits[other] || there && (beside.Via != r.Via || beside.Interface != r.Interface) {
			continue
		}
		delete(byPrefix, r.Destination)
		delete(byPrefix, other)
		joined := Route{Destination: wide, Via: r.Via, Interface: r.Interface}
		byPrefix[wide] = joined
		at, _ := slices.BinarySearchFunc(sorted, joined, byLength)
		sorted = slices.Insert(sorted, at, joined)
	}
	left := slices.DeleteFunc(sorted, func(r Route) bool { return byPrefix[r.Destination] != r })
	slices.SortFunc(left, func(a, b Route) int { return a.Destination.Addr().Compare(b.Destination.Addr()) })
	return left
}

// halves is the prefix that is one bit shorter, and its other half.
func halves(p netip.Prefix) (wide, other netip.Prefix) {
	if p.Bits() == 0 {
		return wide, other
	}
	wide = netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
	if wide.Addr() != p.Addr() {
		return wide, netip.PrefixFrom(wide.Addr(), p.Bits())
	}
	b := p.Addr().AsSlice()
	b[(p.Bits()-1)/8] |= 1 << (7 - (p.Bits()-1)%8)
	addr, _ := netip.AddrFromSlice(b)
	return wide, netip.PrefixFrom(addr, p.Bits())
}
