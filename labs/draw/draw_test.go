package draw

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func words(d *tcplabv1.Direction) string {
	if delay := d.GetShape().GetDelay().AsDuration(); delay > 0 {
		return "delay <" + delay.String() + ">"
	}
	return ""
}

func lab(t *testing.T, body string) *tcplabv1.Lab {
	t.Helper()
	file, err := labs.Parse(labs.Source{Content: []byte("name: test\n" + body + "\nexperiments: [{flows: [{name: up, bulk: {from: a, to: b, bytes: 1}}]}]")})
	if err != nil {
		t.Fatal(err)
	}
	points, err := file.Expand(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := labs.Assign(points[0], nil); err != nil {
		t.Fatal(err)
	}
	return points[0]
}

func TestText(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"chain": {"topology: {chain: {nodes: [a, r1, b], link: [{delay: 1ms}, {forward: {delay: 2ms}}]}}", `a
│  ⇄ delay <1ms>
r1 (router)
│  ▸ delay <2ms>
b
`},
		"two links of two nodes": {"nodes: [a, b]\nlinks: [{between: [a, b]}, {between: [a, b], backward: {delay: 1ms}}]", `a
├─ b, as elsewhere  ◂ delay <1ms>
└─ b
`},
		"dumbbell": {"topology: {dumbbell: {left: [a, c], right: [b, d[1-7]], bottleneck: {delay: 1ms}}}", `r2 (router)
├─ r1 (router)  ⇄ delay <1ms>
│  ├─ a
│  └─ c
├─ b
└─ d1 … d7 (7 endpoints)
`},
		"star of many": {"topology: {star: {leaves: [a, b, n[1-98]], access: {delay: 1ms}}}", `hub (switch)
├─ a  ⇄ delay <1ms>
├─ b  ⇄ delay <1ms>
└─ n1 … n98 (98 endpoints)  ⇄ delay <1ms>
`},
		"mesh": {"topology: {mesh: {nodes: [a, b, c]}}\nnodes: {lonely: {}}", `a
├─ b
│  └─ c, as elsewhere
└─ c
lonely
`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Text(lab(t, test.body), words); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// Each picture is well formed, and holds every node with its addresses and every direction that
// does something.
func TestSVG(t *testing.T) {
	for name, body := range map[string]string{
		"chain":    "topology: {chain: {nodes: [a, r[1-3], b], link: {delay: 1ms}}}\nnodes: [c]\nlinks: [{between: [c, r2]}]",
		"dumbbell": "topology: {dumbbell: {left: a, right: b}}",
		"star":     "topology: {star: {leaves: [a, b, n[1-98]]}}",
		"mesh":     "topology: [{mesh: {nodes: m[1-5], kind: router}}, {star: {hub: m1, kind: router, leaves: [a, b]}}]",
		"parallel": "nodes: [a, b]\nlinks: [{between: [a, b], forward: {delay: 3ms}}, {between: [a, b]}]",
		"lonely":   "nodes: [a, b, c]\nlinks: [{between: [a, b]}]",
	} {
		t.Run(name, func(t *testing.T) {
			l := lab(t, body)
			got := SVG(l, words)
			text := make(map[string]bool)
			for d := xml.NewDecoder(strings.NewReader(got)); ; {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if data, ok := token.(xml.CharData); ok {
					text[string(data)] = true
				}
			}
			for _, n := range l.GetNodes() {
				if !text[n.GetName()] {
					t.Errorf("no %s in it", n.GetName())
				}
			}
			if a := l.GetLinks()[0].GetA().GetAddresses(); !text[a[0]] {
				t.Errorf("no address %s in it", a[0])
			}
			if name == "chain" && !text["⇄ delay <1ms>"] || name == "parallel" && !text["→ delay <3ms>"] {
				t.Errorf("what the links do is not in it: %v", text)
			}
			if strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
				t.Error("a place in it is no number")
			}
		})
	}
}
