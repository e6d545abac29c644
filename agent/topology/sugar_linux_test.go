package topology_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// planned is the plan of a lab file with the given topology, and a flow between two of
// its nodes over IPv4 and IPv6.
func planned(t *testing.T, body, from, to string) (*topology.Plan, *tcplabv1.Lab) {
	t.Helper()
	content := fmt.Sprintf(`name: test
%s
experiments:
  - flows:
      - {name: four, bulk: {from: %s, to: %s, bytes: 200kB}}
      - {name: six, family: ipv6, bulk: {from: %[2]s, to: %[3]s, bytes: 200kB}}
`, body, from, to)
	file, err := labs.Parse(labs.Source{Name: "lab.yaml", Content: []byte(content)})
	if err != nil {
		t.Fatalf("%s\n%v", content, err)
	}
	points, err := file.Expand(nil)
	if err != nil {
		t.Fatalf("%s\n%v", content, err)
	}
	lab := points[0]
	if err := labs.Assign(lab, nil); err != nil {
		t.Fatal(err)
	}
	if err := labs.Validate(lab); err != nil {
		t.Fatal(err)
	}
	plan, err := topology.New(lab)
	if err != nil {
		t.Fatal(err)
	}
	return plan, lab
}

// randomTopology is one of those that a file may have, with two of its endpoints.
func randomTopology(random *rand.Rand) (body, from, to string) {
	n := 1 + random.IntN(9)
	middle := []string{"router", "switch"}[random.IntN(2)]
	switch random.IntN(4) {
	case 0:
		m := 1 + random.IntN(9)
		return fmt.Sprintf("topology: {dumbbell: {left: a[1-%d], right: [b[1-%d], c], kind: %s, bottleneck: {rate: 1Mbit}}}", n, m, middle), "a1", "c"
	case 1:
		return fmt.Sprintf("topology: {star: {leaves: [a, n[1-%d]], kind: %s, access: {delay: 1ms}}}", n, middle), "a", "n1"
	case 2:
		return fmt.Sprintf("topology: {chain: {nodes: [a, m[1-%d], b], kind: %s}}", n, middle), "a", "b"
	}
	return fmt.Sprintf("topology: [{mesh: {nodes: m[1-%d], kind: router}}, {star: {hub: m1, kind: router, leaves: a[1-2]}}]\nnodes: [b]\nlinks: [{between: [b, m%[1]d]}, {between: [b, m%[1]d]}]", n+1), "a1", "b"
}

// Whatever a topology makes is valid, and all its endpoints reach one another by the plan's
// routes, over IPv4 and IPv6.
func TestTopologiesReach(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		body, from, to := randomTopology(random)
		plan, _ := planned(t, body, from, to)
		for _, a := range plan.Nodes {
			for _, b := range plan.Nodes {
				if a.Name == b.Name || a.Kind == tcplabv1.NodeKind_NODE_KIND_SWITCH || b.Kind == a.Kind && a.Kind == tcplabv1.NodeKind_NODE_KIND_ROUTER || b.Kind == tcplabv1.NodeKind_NODE_KIND_SWITCH {
					continue
				}
				for _, v6 := range []bool{false, true} {
					if _, err := plan.Path(a.Name, b.Name, v6); err != nil {
						t.Fatalf("%s\n%v", body, err)
					}
				}
			}
		}
	}
}

// Flows cross what each topology builds.
func TestTopologiesCarry(t *testing.T) {
	need.NetNS(t)
	for name, test := range map[string]struct{ body, from, to string }{
		"dumbbell": {"topology: {dumbbell: {left: a[1-3], right: b[1-3]}}", "a1", "b3"},
		"star":     {"topology: {star: {leaves: n[1-4]}}", "n1", "n4"},
		"chain":    {"topology: {chain: {nodes: [a, r[1-4], b]}}", "a", "b"},
		"mesh":     {"topology: {mesh: {nodes: n[1-4]}}", "n1", "n4"},
		"a smaller MTU on the way": {
			"topology: {chain: {nodes: [a, r[1-2], b], link: [{mtu: 9000}, {mtu: 1280}, {mtu: 1500}]}}", "a", "b",
		},
		"many routes": {"topology: {chain: {nodes: [a, r[1-39], b]}}", "a", "b"},
		"the second of two links": {
			"nodes: {a: {routes: {b: second}}, b: {}}\nlinks: [{between: [a, b]}, {between: [a, b], name: second}]", "a", "b",
		},
		"the longer way": {
			"nodes: {a: {routes: {b: r1}}, b: {routes: {default: r2, a: r2}}, r1: {kind: router, routes: {b: r2}}, r2: {kind: router, routes: {a: r1}}}\n" +
				"links: [{between: [a, r1]}, {between: [r1, r2]}, {between: [r2, b]}, {between: [a, b], name: short}]", "a", "b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, lab := planned(t, test.body, test.from, test.to)
			engines := make([]link.Engine, len(plan.Links))
			for i := range engines {
				engines[i] = veth.Engine{}
			}
			s, err := topology.Build(t.Context(), plan, engines)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			for _, f := range lab.GetExperiments()[0].GetFlows() {
				path, err := plan.Path(test.from, test.to, f.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6)
				if err != nil {
					t.Fatal(err)
				}
				carry(t, s, f, path)
			}
			if name == "the second of two links" || name == "the longer way" {
				unused := map[string]int{"the second of two links": 0, "the longer way": 3}[name]
				counts, err := s.Links[unused].Counters()
				if err != nil {
					t.Fatal(err)
				}
				// The way back is the shortest, and acknowledgements are not half of it.
				if sent := counts[0].Received; sent > 20 {
					t.Errorf("%d frames went by the link %s, which no route leads over", sent, plan.Links[unused].Name)
				}
			}
		})
	}
}

func carry(t *testing.T, s *topology.Standing, f *tcplabv1.Flow, path topology.Path) {
	t.Helper()
	running, err := flow.New(f, flow.Config{
		Client: flow.End{Node: f.GetClient(), NS: s.Nodes[path.Client], Addr: path.Source},
		Server: flow.End{Node: f.GetServer(), NS: s.Nodes[path.Server], Addr: path.Destination},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := running.Run(t.Context())
	if err := running.Close(); err != nil {
		t.Error(err)
	}
	if result.GetError() != "" || result.GetBytes() != 200_000 {
		t.Errorf("flow %s: %d bytes arrived: %s", f.GetName(), result.GetBytes(), result.GetError())
	}
}

// A route in a circle, or one that leads nowhere, is refused before anything is built.
func TestRoutesThatDoNotArrive(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"a circle": {
			"topology: {chain: {nodes: [a, r[1-2], b]}}\nnodes: {r2: {routes: {b: r1}}, r1: {routes: {b: r2}}}", "round in a circle",
		},
		"given routes win": {
			"topology: {chain: {nodes: [a, r1, b]}}\nnodes: {x: {kind: router}, r1: {routes: {default: x}}}\nlinks: [{between: [r1, x]}]", "",
		},
	} {
		plan, _ := planned(t, test.body, "a", "b")
		_, err := plan.Path("a", "b", false)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want …%s…", name, err, test.want)
		}
	}
}
