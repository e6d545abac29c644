package trace

import (
	"net/netip"
	"testing"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// A connection belongs to the flow whose server it went to, or one of whose streams or repetitions did; of two with
// the same server the client's address decides.
func TestFlowOf(t *testing.T) {
	one := func(name, client, server string) *tcplabv1.FlowResult {
		return &tcplabv1.FlowResult{Name: name, Client: &tcplabv1.FlowEnd{Address: client}, Server: &tcplabv1.FlowEnd{Address: server}}
	}
	streams := one("streams", "", "")
	streams.Streams = []*tcplabv1.FlowResult{one("streams", "10.0.0.1:40001", "10.0.0.2:81"), one("streams", "10.0.0.1:40002", "10.0.0.2:82")}
	again := one("again", "", "")
	again.Repetitions = []*tcplabv1.FlowResult{one("again", "10.0.0.1:40004", "10.0.0.2:81"), one("again", "10.0.0.1:40003", "10.0.0.2:83")}
	flows := []*tcplabv1.FlowResult{one("plain", "10.0.0.1:40000", "10.0.0.2:80"), streams, again}
	for _, c := range []struct{ client, server, want string }{
		{"10.0.0.1:40000", "10.0.0.2:80", "plain"},
		{"10.0.0.1:50000", "10.0.0.2:80", "plain"},
		{"10.0.0.1:40002", "10.0.0.2:82", "streams"},
		{"10.0.0.1:40004", "10.0.0.2:81", "again"},
		{"10.0.0.1:40005", "10.0.0.2:81", "streams"},
		{"10.0.0.1:40003", "10.0.0.2:83", "again"},
		{"10.0.0.1:40000", "10.0.0.2:84", ""},
	} {
		if got := FlowOf(netip.MustParseAddrPort(c.client), netip.MustParseAddrPort(c.server), flows); got != c.want {
			t.Errorf("%s to %s belongs to %q, want %q", c.client, c.server, got, c.want)
		}
	}
}
