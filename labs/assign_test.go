package labs

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The addresses of the lab called "test" start here: RFC 4193, with the
// name's hash for the global ID.
const testSite = "fd3c:a251:c531"

const switched = `
name: "test"
nodes: {name: "a"} nodes: {name: "b"} nodes: {name: "c"}
nodes: {name: "s" kind: NODE_KIND_SWITCH} nodes: {name: "r" kind: NODE_KIND_ROUTER}
links: {a: {node: "a"} b: {node: "s"}}
links: {a: {node: "a"} b: {node: "r"}}
links: {a: {node: "s"} b: {node: "b"}}
links: {a: {node: "r"} b: {node: "s" interface: "eth0"}}
links: {a: {node: "r"} b: {node: "c"} mtu: 1000}
experiments: {flows: {name: "up" client: "a" server: "c" bulk: {bytes: 1}}}
`

func TestAssign(t *testing.T) {
	lab := parseText(t, switched)
	Complete(lab)
	if err := Assign(lab, nil); err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for _, l := range lab.GetLinks() {
		for _, e := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			got[e.GetNode()+" "+e.GetInterface()] = e.GetAddresses()
		}
	}
	want := map[string][]string{
		// The links over the switch are one subnet, numbered in their order.
		"a eth0": {"10.64.0.1/24", testSite + "::1/64"},
		"b eth0": {"10.64.0.2/24", testSite + "::2/64"},
		"r eth1": {"10.64.0.3/24", testSite + "::3/64"},
		"s eth1": nil, "s eth2": nil, "s eth0": nil,
		"a eth1": {"10.64.1.1/24", testSite + ":1::1/64"},
		"r eth0": {"10.64.1.2/24", testSite + ":1::2/64"},
		// Too small for IPv6.
		"r eth2": {"10.64.2.1/24"},
		"c eth0": {"10.64.2.2/24"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := Validate(lab); err != nil {
		t.Error(err)
	}
	again := proto.CloneOf(lab)
	if err := Assign(again, []netip.Prefix{netip.MustParsePrefix("10.64.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lab, again, protocmp.Transform()); diff != "" {
		t.Errorf("Assign changes what is assigned:\n%s", diff)
	}
}

func TestAssignAvoids(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	tests := []struct {
		name  string
		avoid []netip.Prefix
		want  string // the first address of a
	}{
		{"nothing", nil, "10.64.0.1/24"},
		{"default routes", prefixes("0.0.0.0/0", "::/0"), "10.64.0.1/24"},
		{"one subnet", prefixes("10.64.0.128/25"), "10.64.1.1/24"},
		{"a site", prefixes("10.0.0.0/8"), "100.64.0.1/24"},
		{"much", prefixes("10.0.0.0/8", "100.64.0.0/10", "198.18.0.0/15", "172.16.0.0/12", "192.168.0.0/17"), "192.168.128.1/24"},
		{"another lab of the name", prefixes(testSite + "::/64"), "10.64.0.1/24"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lab := parseText(t, switched)
			if err := Assign(lab, tt.avoid); err != nil {
				t.Fatal(err)
			}
			for _, l := range lab.GetLinks() {
				for _, text := range append(l.GetA().GetAddresses(), l.GetB().GetAddresses()...) {
					p := netip.MustParsePrefix(text)
					for _, avoid := range tt.avoid {
						if avoid.Bits() > 0 && avoid.Overlaps(p) {
							t.Errorf("%s overlaps %s", p, avoid)
						}
					}
				}
			}
			if got := lab.GetLinks()[0].GetA().GetAddresses()[0]; got != tt.want {
				t.Errorf("the first address is %s, want %s", got, tt.want)
			}
		})
	}
	all := prefixes("10.0.0.0/8", "100.64.0.0/10", "198.18.0.0/15", "172.16.0.0/12", "192.168.0.0/16")
	if err := Assign(parseText(t, switched), all); err == nil {
		t.Error("Assign found an address where all are in use")
	}
}

func TestAssignJoinsGivenSubnets(t *testing.T) {
	lab := parseText(t, `
name: "test" nodes: {name: "a"} nodes: {name: "b"}
links: {a: {node: "a" addresses: "10.64.0.1/30"} b: {node: "b"}}
links: {a: {node: "a"} b: {node: "b"}}`)
	if err := Assign(lab, nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.64.0.2/30"}
	if diff := cmp.Diff(want, lab.GetLinks()[0].GetB().GetAddresses()); diff != "" {
		t.Error(diff)
	}
	if got := lab.GetLinks()[1].GetA().GetAddresses()[0]; got != "10.64.1.1/24" {
		t.Errorf("the second link starts at %s, not past the subnet that the lab gives", got)
	}
	full := parseText(t, `
name: "test" nodes: {name: "a"} nodes: {name: "b"}
links: {a: {node: "a" addresses: "10.64.0.1/32"} b: {node: "b"}}`)
	if err := Assign(full, nil); err == nil {
		t.Error("Assign found a second address in a /32")
	}
}

func TestAssignLargeSegment(t *testing.T) {
	lab := &tcplabv1.Lab{Name: "large", Nodes: []*tcplabv1.Node{{Name: "s", Kind: tcplabv1.NodeKind_NODE_KIND_SWITCH}}}
	for i := range 400 {
		name := "n" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		lab.Nodes = append(lab.Nodes, &tcplabv1.Node{Name: name})
		lab.Links = append(lab.Links, &tcplabv1.Link{A: &tcplabv1.LinkEnd{Node: "s"}, B: &tcplabv1.LinkEnd{Node: name}})
	}
	if err := Assign(lab, nil); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, l := range lab.GetLinks() {
		a := l.GetB().GetAddresses()[0]
		if seen[a] || !netip.MustParsePrefix("10.64.0.0/23").Overlaps(netip.MustParsePrefix(a)) {
			t.Fatalf("%s is there twice or outside the /23", a)
		}
		seen[a] = true
	}
}
