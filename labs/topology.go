package labs

import (
	"reflect"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The usual topologies by a few words. Each stands for ordinary nodes and links,
// which the rest of the file may name, link to others, and say more of.

// topologySpec is one topology; exactly one field is set.
type topologySpec struct {
	At       *node         `yaml:"-"`
	Dumbbell *dumbbellSpec `yaml:"dumbbell" jsonschema_description:"Endpoints on two sides, whose traffic shares the one link between two middle nodes."`
	Star     *starSpec     `yaml:"star" jsonschema_description:"Endpoints around one node."`
	Chain    *chainSpec    `yaml:"chain" jsonschema_description:"Nodes one behind the other."`
	Mesh     *meshSpec     `yaml:"mesh" jsonschema_description:"Nodes each of which is linked to every other."`
}

type dumbbellSpec struct {
	At         *node     `yaml:"-"`
	Left       []string  `yaml:"left" jsonschema:"required,minItems=1" jsonschema_description:"The endpoints on the left: names and ranges (client[1-3])."`
	Right      []string  `yaml:"right" jsonschema:"required,minItems=1" jsonschema_description:"The endpoints on the right."`
	Middle     []string  `yaml:"middle" jsonschema_description:"The two nodes in the middle, the left one first. Default: [r1, r2]."`
	Kind       *nodeKind `yaml:"kind" jsonschema_description:"What the nodes in the middle are: router (default) or switch."`
	Access     wireList  `yaml:"access" jsonschema_description:"What the links between the endpoints and the middle do; forward leads to the middle. One for all, or a list of one for each endpoint of a side."`
	Bottleneck wire      `yaml:"bottleneck" jsonschema_description:"What the link in the middle does; forward leads from left to right."`
}

type starSpec struct {
	At     *node     `yaml:"-"`
	Hub    string    `yaml:"hub" jsonschema_description:"The node in the middle. Default: hub."`
	Kind   *nodeKind `yaml:"kind" jsonschema_description:"What the hub is: switch (default), router or endpoint."`
	Leaves []string  `yaml:"leaves" jsonschema:"required,minItems=1" jsonschema_description:"The endpoints around it: names and ranges (node[1-10])."`
	Access wireList  `yaml:"access" jsonschema_description:"What the links do; forward leads to the hub. One for all, or a list of one for each leaf."`
}

type chainSpec struct {
	At    *node     `yaml:"-"`
	Nodes []string  `yaml:"nodes" jsonschema:"required,minItems=1" jsonschema_description:"The nodes from one end to the other: names and ranges."`
	Kind  *nodeKind `yaml:"kind" jsonschema_description:"What the nodes between the ends are: router (default) or switch."`
	Link  wireList  `yaml:"link" jsonschema_description:"What the links do; forward leads on along the chain. One for all, or a list of one for each."`
}

type meshSpec struct {
	At    *node     `yaml:"-"`
	Nodes []string  `yaml:"nodes" jsonschema:"required,minItems=1" jsonschema_description:"The nodes: names and ranges."`
	Kind  *nodeKind `yaml:"kind" jsonschema_description:"What the nodes are: endpoint (default) or router."`
	Link  wireList  `yaml:"link" jsonschema_description:"What the links do; forward leads from the node named first."`
}

// topologyList is one topology or a list of them.
type topologyList []topologySpec

func (v *topologyList) read(d *decoder, n *node) {
	items := n.items
	if n.kind != sequence {
		items = []*node{n}
	}
	for _, item := range items {
		var t topologySpec
		d.decode(item, reflect.ValueOf(&t).Elem())
		*v = append(*v, t)
	}
}

// wire is all that a link has but its nodes, its name, its addresses and its interfaces, which
// the topology gives: whatever a link can do, a topology's can.
type wire struct {
	spec linkSpec
}

// wireKeys are those of a link that a topology's has not.
func wireKeys() []string { return []string{"between", "name", "addresses", "interface"} }

func (v *wire) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "such as {delay: 1ms, rate: 1Gbit}", "want a mapping of what the link does, not %s", n.describe())
		return
	}
	full := *n
	full.pairs = []pair{{key: "between", at: n.at, value: &node{at: n.at, kind: sequence, items: []*node{
		{at: n.at, kind: text, text: "a"}, {at: n.at, kind: text, text: "b"},
	}}}}
	for _, p := range n.pairs {
		if slices.Contains(wireKeys(), p.key) {
			d.add(p.at, "", "the topology gives its links their %s", map[string]string{"between": "nodes", "name": "names", "addresses": "addresses", "interface": "interfaces"}[p.key])
			continue
		}
		full.pairs = append(full.pairs, p)
	}
	d.decode(&full, reflect.ValueOf(&v.spec).Elem())
}

