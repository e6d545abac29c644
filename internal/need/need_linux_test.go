package need

import (
	"fmt"
	"strings"
	"testing"
)

// verdict records how a guard ends a test, in place of ending it.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (*verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) { v.skipped = fmt.Sprintf(format, args...) }

func (v *verdict) Fatalf(format string, args ...any) { v.failed = fmt.Sprintf(format, args...) }

func TestMissingFeature(t *testing.T) {
	guards := map[string]func(testing.TB){
		"no-such-qdisc":   func(t testing.TB) { Qdisc(t, "no-such-qdisc") },
		"no-such-program": func(t testing.TB) { Command(t, "no-such-program") },
		"no-such-control": func(t testing.TB) { Congestion(t, "no-such-control") },
	}
	for feature, guard := range guards {
		for _, test := range []struct {
			require  string
			mustFail bool
		}{
			{"", false},
			{"netns,un" + feature, false},
			{"netns," + feature, true},
		} {
			t.Run(feature+"/"+test.require, func(t *testing.T) {
				t.Setenv(Require, test.require)
				v := &verdict{TB: t}
				guard(v)
				ended, other := v.skipped, v.failed
				if test.mustFail {
					ended, other = other, ended
				}
				if !strings.Contains(ended, feature) || other != "" {
					t.Errorf("skipped %q, failed %q; TCPLAB_REQUIRE=%q", v.skipped, v.failed, test.require)
				}
			})
		}
	}
}

// These are in every kernel that tcplab runs on, so a guard that misses one is
// at fault: tbf and htb want options, ingress and clsact parents of their own.
func TestPresentQdisc(t *testing.T) {
	NetNS(t)
	for _, kind := range []string{"pfifo", "bfifo", "tbf", "htb", "ingress", "clsact"} {
		t.Run(kind, func(t *testing.T) {
			v := &verdict{TB: t}
			Qdisc(v, kind)
			if v.skipped != "" {
				t.Errorf("the guard does not find %s: %s", kind, v.skipped)
			}
		})
	}
}

func TestCommandIsFound(t *testing.T) {
	if path := Command(t, "sh"); !strings.HasSuffix(path, "/sh") {
		t.Errorf("sh is at %q", path)
	}
}
