package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHosts(t *testing.T) {
	plan, err := New(sketch("a s:switch b r:router c", "a-s s-b b-r r-c a-c"))
	if err != nil {
		t.Fatal(err)
	}
	const local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for node, want := range map[int]string{
		// c by the direct link, though its first interface is on another.
		0: "10.0.1.1 a\n10.0.5.1 a\nfd00:1::1 a\nfd00:5::1 a\n" +
			"10.0.1.3 b\n10.0.3.3 b\nfd00:1::3 b\nfd00:3::3 b\n" +
			"10.0.3.4 r\n10.0.4.4 r\nfd00:3::4 r\nfd00:4::4 r\n" +
			"10.0.5.5 c\n10.0.4.5 c\nfd00:5::5 c\nfd00:4::5 c\n",
	} {
		got := strings.ReplaceAll(plan.Hosts(node), "\t", " ")
		if diff := cmp.Diff(local+want, got); diff != "" {
			t.Errorf("of %s (-want +got)\n%s", plan.Nodes[node].Name, diff)
		}
	}
}