// link is the wire between two nodes; at is where the topology names them.
func (v *wire) link(a, b string, at *node) linkSpec {
	l := v.spec
	if l.At == nil {
		l.At = &node{at: at.at, kind: mapping, pairs: []pair{{key: "between", at: at.at, value: &node{at: at.at, kind: sequence}}}}
	}
	l.Between = []string{a, b}
	return l
}

// wireList is one wire for all links, or one for each.
type wireList struct {
	at    *node
	wires []wire
	each  bool
}

func (v *wireList) read(d *decoder, n *node) {
	v.at = n
	items := n.items
	if v.each = n.kind == sequence; !v.each {
		items = []*node{n}
	}
	for _, item := range items {
		var w wire
		w.read(d, item)
		v.wires = append(v.wires, w)
	}
}

// wire is that of the i-th link.
func (v *wireList) wire(i int) *wire {
	switch {
	case v.each && i < len(v.wires):
		return &v.wires[i]
	case !v.each && len(v.wires) > 0:
		return &v.wires[0]
	}
	return &wire{}
}

// fits reports a list that is not as long as there are links.
func (r *report) fits(v wireList, n int, of string) {
	if v.each && len(v.wires) != n {
		r.add(v.at.at, "give one for all, or a list of one for each", "the list is of %s, but there are %d %s", describeCount(len(v.wires), "link"), n, of)
	}
}

// expandTopology is the nodes and links that a topology stands for.
func (r *report) expandTopology(t *topologySpec) (nodeList, []linkSpec) {
	set := 0
	for _, is := range []bool{t.Dumbbell != nil, t.Star != nil, t.Chain != nil, t.Mesh != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		if t.At != nil {
			r.add(t.At.at, "dumbbell, star, chain or mesh; for several write a list", "a topology is one of them, not %d", set)
		}
		return nil, nil
	}
	before := len(r.problems)
	var nodes nodeList
	var links []linkSpec
	switch {
	case t.Dumbbell != nil:
		nodes, links = r.dumbbell(t.Dumbbell)
	case t.Star != nil:
		nodes, links = r.star(t.Star)
	case t.Chain != nil:
		nodes, links = r.chain(t.Chain)
	case t.Mesh != nil:
		nodes, links = r.mesh(t.Mesh)
	}
	if len(r.problems) > before {
		return nil, nil
	}
	return nodes, links
}

// members are the nodes that a key names, of a kind.
func (r *report) members(spec *node, key string, names []string, kind tcplabv1.NodeKind) nodeList {
	var out nodeList
	list := spec.get(key)
	for i, s := range names {
		at := list.item(i)
		if at == nil {
			at = spec
		}
		for _, name := range r.namesOf(at.at, s) {
			out = append(out, namedNode{name: name.name, at: &node{at: at.at}, spec: nodeSpec{Kind: kindOf(kind)}})
		}
		if len(out) > maxNames {
			r.add(at.at, "", "the lab has more than %d nodes", maxNames)
			return nil
		}
	}
	return out
}

// oneOf is the kind that the topology's own nodes are asked to have, the first
// of those that it may be by default.
func (r *report) oneOf(spec *node, asked *nodeKind, may ...tcplabv1.NodeKind) tcplabv1.NodeKind {
	if asked == nil || *asked == 0 {
		return may[0]
	}
	kind := tcplabv1.NodeKind(*asked)
	if !slices.Contains(may, kind) {
		words := make([]string, len(may))
		for i, k := range may {
			words[i] = nodeKindChoices()[k-1]
		}
		r.add(spec.get("kind").at, "", "here the kind is %s, not %s", strings.Join(words, " or "), nodeKindChoices()[kind-1])
	}
	return kind
}

