package topology

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const dumbbellNodes, dumbbellLinks = "a b r1:router r2:router c d", "a-r1 b-r1 r1-r2 r2-c r2-d"

// told is what a plan tells each node of the others, one line each, as ip(8) would.
func told(p *Plan) map[string][]string {
	all := map[string][]string{}
	for _, n := range p.Nodes {
		var lines []string
		for _, x := range n.Neighbours {
			lines = append(lines, fmt.Sprintf("%s at %s dev %s", x.Address, x.MAC, x.Interface))
		}
		for _, x := range n.Stations {
			lines = append(lines, fmt.Sprintf("%s dev %s", x.MAC, x.Interface))
		}
		for _, x := range n.Routes {
			lines = append(lines, fmt.Sprintf("%s via %s dev %s", x.Destination, x.Via, x.Interface))
		}
		all[n.Name] = lines
	}
	return all
}

func TestWays(t *testing.T) {
	for name, test := range map[string]struct {
		nodes, links string
		want         map[string][]string // of some nodes
	}{
		"two endpoints": {
			"a b", "a-b",
			map[string][]string{
				"a": {"10.0.1.2 at 02:00:00:00:01:02 dev eth0", "fd00:1::2 at 02:00:00:00:01:02 dev eth0"},
				"b": {"10.0.1.1 at 02:00:00:00:01:01 dev eth0", "fd00:1::1 at 02:00:00:00:01:01 dev eth0"},
			},
		},
		"dumbbell": {
			dumbbellNodes, dumbbellLinks,
			map[string][]string{
				"a": {
					"10.0.1.3 at 02:00:00:00:01:03 dev eth0", "fd00:1::3 at 02:00:00:00:01:03 dev eth0",
					"10.0.2.0/24 via 10.0.1.3 dev eth0", "10.0.3.0/24 via 10.0.1.3 dev eth0",
					"10.0.4.0/24 via 10.0.1.3 dev eth0", "10.0.5.0/24 via 10.0.1.3 dev eth0",
					"fd00:2::/64 via fd00:1::3 dev eth0", "fd00:3::/64 via fd00:1::3 dev eth0",
					"fd00:4::/64 via fd00:1::3 dev eth0", "fd00:5::/64 via fd00:1::3 dev eth0",
				},
				"r2": {
					"10.0.3.3 at 02:00:00:00:03:03 dev eth0", "fd00:3::3 at 02:00:00:00:03:03 dev eth0",
					"10.0.4.5 at 02:00:00:00:04:05 dev eth1", "fd00:4::5 at 02:00:00:00:04:05 dev eth1",
					"10.0.5.6 at 02:00:00:00:05:06 dev eth2", "fd00:5::6 at 02:00:00:00:05:06 dev eth2",
					"10.0.1.0/24 via 10.0.3.3 dev eth0", "10.0.2.0/24 via 10.0.3.3 dev eth0",
					"fd00:1::/64 via fd00:3::3 dev eth0", "fd00:2::/64 via fd00:3::3 dev eth0",
				},
			},
		},
		"star with a switch": {
			"a b c s:switch", "a-s b-s c-s",
			map[string][]string{
				"a": {
					"10.0.1.2 at 02:00:00:00:02:02 dev eth0", "fd00:1::2 at 02:00:00:00:02:02 dev eth0",
					"10.0.1.3 at 02:00:00:00:03:03 dev eth0", "fd00:1::3 at 02:00:00:00:03:03 dev eth0",
				},
				"s": {"02:00:00:00:01:01 dev eth0", "02:00:00:00:02:02 dev eth1", "02:00:00:00:03:03 dev eth2"},
			},
		},
		"two switches": {
			"a s:switch t:switch b c", "a-s s-t t-b t-c",
			map[string][]string{
				"a": {
					"10.0.1.4 at 02:00:00:00:03:04 dev eth0", "fd00:1::4 at 02:00:00:00:03:04 dev eth0",
					"10.0.1.5 at 02:00:00:00:04:05 dev eth0", "fd00:1::5 at 02:00:00:00:04:05 dev eth0",
				},
				"s": {"02:00:00:00:01:01 dev eth0", "02:00:00:00:03:04 dev eth1", "02:00:00:00:04:05 dev eth1"},
				"t": {"02:00:00:00:01:01 dev eth0", "02:00:00:00:03:04 dev eth1", "02:00:00:00:04:05 dev eth2"},
			},
		},
		"an endpoint forwards nothing": {
			"a m b", "a-m m-b",
			map[string][]string{"a": {"10.0.1.2 at 02:00:00:00:01:02 dev eth0", "fd00:1::2 at 02:00:00:00:01:02 dev eth0"}},
		},
		"dual-homed": {
			"a r1:router r2:router b", "a-r1 a-r2 r1-b r2-b",
			map[string][]string{
				"a": {
					"10.0.1.2 at 02:00:00:00:01:02 dev eth0", "fd00:1::2 at 02:00:00:00:01:02 dev eth0",
					"10.0.2.3 at 02:00:00:00:02:03 dev eth1", "fd00:2::3 at 02:00:00:00:02:03 dev eth1",
					"10.0.3.0/24 via 10.0.1.2 dev eth0", "10.0.4.0/24 via 10.0.2.3 dev eth1",
					"fd00:3::/64 via fd00:1::2 dev eth0", "fd00:4::/64 via fd00:2::3 dev eth1",
				},
			},
		},
		"the shorter way round a ring": {
			"a r1:router r2:router r3:router r4:router b", "a-r1 r1-r2 r2-r3 r3-r4 r4-r1 r4-b",
			map[string][]string{
				"r1": {
					"10.0.1.1 at 02:00:00:00:01:01 dev eth0", "fd00:1::1 at 02:00:00:00:01:01 dev eth0",
					"10.0.2.3 at 02:00:00:00:02:03 dev eth1", "fd00:2::3 at 02:00:00:00:02:03 dev eth1",
					"10.0.5.5 at 02:00:00:00:05:05 dev eth2", "fd00:5::5 at 02:00:00:00:05:05 dev eth2",
					"10.0.3.0/24 via 10.0.2.3 dev eth1", "10.0.4.0/24 via 10.0.5.5 dev eth2", "10.0.6.0/24 via 10.0.5.5 dev eth2",
					"fd00:3::/64 via fd00:2::3 dev eth1", "fd00:4::/64 via fd00:5::5 dev eth2", "fd00:6::/64 via fd00:5::5 dev eth2",
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := New(sketch(test.nodes, test.links))
			if err != nil {
				t.Fatal(err)
			}
			got := told(plan)
			for node, want := range test.want {
				if diff := cmp.Diff(want, got[node]); diff != "" {
					t.Errorf("node %s (-want +got):\n%s", node, diff)
				}
			}
			again, err := New(sketch(test.nodes, test.links))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, told(again)); diff != "" {
				t.Errorf("the same lab again has another plan:\n%s", diff)
			}
		})
	}
}

