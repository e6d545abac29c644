package labs

import (
	"fmt"
	"strings"
	"testing"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// outline is a lab's nodes, links and flows, a line each.
func outline(lab *tcplabv1.Lab) string {
	var b strings.Builder
	for _, n := range lab.GetNodes() {
		fmt.Fprintf(&b, "%s %s\n", n.GetName(), nodeKindChoices()[n.GetKind()-1])
	}
	for _, l := range lab.GetLinks() {
		fmt.Fprintf(&b, "%s: %s %s", l.GetName(), l.GetA().GetNode(), l.GetB().GetNode())
		for _, d := range []*tcplabv1.Direction{l.GetForward(), l.GetBackward()} {
			fmt.Fprintf(&b, " %v/%v", d.GetShape().GetDelay().AsDuration(), d.GetShape().GetRateBps())
		}
		b.WriteString("\n")
	}
	for _, e := range lab.GetExperiments() {
		for _, f := range e.GetFlows() {
			fmt.Fprintf(&b, "%s: %s > %s\n", f.GetName(), f.GetClient(), f.GetServer())
		}
	}
	return b.String()
}

func TestTopologies(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"dumbbell": {
			`topology: {dumbbell: {left: a[1-2], right: b[1-2], access: [{delay: 1ms}, {delay: 2ms}], bottleneck: {rate: 10Mbit, forward: {delay: 5ms}}}}
experiments: [{flows: [{name: up, bulk: {from: "a[1-2]", to: "b[1-2]", bytes: 1}}]}]`,
			`a1 endpoint
a2 endpoint
r1 router
r2 router
b1 endpoint
b2 endpoint
a1-r1: a1 r1 1ms/0 1ms/0
a2-r1: a2 r1 2ms/0 2ms/0
r1-r2: r1 r2 5ms/1e+07 0s/1e+07
b1-r2: b1 r2 1ms/0 1ms/0
b2-r2: b2 r2 2ms/0 2ms/0
up1: a1 > b1
up2: a2 > b2
`,
		},
		"star": {
			`topology: {star: {leaves: [n[08-10], x], access: {rate: 1Mbit}}}
nodes: {n09: {kind: router}, extra: {}}
links: [{between: [extra, n09]}]
experiments: [{flows: [{name: up, transaction: {from: n[08-10], to: x, writes: 1, reply: 1}}, {name: one, bulk: {from: extra, to: x, bytes: 1}}]}]`,
			`hub switch
n08 endpoint
n09 router
n10 endpoint
x endpoint
extra endpoint
n08-hub: n08 hub 0s/1e+06 0s/1e+06
n09-hub: n09 hub 0s/1e+06 0s/1e+06
n10-hub: n10 hub 0s/1e+06 0s/1e+06
x-hub: x hub 0s/1e+06 0s/1e+06
extra-n09: extra n09 0s/0 0s/0
up08: n08 > x
up09: n09 > x
up10: n10 > x
one: extra > x
`,
		},
		"chain": {
			`topology: [{chain: {nodes: [c, r[1-2], s], link: [{delay: 1ms}, {rate: 1Mbit}, {delay: 3ms}]}}]
experiments: [{flows: [{name: up, bulk: {from: c, to: s, bytes: 1}}]}]`,
			`c endpoint
r1 router
r2 router
s endpoint
c-r1: c r1 1ms/0 1ms/0
r1-r2: r1 r2 0s/1e+06 0s/1e+06
r2-s: r2 s 3ms/0 3ms/0
up: c > s
`,
		},
		"mesh": {
			`topology: {mesh: {nodes: n[1-3], link: {delay: 1ms}}}
nodes: [c]
links: [{between: [c, n[1-3]], name: up}]
experiments: [{flows: [{name: down, bulk: {from: n[1-2], to: c, bytes: 1}}]}]`,
			`n1 endpoint
n2 endpoint
n3 endpoint
c endpoint
n1-n2: n1 n2 1ms/0 1ms/0
n1-n3: n1 n3 1ms/0 1ms/0
n2-n3: n2 n3 1ms/0 1ms/0
up1: c n1 0s/0 0s/0
up2: c n2 0s/0 0s/0
up3: c n3 0s/0 0s/0
down1: n1 > c
down2: n2 > c
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := expandAll(t, Source{Name: "lab.yaml", Content: []byte("name: test\n" + test.file)}, 1)[0]
			if got := outline(lab); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// Parameters reach into ranges and topologies.
func TestRangeOfParameter(t *testing.T) {
	labs := expandAll(t, Source{Name: "lab.yaml", Content: []byte(`name: test
params: {n: [2, 3], rtt: 20ms}
topology: {dumbbell: {left: [a[1-${n}]], right: b[1-${n}], bottleneck: {rtt: ${rtt}}}}
experiments: [{flows: [{name: up, bulk: {from: a[1-${n}], to: b[1-${n}], bytes: 1}}]}]`)}, 2)
	for i, lab := range labs {
		if got, want := len(lab.GetNodes()), 2*(i+2)+2; got != want {
			t.Errorf("point %d has %d nodes, want %d", i, got, want)
		}
		if got, want := len(lab.GetExperiments()[0].GetFlows()), i+2; got != want {
			t.Errorf("point %d has %d flows, want %d", i, got, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"client[1-10]", "a[01-3]b", "[1-2]", "x[2-1]", "x[1-2][3-4]", "[", "a[999999999-0]", "a[0-999999999]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := &report{}
		names := r.namesOf(position{file: "f", line: 1, column: 1}, s)
		if (len(names) == 0) != (r.err() != nil) || len(names) > maxNames {
			t.Fatalf("%q: %d names, %v", s, len(names), r.err())
		}
		seen := make(map[string]bool)
		for _, n := range names {
			if seen[n.name] {
				t.Fatalf("%q has %q twice", s, n.name)
			}
			seen[n.name] = true
		}
		if mark(unmark(mark(s))) != mark(s) && !strings.ContainsAny(s, openMark+closeMark+openBracketMark+closeBracketMark) {
			t.Fatalf("%q is not marked back and forth", s)
		}
	})
}
