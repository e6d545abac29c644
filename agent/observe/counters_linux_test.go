package observe

import (
	"net"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestCountersAreTheNamespaces(t *testing.T) {
	need.NetNS(t)
	var nodes [2]*netns.Handle
	for i := range nodes {
		ns, err := netns.New("node")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		nodes[i] = ns
	}
	before, other := count(t, nodes[0]), count(t, nodes[1])
	for _, name := range []string{"TcpActiveOpens", "TcpExtDelayedACKs", "TcpOutRsts", "IpInReceives", "Ip6InReceives", "IpExtInOctets", "SockstatTCPTw", "SockstatTCP6Inuse"} {
		if _, ok := before[name]; !ok {
			t.Errorf("no %s", name)
		}
	}
	err := nodes[0].Do(func() error {
		for range 3 {
			// Nothing listens there: each is an attempt that fails.
			if conn, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
				conn.Close()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := Delta(before, count(t, nodes[0])); got["TcpActiveOpens"] != 3 || got["TcpAttemptFails"] != 3 || got["TcpOutRsts"] != 3 || got["TcpCurrEstab"] != 0 {
		t.Errorf("three refused connections: %v", got)
	}
	for name, n := range Delta(other, count(t, nodes[1])) {
		if n != 0 && !gauge(name) {
			t.Errorf("the other node, which was idle, counted %d of %s", n, name)
		}
	}
}

func count(t *testing.T, ns *netns.Handle) Counters {
	t.Helper()
	c, err := ReadCounters(ns)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
