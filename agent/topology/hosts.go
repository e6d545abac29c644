package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hosts is the content of /etc/hosts of the node at the index: localhost, and every
// node that has an address, with the addresses first to which the node has a path.
func (p *Plan) Hosts(node int) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for i := range p.Nodes {
		for _, address := range p.addressesFrom(node, i) {
			fmt.Fprintf(&b, "%s\t%s\n", address, p.Nodes[i].Name)
		}
	}
	return b.String()
}

// Names are the addresses of every node that has any, as the node at the index tries them.
func (p *Plan) Names(node int) map[string][]netip.Addr {
	all := make(map[string][]netip.Addr)
	for i := range p.Nodes {
		if addresses := p.addressesFrom(node, i); len(addresses) > 0 {
			all[p.Nodes[i].Name] = addresses
		}
	}
	return all
}

// addressesFrom are a node's addresses as another one tries them.
func (p *Plan) addressesFrom(from, to int) []netip.Addr {
	var all []netip.Addr
	for _, v6 := range []bool{false, true} {
		var family []netip.Addr
		for _, a := range p.Nodes[to].addresses(v6) {
			family = append(family, a.Addr())
		}
		// Where no path leads there is no address to prefer, and to itself any will do.
		if path, err := p.Path(p.Nodes[from].Name, p.Nodes[to].Name, v6); err == nil {
			family = slices.DeleteFunc(family, func(a netip.Addr) bool { return a == path.Destination })
			family = slices.Insert(family, 0, path.Destination)
		}
		all = append(all, family...)
	}
	return all
}
