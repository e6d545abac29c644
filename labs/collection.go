package labs

import "reflect"

// nodeList are the nodes of a lab: a list of names, or a mapping from names to
// what they are. Both keep the file's order.
type nodeList []namedNode

type namedNode struct {
	name string
	at   *node // where the name stands
	spec nodeSpec
}

func (v *nodeList) read(d *decoder, n *node) {
	switch n.kind {
	case sequence:
		for _, item := range n.items {
			if item.kind == mapping {
				d.add(item.at, "write {client: {}, r1: {kind: router}}", "want a name; nodes with properties are a mapping, not a list")
				continue
			}
			if name, ok := d.scalar(item, "a node's name"); ok {
				*v = append(*v, namedNode{name: name, at: item})
			}
		}
	case mapping:
		for _, p := range n.pairs {
			named := namedNode{name: p.key, at: &node{at: p.at, text: p.key}}
			if p.value.kind != null {
				d.decode(p.value, reflect.ValueOf(&named.spec).Elem())
			}
			*v = append(*v, named)
		}
	default:
		d.add(n.at, "such as [client, server]", "want a list or a mapping of nodes, not %s", n.describe())
	}
}

// textMap is a mapping of texts, in the file's order.
type textMap []textPair

type textPair struct {
	key, value string
	at         *node // of the value
	keyAt      position
}

func (v *textMap) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "", "want a mapping, not %s", n.describe())
		return
	}
	for _, p := range n.pairs {
		if s, ok := d.scalar(p.value, "a value"); ok {
			*v = append(*v, textPair{key: p.key, value: s, at: p.value, keyAt: p.at})
		}
	}
}

// addressMap holds the addresses of a link's nodes, in the file's order.
type addressMap []nodeAddresses

type nodeAddresses struct {
	node      string
	at        position // of the node's name
	value     *node
	addresses []string
}

func (v *addressMap) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "such as {client: 10.1.0.1/24, server: 10.1.0.2/24}", "want a mapping from nodes to addresses, not %s", n.describe())
		return
	}
	for _, p := range n.pairs {
		of := nodeAddresses{node: p.key, at: p.at, value: p.value}
		d.decode(p.value, reflect.ValueOf(&of.addresses).Elem())
		*v = append(*v, of)
	}
}