// In a chain of routers every subnet is reached, whatever the length.
func TestChain(t *testing.T) {
	nodes, links := "n0", ""
	for i := 1; i <= 40; i++ {
		nodes += fmt.Sprintf(" n%d:router", i)
		links += fmt.Sprintf(" n%d-n%d", i-1, i)
	}
	plan, err := New(sketch(nodes, links))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range plan.Nodes {
		for _, other := range plan.Nodes {
			for _, iface := range other.Interfaces {
				for _, a := range iface.Addresses {
					if source, _ := n.source(a.Addr()); !source.IsValid() {
						t.Errorf("no route leads from %s to %s of %s", n.Name, a, other.Name)
					}
				}
			}
		}
		if got, most := len(n.Routes), 2*(40-len(n.Interfaces)); got > most {
			t.Errorf("node %s has %d routes, more than there are subnets: %d", n.Name, got, most)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		nodes, links string
		change       func(*tcplabv1.Lab)
		want         string
	}{
		"a node twice":           {"a a", "", nil, `two nodes are called "a"`},
		"a link twice":           {"a b", strings.Repeat("a-b ", 2), nil, `two links are called "a-b"`},
		"a loop of switches":     {"s:switch t:switch u:switch", "s-t t-u u-s", nil, "link u-s closes a loop of switches"},
		"two links of switches":  {"s:switch t:switch", "s-t t-s", nil, "link t-s closes a loop"},
		"an address twice":       {"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].B.Addresses[0] = "10.0.1.1/24" }, "address 10.0.1.1 is at both node a and node b"},
		"a subnet in two places": {"a b c", "a-b b-c", func(l *tcplabv1.Lab) { l.Links[1].B.Addresses[0] = "10.0.1.9/24" }, "subnet 10.0.1.0/24 is on two segments"},
		"an unknown node":        {"a b", "a-x", nil, `there is no node "x"`},
		"a link to itself":       {"a b", "a-a", nil, "both ends are at node a"},
		"no MAC address":         {"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Mac = "" }, "no MAC address"},
		"a group's MAC address":  {"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Mac = "01:00:5e:00:00:01" }, "no MAC address of one station"},
		"an address without length": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Addresses[0] = "10.0.1.1" },
			"link a-b: at node a: interface eth0",
		},
		"a multicast address": {"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Addresses[0] = "224.0.0.5/24" }, "no address for an interface"},
		"an address on a switch": {
			"a s:switch", "a-s", func(l *tcplabv1.Lab) { l.Links[0].B.Addresses = []string{"10.0.0.1/24"} },
			"a switch has no address",
		},
		"an interface twice": {"a b", "a-b b-a", func(l *tcplabv1.Lab) { l.Links[1].A.Interface = "eth0" }, `two interfaces are called "eth0"`},
		"an interface name with a slash": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Interface = "../x" },
			"no interface name",
		},
		"the loopback's name": {"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].A.Interface = "lo" }, "is taken"},
		"a sysctl of the machine": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Nodes[1].Sysctls = map[string]string{"kernel.panic": "1"} },
			`node b: sysctl "kernel.panic" is refused`,
		},
		"a sysctl that climbs": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Nodes[1].Sysctls = map[string]string{"net....kernel.panic": "1"} },
			"is refused",
		},
		"a sysctl with slashes": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Nodes[1].Sysctls = map[string]string{"net/../kernel/panic": "1"} },
			"is refused",
		},
		"a loss above 1": {
			"a b", "a-b", func(l *tcplabv1.Lab) { l.Links[0].Backward = &tcplabv1.Direction{Shape: &tcplabv1.Shape{Loss: 2}} },
			"link a-b: backward: loss: 2",
		},
		"a rate that is no number": {"a b", "a-b", func(l *tcplabv1.Lab) {
			l.Links[0].Forward = &tcplabv1.Direction{Shape: &tcplabv1.Shape{RateBps: math.NaN()}}
		}, "a rate of NaN bit/s"},
	} {
		t.Run(name, func(t *testing.T) {
			lab := sketch(test.nodes, test.links)
			if test.change != nil {
				test.change(lab)
			}
			if _, err := New(lab); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New: %v, want …%s…", err, test.want)
			}
		})
	}
}