const (
	endpoint   = tcplabv1.NodeKind_NODE_KIND_ENDPOINT
	router     = tcplabv1.NodeKind_NODE_KIND_ROUTER
	switchKind = tcplabv1.NodeKind_NODE_KIND_SWITCH
)

func (r *report) dumbbell(s *dumbbellSpec) (nodeList, []linkSpec) {
	if s.Middle == nil {
		s.Middle = []string{"r1", "r2"}
	}
	left := r.members(s.At, "left", s.Left, endpoint)
	right := r.members(s.At, "right", s.Right, endpoint)
	middle := r.members(s.At, "middle", s.Middle, r.oneOf(s.At, s.Kind, router, switchKind))
	if len(middle) != 2 {
		r.add(s.At.get("middle").at, "the left one first", "a dumbbell has two nodes in the middle, not %d", len(middle))
		return nil, nil
	}
	r.fits(s.Access, len(left), "nodes on the left")
	r.fits(s.Access, len(right), "nodes on the right")
	var links []linkSpec
	for i, n := range left {
		links = append(links, s.Access.wire(i).link(n.name, middle[0].name, n.at))
	}
	links = append(links, s.Bottleneck.link(middle[0].name, middle[1].name, s.At))
	for i, n := range right {
		links = append(links, s.Access.wire(i).link(n.name, middle[1].name, n.at))
	}
	return slices.Concat(left, middle, right), links
}

func (r *report) star(s *starSpec) (nodeList, []linkSpec) {
	if s.Hub == "" {
		s.Hub = "hub"
	}
	hub := r.members(s.At, "hub", []string{s.Hub}, r.oneOf(s.At, s.Kind, switchKind, router, endpoint))
	leaves := r.members(s.At, "leaves", s.Leaves, endpoint)
	if len(hub) != 1 {
		r.add(s.At.get("hub").at, "", "a star has one hub, not %d", len(hub))
		return nil, nil
	}
	r.fits(s.Access, len(leaves), "leaves")
	var links []linkSpec
	for i, n := range leaves {
		links = append(links, s.Access.wire(i).link(n.name, hub[0].name, n.at))
	}
	return slices.Concat(hub, leaves), links
}

func (r *report) chain(s *chainSpec) (nodeList, []linkSpec) {
	nodes := r.members(s.At, "nodes", s.Nodes, r.oneOf(s.At, s.Kind, router, switchKind))
	if len(nodes) < 2 {
		r.add(s.At.get("nodes").at, "such as [client, r[1-3], server]", "a chain has two nodes at least, not %d", len(nodes))
		return nil, nil
	}
	nodes[0].spec.Kind, nodes[len(nodes)-1].spec.Kind = kindOf(endpoint), kindOf(endpoint)
	r.fits(s.Link, len(nodes)-1, "links")
	var links []linkSpec
	for i, n := range nodes[1:] {
		links = append(links, s.Link.wire(i).link(nodes[i].name, n.name, n.at))
	}
	return nodes, links
}

func (r *report) mesh(s *meshSpec) (nodeList, []linkSpec) {
	nodes := r.members(s.At, "nodes", s.Nodes, r.oneOf(s.At, s.Kind, endpoint, router))
	n := len(nodes) * (len(nodes) - 1) / 2
	switch {
	case len(nodes) < 2:
		r.add(s.At.get("nodes").at, "such as n[1-4]", "a mesh has two nodes at least, not %d", len(nodes))
		return nil, nil
	case n > maxLinks:
		r.add(s.At.get("nodes").at, "", "a mesh of %d nodes has %d links, more than %d", len(nodes), n, maxLinks)
		return nil, nil
	}
	r.fits(s.Link, n, "links")
	links := make([]linkSpec, 0, n)
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			links = append(links, s.Link.wire(len(links)).link(a.name, b.name, b.at))
		}
	}
	return nodes, links
}
