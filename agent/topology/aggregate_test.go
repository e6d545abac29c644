package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// lookup is the longest route that fits, as a routing table has it.
func lookup(routes []Route, a netip.Addr) (best Route) {
	for _, r := range routes {
		if r.Destination.Contains(a) && (!best.Destination.IsValid() || r.Destination.Bits() > best.Destination.Bits()) {
			best = r
		}
	}
	return best
}

// Routes that are joined lead every address to where it went before, and none that
// went nowhere but to the node's own subnets.
func TestAggregate(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for trial := range 200 {
		var routes []Route
		var own []netip.Prefix
		ways := 1 + random.IntN(3)
		for i := range 300 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i >> 2), byte(i << 6)}), 26)
			switch random.IntN(20) {
			case 0:
			case 1:
				own = append(own, p)
			default:
				way := random.IntN(ways)
				if random.IntN(4) > 0 {
					way = 0
				}
				routes = append(routes, Route{Destination: p, Via: netip.AddrFrom4([4]byte{192, 0, 2, byte(way)}), Interface: fmt.Sprintf("eth%d", way)})
			}
		}
		joined := aggregate(routes, own)
		if len(joined) >= len(routes) {
			t.Fatalf("trial %d: %d routes are %d", trial, len(routes), len(joined))
		}
		for i := range 400 {
			a := netip.AddrFrom4([4]byte{10, 64, byte(i >> 2), byte(i<<6) + 1})
			isOwn := false
			for _, p := range own {
				isOwn = isOwn || p.Contains(a)
			}
			before, after := lookup(routes, a), lookup(joined, a)
			if !isOwn && (before.Via != after.Via || before.Interface != after.Interface) {
				t.Fatalf("trial %d: %s went by %+v and goes by %+v", trial, a, before, after)
			}
		}
	}
	// A star's leaf: 99 neighbouring subnets and one of its own among them.
	var routes []Route
	var own []netip.Prefix
	for i := range 100 {
		p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(i)}), 64)
		if i == 37 {
			own = append(own, p)
			continue
		}
		routes = append(routes, Route{Destination: p, Via: netip.MustParseAddr("fd00::1"), Interface: "eth0"})
	}
	if got := aggregate(routes, own); len(got) != 3 { // 64 + 32 + 4
		t.Errorf("99 routes become %v", got)
	}
	few := routes[:manyRoutes-1]
	if got := aggregate(few, nil); len(got) != len(few) {
		t.Errorf("%d routes, which people read, became %d", len(few), len(got))
	}
}
