package host

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func probe(t *testing.T) map[string]*tcplabv1.Capability {
	t.Helper()
	h, err := Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*tcplabv1.Capability{}
	for _, c := range h.GetCapabilities() {
		if all[c.GetName()] != nil {
			t.Errorf("%s is reported twice", c.GetName())
		}
		all[c.GetName()] = c
		t.Logf("%-10s %-20s %-10s %s", c.GetGroup(), c.GetName(), strings.TrimPrefix(c.GetState().String(), "CAPABILITY_STATE_"), c.GetDetail())
	}
	return all
}

// Every capability says in words what was found, and what to do where it is
// missing; and only there.
func TestWords(t *testing.T) {
	for name, c := range probe(t) {
		present := c.GetState() == tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT
		if c.GetState() == 0 || c.GetGroup() == "" || c.GetDetail() == "" || present != (c.GetRemedy() == "") {
			t.Errorf("%s is reported as %v", name, c)
		}
	}
}

// What every kernel that tcplab runs on has must be found, and found again: a
// probe leaves nothing behind that the next one trips over.
func TestPresent(t *testing.T) {
	need.NetNS(t)
	for range 2 {
		all := probe(t)
		for _, name := range []string{
			"namespaces", "veth", "packet", "bridge", "qdisc.tbf", "qdisc.htb", "qdisc.pfifo", "qdisc.bfifo", "qdisc.ingress",
			"qdisc.clsact", "filter.u32", "filter.bpf", "action.mirred", "congestion.reno", "tick",
		} {
			if all[name].GetState() != tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT {
				t.Errorf("%s is not found: %s", name, all[name].GetDetail())
			}
		}
	}
}

// The guards of tests try the same things their own way; both must agree.
func TestAgreesWithGuards(t *testing.T) {
	need.NetNS(t)
	all := probe(t)
	for name, guard := range map[string]func(testing.TB){
		"tap":             need.TUN,
		"qdisc.netem":     func(t testing.TB) { need.Qdisc(t, "netem") },
		"qdisc.fq_codel":  func(t testing.TB) { need.Qdisc(t, "fq_codel") },
		"qdisc.red":       func(t testing.TB) { need.Qdisc(t, "red") },
		"congestion.bbr":  func(t testing.TB) { need.Congestion(t, "bbr") },
		"congestion.lp00": nil,
	} {
		if guard == nil {
			if all[name] != nil {
				t.Errorf("%s is reported", name)
			}
			continue
		}
		there := false
		t.Run(name, func(t *testing.T) {
			t.Setenv(need.Require, "")
			guard(t)
			there = true
		})
		if found := all[name].GetState() == tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT; found != there {
			t.Errorf("%s: found %v, the guard says %v", name, found, there)
		}
	}
}

func TestKernel(t *testing.T) {
	need.NetNS(t)
	k := Kernel()
	running, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if k.GetRelease() != strings.TrimSpace(string(running)) {
		t.Errorf("the kernel is %q, not %q", running, k.GetRelease())
	}
	switch k.GetHz() {
	case 100, 250, 300, 1000:
	default:
		t.Errorf("HZ is %d", k.GetHz())
	}
	if len(k.GetCongestionControls()) == 0 || k.GetDefaultCongestionControl() == "" {
		t.Errorf("congestion controls: %v", k)
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := Probe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if per := b.Elapsed() / time.Duration(b.N); per > 300*time.Millisecond {
		b.Logf("%v is above the 300 ms that a report may take", per)
	}
}
