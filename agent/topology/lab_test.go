package topology

import (
	"fmt"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// sketch draws a lab: "client", "r1:router", "s1:switch" are nodes;
// "client-r1" links two of them. The i-th link (from 1) has the subnets
// 10.0.i.0/24 and fd00:i::/64, in which the lab's n-th node (from 1) has n; on
// links of a switch all have the subnets of the switch's first link.
func sketch(nodes, links string) *tcplabv1.Lab {
	lab := &tcplabv1.Lab{Name: "sketch"}
	kinds := map[string]tcplabv1.NodeKind{
		"": tcplabv1.NodeKind_NODE_KIND_ENDPOINT, "router": tcplabv1.NodeKind_NODE_KIND_ROUTER, "switch": tcplabv1.NodeKind_NODE_KIND_SWITCH,
	}
	number, kind, subnet, ports := map[string]int{}, map[string]string{}, map[string]int{}, map[string]int{}
	for i, node := range strings.Fields(nodes) {
		name, k, _ := strings.Cut(node, ":")
		number[name], kind[name] = i+1, k
		lab.Nodes = append(lab.Nodes, &tcplabv1.Node{Name: name, Kind: kinds[k]})
	}
	for i, text := range strings.Fields(links) {
		a, b, _ := strings.Cut(text, "-")
		net := i + 1
		for _, name := range []string{a, b} {
			if kind[name] == "switch" {
				if subnet[name] == 0 {
					subnet[name] = net
				}
				net = subnet[name]
			}
		}
		for _, name := range []string{a, b} {
			if kind[name] == "switch" {
				subnet[name] = net
			}
		}
		end := func(name string) *tcplabv1.LinkEnd {
			e := &tcplabv1.LinkEnd{
				Node: name, Interface: fmt.Sprintf("eth%d", ports[name]),
				Mac: fmt.Sprintf("02:00:00:00:%02x:%02x", i+1, number[name]),
			}
			ports[name]++
			if kind[name] != "switch" {
				e.Addresses = []string{fmt.Sprintf("10.0.%d.%d/24", net, number[name]), fmt.Sprintf("fd00:%d::%d/64", net, number[name])}
			}
			return e
		}
		lab.Links = append(lab.Links, &tcplabv1.Link{Name: text, A: end(a), B: end(b)})
	}
	return lab
}
