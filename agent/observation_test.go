//go:build linux

package agent

import (
	"testing"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Each repetition has the states of its own connection, which its address tells.
func TestStatesOfRepetitions(t *testing.T) {
	end := func(address string) *tcplabv1.FlowEnd { return &tcplabv1.FlowEnd{Node: "client", Address: address} }
	f := &tcplabv1.FlowResult{Name: "up", Client: end(""), Repetitions: []*tcplabv1.FlowResult{
		{Name: "up", Client: end("10.0.0.1:40000")}, {Name: "up", Client: end("10.0.0.1:40001")}, {Name: "up", Client: end("10.0.0.1:40002")},
	}}
	socket := func(local, path string) *tcplabv1.SocketHistory {
		return &tcplabv1.SocketHistory{Local: local, Remote: "10.0.0.2:80", Flow: "up", End: "client", Path: path}
	}
	enterStates(f, []*tcplabv1.NodeSockets{{Node: "client", Sockets: []*tcplabv1.SocketHistory{
		socket("10.0.0.1:40000", "SYN_SENT CLOSE"), socket("10.0.0.1:40001", "SYN_SENT ESTABLISHED"),
	}}})
	got := []string{f.GetClient().GetStatePath()}
	for _, one := range f.GetRepetitions() {
		got = append(got, one.GetClient().GetStatePath())
	}
	for i, want := range []string{"SYN_SENT CLOSE", "SYN_SENT CLOSE", "SYN_SENT ESTABLISHED", ""} {
		if got[i] != want {
			t.Errorf("of the flow, and then of its repetitions: %q", got)
			break
		}
	}
}
