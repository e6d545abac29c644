package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tcplab/tcplab/agent/link"
)

const all = `# what docs/host-interfaces.md shows
interfaces:
  loopback: true
  default_route: true
  only: [eth1, lo]
never_shape:
  - {destination: 192.0.2.7, protocol: tcp, port: 8443}
  - {destination: "2001:db8::/32"}
  - {protocol: udp, port: 51820}
exec:
  user: nobody
sysctls:
  only: [net.ipv4.tcp_rmem]
limits:
  spool: 1GiB
  rate: 10Gbit
`

// A host that is commanded from elsewhere permits nothing that its owner has not; one that is not, what the
// person who runs the lab could do anyway.
func TestCommanded(t *testing.T) {
	for name, test := range map[string]struct {
		policy                     Policy
		nobody, root, iface, spool bool
	}{
		"not commanded":    {Policy{}, true, true, true, false},
		"commanded":        {Policy{Commanded: true}, false, false, false, true},
		"nobody permitted": {Policy{Commanded: true, Exec: Nobody}, true, false, false, true},
		"root permitted":   {Policy{Commanded: true, Exec: Root}, true, true, false, true},
		"eth1 permitted":   {Policy{Commanded: true, Only: []string{"eth1"}}, false, false, true, true},
	} {
		if got := test.policy.AllowPrograms(Nobody) == nil; got != test.nobody {
			t.Errorf("%s: programs as nobody: %v", name, got)
		}
		if got := test.policy.AllowPrograms(Root) == nil; got != test.root {
			t.Errorf("%s: programs as root: %v", name, got)
		}
		if got := test.policy.Allow(Interface{Name: "eth1"}) == nil; got != test.iface {
			t.Errorf("%s: eth1: %v", name, got)
		}
		if got := test.policy.Spool() > 0; got != test.spool {
			t.Errorf("%s: the spool is bounded: %v", name, got)
		}
	}
	limited := Policy{Sysctls: []string{"a"}, MaxRate: 1e6}
	if limited.AllowSysctl("a") != nil || limited.AllowSysctl("b") == nil || (Policy{}).AllowSysctl("b") != nil {
		t.Error("sysctls")
	}
	if limited.AllowRate(1e6) != nil || limited.AllowRate(2e6) == nil || limited.AllowRate(0) == nil || (Policy{}).AllowRate(0) != nil {
		t.Error("rates")
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want Policy
		err  string
	}{
		"everything": {all, Policy{
			Loopback: true, DefaultRoute: true, Only: []string{"eth1", "lo"},
			Never: []link.Match{
				{Destination: netip.MustParsePrefix("192.0.2.7/32"), Protocol: link.TCP, Port: 8443},
				{Destination: netip.MustParsePrefix("2001:db8::/32")},
				{Protocol: link.UDP, Port: 51820},
			},
			Exec: Nobody, Sysctls: []string{"net.ipv4.tcp_rmem"},
			MaxSpool: 1 << 30, MaxRate: 1e10,
		}, ""},
		"another user":        {"exec: {user: www-data}\n", Policy{}, "agent.yaml:1:14: programs run as nobody or root"},
		"no size":             {"limits: {spool: 5s}\n", Policy{}, "agent.yaml:1:17: \"5s\" is not "},
		"a rate of nothing":   {"limits:\n  rate: 0bit\n", Policy{}, "agent.yaml:2:9: "},
		"nothing":             {"", Policy{}, ""},
		"comments alone":      {"# nothing permitted\n", Policy{}, ""},
		"an unknown key":      {"interfaces:\n  loopbak: true\n", Policy{}, "agent.yaml:2:3: unknown field \"loopbak\""},
		"a key twice":         {"interfaces: {}\ninterfaces: {}\n", Policy{}, "agent.yaml:2:1: "},
		"no truth":            {"interfaces:\n  loopback: maybe\n", Policy{}, "agent.yaml:2:13: "},
		"no address":          {"never_shape:\n  - destination: 192.0.2\n", Policy{}, `agent.yaml:2:18: "192.0.2" is neither an address nor a prefix`},
		"bits behind":         {"never_shape:\n  - destination: 192.0.2.7/24\n", Policy{}, "agent.yaml:2:18: 192.0.2.7/24 has bits behind its prefix: write 192.0.2.0/24"},
		"no protocol":         {"never_shape:\n  - protocol: tpc\n", Policy{}, `agent.yaml:2:15: no protocol is called "tpc"`},
		"no port":             {"never_shape:\n  - port: 70000\n", Policy{}, "agent.yaml:2:11: "},
		"an empty item":       {"never_shape:\n  - {}\n", Policy{}, "item 1 names no traffic"},
		"a port without them": {"never_shape:\n  - {protocol: icmp, port: 1}\n", Policy{}, "icmp has no ports"},
		"two documents":       {"interfaces: {}\n---\ninterfaces: {}\n", Policy{}, "more than one document"},
		"no YAML":             {"interfaces: [\n", Policy{}, "agent.yaml:"},
		"too long":            {strings.Repeat("#\n", maxSize), Policy{}, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("agent.yaml", []byte(test.text))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("Parse: %v, want %q in it", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(Policy{}, "Path"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	eth1 := Interface{Name: "eth1"}
	lo := Interface{Name: "lo", Loopback: true}
	eth0 := Interface{Name: "eth0", DefaultRoute: true}
	for name, test := range map[string]struct {
		policy Policy
		asked  Interface
		err    string
	}{
		"an ordinary interface":      {Policy{}, eth1, ""},
		"the loopback":               {Policy{}, lo, "interfaces.loopback: true in " + DefaultPath},
		"the loopback, permitted":    {Policy{Loopback: true}, lo, ""},
		"the default route":          {Policy{}, eth0, "interfaces.default_route: true in " + DefaultPath},
		"the default route, allowed": {Policy{DefaultRoute: true}, eth0, ""},
		"one not listed":             {Policy{Only: []string{"eth2"}, Path: "/p"}, eth1, "interfaces.only in /p"},
		"a list permits no more":     {Policy{Only: []string{"lo"}}, lo, "interfaces.loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.policy.Allow(test.asked)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("Allow: %v, want %q in it", err, test.err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(all)
	f.Add("never_shape:\n  - {destination: &a 1.2.3.4, port: *a}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("agent.yaml", []byte(text))
		if err != nil {
			return
		}
		for _, n := range p.Never {
			if n == (link.Match{}) {
				t.Errorf("%q keeps nothing in particular", text)
			}
		}
	})
}