func TestSysctls(t *testing.T) {
	lab := sketch("a r:router s:switch", "a-r r-s")
	lab.Nodes[0].Sysctls = map[string]string{
		"net.ipv4.tcp_sack": "0", "net.ipv4.conf.eth0.rp_filter": "1", "net.ipv4.tcp_no_metrics_save": "0",
	}
	plan, err := New(lab)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]map[string]string, 3)
	for i, n := range plan.Nodes {
		values[i] = map[string]string{}
		for _, s := range n.Sysctls {
			if _, twice := values[i][s.Name]; twice {
				t.Errorf("node %s: %s is set twice", n.Name, s.Name)
			}
			values[i][s.Name] = s.Value
		}
	}
	own := plan.Nodes[0].Sysctls
	want := []Sysctl{
		{Name: "net.ipv4.conf.eth0.rp_filter", Value: "1", Interface: "eth0"},
		{Name: "net.ipv4.tcp_no_metrics_save", Value: "0"},
		{Name: "net.ipv4.tcp_sack", Value: "0"},
	}
	if diff := cmp.Diff(want, slices.DeleteFunc(slices.Clone(own), func(s Sysctl) bool { return s.Default })); diff != "" {
		t.Errorf("the lab's own (-want +got):\n%s", diff)
	}
	for node, want := range map[int]string{0: "0", 1: "1", 2: ""} {
		for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
			if got := values[node][name]; got != want {
				t.Errorf("node %s: %s is %q, want %q", plan.Nodes[node].Name, name, got, want)
			}
		}
	}
	if got := values[2]["net.ipv6.conf.default.disable_ipv6"]; got != "1" {
		t.Errorf("the switch speaks IPv6: disable_ipv6 is %q", got)
	}
}

func TestDirections(t *testing.T) {
	lab := sketch("a b", "a-b")
	lab.Links[0].Forward = &tcplabv1.Direction{Seed: 7, Shape: &tcplabv1.Shape{
		RateBps: 1e9, Delay: durationpb.New(30 * time.Millisecond), Loss: 0.25,
	}}
	lab.Links[0].Backward = &tcplabv1.Direction{Shape: &tcplabv1.Shape{
		RateBps: 1e6, Delay: durationpb.New(10 * time.Millisecond),
		Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Time{Time: durationpb.New(time.Second)}},
	}}
	plan, err := New(lab)
	if err != nil {
		t.Fatal(err)
	}
	want := [2]link.Direction{
		// 1 Gbit/s × 40 ms = 5 MB = 3302.5 frames of 1514 bytes.
		{Seed: 7, Shape: link.Shape{Rate: 1e9, Delay: 30 * time.Millisecond, Loss: link.RandomLoss(0.25), Queue: link.Queue{Packets: 3303}}},
		{Shape: link.Shape{Rate: 1e6, Delay: 10 * time.Millisecond, Queue: link.Queue{Time: time.Second}}},
	}
	if diff := cmp.Diff(want, plan.Links[0].Directions); diff != "" {
		t.Errorf("directions (-want +got):\n%s", diff)
	}
	for _, d := range want {
		read, err := shapeOf(ShapeMessage(d.Shape))
		if diff := cmp.Diff(d.Shape, read); diff != "" || err != nil {
			t.Errorf("a shape differs after its way through a message (%v):\n%s", err, diff)
		}
	}
}
