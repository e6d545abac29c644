package topology

import "testing"

func TestPath(t *testing.T) {
	for name, test := range map[string]struct {
		nodes, links, from, to string
		v6                     bool
		source, destination    string // empty: there is none
	}{
		"across a link":           {"a b", "a-b", "a", "b", false, "10.0.1.1", "10.0.1.2"},
		"across a link, IPv6":     {"a b", "a-b", "b", "a", true, "fd00:1::2", "fd00:1::1"},
		"across a dumbbell":       {dumbbellNodes, dumbbellLinks, "b", "d", false, "10.0.2.2", "10.0.5.6"},
		"across a switch":         {"a s:switch b", "a-s s-b", "a", "b", false, "10.0.1.1", "10.0.1.3"},
		"not through an endpoint": {"a m b", "a-m m-b", "a", "b", false, "", ""},
		"to itself":               {"a b", "a-b", "a", "a", false, "", ""},
		"to a switch":             {"a s:switch", "a-s", "a", "s", false, "", ""},
		"to nobody":               {"a b", "a-b", "a", "c", false, "", ""},
		"without a link":          {"a b", "", "a", "b", false, "", ""},
		"the direct link first":   {"a r:router b", "a-r r-b a-b", "a", "b", false, "10.0.3.1", "10.0.3.3"},
		"from the second home":    {"a x r:router b", "a-x a-r r-b", "a", "b", true, "fd00:2::1", "fd00:3::4"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := New(sketch(test.nodes, test.links))
			if err != nil {
				t.Fatal(err)
			}
			path, err := plan.Path(test.from, test.to, test.v6)
			if test.source == "" {
				if err == nil {
					t.Errorf("a path from %s to %s", path.Source, path.Destination)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if path.Source.String() != test.source || path.Destination.String() != test.destination {
				t.Errorf("from %s to %s, want from %s to %s", path.Source, path.Destination, test.source, test.destination)
			}
			if got := plan.Nodes[path.Client].Name + plan.Nodes[path.Server].Name; got != test.from+test.to {
				t.Errorf("nodes %q", got)
			}
		})
	}
}
