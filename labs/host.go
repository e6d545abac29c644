package labs

import (
	"github.com/invopop/jsonschema"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// nodeStack says whose network stack a node is.
type nodeStack tcplabv1.NodeStack

func (v *nodeStack) read(d *decoder, n *node) { *v = nodeStack(d.choice(n, nodeStackChoices())) }

func (nodeStack) JSONSchema() *jsonschema.Schema { return choiceSchema(nodeStackChoices()) }

func nodeStackChoices() []string { return choices(tcplabv1.NodeStack(0).Descriptor(), "NODE_STACK_") }

// isOwn reports whether a node is a namespace of the lab's own, in which there is
// something to be made.
func isOwn(n *tcplabv1.Node) bool {
	switch n.GetStack() {
	case tcplabv1.NodeStack_NODE_STACK_HOST, tcplabv1.NodeStack_NODE_STACK_OUTSIDE:
		return false
	}
	return true
}

// hostLinks are the links at a host's own interfaces.
func hostLinks(lab *tcplabv1.Lab) map[*tcplabv1.Link]bool {
	foreign := make(map[string]bool)
	for _, n := range lab.GetNodes() {
		foreign[n.GetName()] = !isOwn(n)
	}
	found := make(map[*tcplabv1.Link]bool)
	for _, l := range lab.GetLinks() {
		if foreign[l.GetA().GetNode()] || foreign[l.GetB().GetNode()] {
			found[l] = true
		}
	}
	return found
}

// interfaces names the interfaces of a link's ends.
func (c *converter) interfaces(s *linkSpec, ends [2]*tcplabv1.LinkEnd, path string) {
	for _, of := range s.Interface {
		known := false
		for i, end := range ends {
			if end.GetNode() == of.key {
				known = true
				end.Interface = of.value
				c.from(&node{at: of.keyAt}, "%s.%s.interface", path, [2]string{"a", "b"}[i])
			}
		}
		if !known {
			c.add(of.keyAt, didYouMean(of.key, s.Between), "this link does not join a node %q", of.key)
		}
	}
}

// stack checks what a node says that is no namespace of the lab's own.
func (v *validation) stack(field string, n *tcplabv1.Node) {
	if isOwn(n) {
		return
	}
	switch n.GetKind() {
	case tcplabv1.NodeKind_NODE_KIND_ROUTER, tcplabv1.NodeKind_NODE_KIND_SWITCH:
		v.add(field+".kind", "leave its kind out", "%q is not of the lab's own making, and what it forwards is not the lab's to say", n.GetName())
	}
	if len(n.GetRoutes()) > 0 {
		v.add(field+".routes", "", "%q is not of the lab's own making, and its routes are its owner's", n.GetName())
	}
	if len(n.GetSysctls()) > 0 {
		v.add(field+".sysctls", "", "%q is not of the lab's own making, and its settings are its owner's", n.GetName())
	}
}

// hostLink checks a link of which an end is not of the lab's own making.
func (v *validation) hostLink(field string, l *tcplabv1.Link) {
	a, b := v.nodes[l.GetA().GetNode()], v.nodes[l.GetB().GetNode()]
	if a == nil || b == nil {
		return
	}
	const (
		host    = tcplabv1.NodeStack_NODE_STACK_HOST
		outside = tcplabv1.NodeStack_NODE_STACK_OUTSIDE
	)
	at := [2]string{field + ".a", field + ".b"}
	end, far := l.GetA(), l.GetB()
	switch {
	case a.GetStack() == host && b.GetStack() == outside:
	case a.GetStack() == outside && b.GetStack() == host:
		end, far = far, end
		at[0], at[1] = at[1], at[0]
	default:
		v.add(field, "link a node of stack host with one of stack outside", "the link joins %q and %q: a host's own stack is linked with what lies outside, by an interface that it has", a.GetName(), b.GetName())
		return
	}
	switch name := end.GetInterface(); {
	case name == "":
		v.add(at[0], "interface: {"+end.GetNode()+": eth1}", "which interface of %q the link shapes is missing", end.GetNode())
	case !interfaceName(name) && name != "lo":
		v.add(at[0]+".interface", "", "%q cannot be an interface's name", name)
	}
	if far.GetInterface() != "" {
		v.add(at[1]+".interface", "", "%q is outside: the lab has no interface there", far.GetNode())
	}
	for i, e := range []*tcplabv1.LinkEnd{end, far} {
		if len(e.GetAddresses()) > 0 || e.GetMac() != "" {
			v.add(at[i], "", "%q is not of the lab's own making, and has the addresses that it has", e.GetNode())
		}
	}
	if l.GetMtu() != 0 && l.GetMtu() != DefaultMTU {
		v.add(field+".mtu", "", "the MTU is that of the host's interface")
	}
	if l.HostMatch == nil {
		v.add(field, "match: {destination: 192.0.2.0/24, protocol: tcp, port: 443}", "which packets of the interface are shaped is missing: a host's interface is never shaped as a whole")
		return
	}
	if isNode(l.GetHostMatch()) {
		v.add(field+".host_match.destination", "such as 192.0.2.0/24", "%q is no prefix, and the lab knows no address outside", l.GetHostMatch().GetDestination())
		return
	}
	v.match(field+".host_match", l.GetHostMatch())
}

// foreignEnd refuses a flow that starts or ends at a node that is not of the lab's own making.
func (v *validation) foreignEnd(field string, n *tcplabv1.Node) {
	what := "outside, where no agent is"
	if n.GetStack() == tcplabv1.NodeStack_NODE_STACK_HOST {
		what = "the host's own stack"
	}
	v.add(field, "let flows run between nodes of the lab; the link shapes what other programs send", "%q is %s: no flow starts or ends there", n.GetName(), what)
}
