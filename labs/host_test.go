package labs

import (
	"testing"

	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// A link at a host's own interface says what is shaped there, and no address is made
// for it.
func TestHostLink(t *testing.T) {
	lab := expandAll(t, Source{Name: "lab.yaml", Content: []byte(`
name: host
nodes: {me: {stack: host}, world: {stack: outside}, a: {}, b: {}}
links:
  - between: [a, b]
  - between: [me, world]
    interface: {me: eth1}
    match: {destination: 192.0.2.0/24, protocol: tcp, port: 443}
    rtt: 80ms
experiments:
  - flows: [{name: f, bulk: {from: a, to: b, bytes: 1}}]
`)}, 1)[0]
	if err := Assign(lab, nil); err != nil {
		t.Fatal(err)
	}
	l := lab.GetLinks()[1]
	want := &tcplabv1.Match{Destination: "192.0.2.0/24", Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_TCP, Port: 443}
	if !proto.Equal(l.GetHostMatch(), want) {
		t.Errorf("match: %v", l.GetHostMatch())
	}
	if !proto.Equal(l.GetA(), &tcplabv1.LinkEnd{Node: "me", Interface: "eth1"}) || !proto.Equal(l.GetB(), &tcplabv1.LinkEnd{Node: "world"}) {
		t.Errorf("ends: %v, %v", l.GetA(), l.GetB())
	}
	if lab.GetNodes()[0].GetStack() != tcplabv1.NodeStack_NODE_STACK_HOST || lab.GetNodes()[1].GetStack() != tcplabv1.NodeStack_NODE_STACK_OUTSIDE {
		t.Errorf("nodes: %v", lab.GetNodes())
	}
}
