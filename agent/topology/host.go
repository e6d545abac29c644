package topology

import (
	"errors"
	"fmt"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// foreign reports whether a node is not of the lab's own making.
func foreign(n *tcplabv1.Node) bool {
	switch n.GetStack() {
	case tcplabv1.NodeStack_NODE_STACK_HOST, tcplabv1.NodeStack_NODE_STACK_OUTSIDE:
		return true
	}
	return false
}

// hostLink reads a link at an interface of the host's own; nil: it is between
// namespaces.
func (p *Plan) hostLink(index map[string]int, l *tcplabv1.Link) (*HostLink, error) {
	ends := [2]*tcplabv1.LinkEnd{l.GetA(), l.GetB()}
	var is [2]bool
	for i, end := range ends {
		if at, ok := index[end.GetNode()]; ok {
			is[i] = p.Nodes[at].Foreign
		}
	}
	switch {
	case !is[0] && !is[1]:
		if l.HostMatch != nil {
			return nil, errors.New("it has a match, and is not between a host's own stack and outside")
		}
		return nil, nil
	case !is[0] || !is[1]:
		return nil, errors.New("a host's own stack is linked with what lies outside, and with no node of the lab's own making")
	case l.HostMatch == nil:
		return nil, errors.New("a host's interface is shaped for what a match selects, and never as a whole")
	}
	match, err := matchOf(l.GetHostMatch())
	if err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	host := &HostLink{Match: match}
	if ends[0].GetInterface() == "" {
		host.End = 1
	}
	if ends[host.End].GetInterface() == "" || ends[1-host.End].GetInterface() != "" {
		return nil, errors.New("it names one interface, the host's")
	}
	return host, nil
}
