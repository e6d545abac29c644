package cli

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"rsc.io/script"
	"rsc.io/script/scripttest"

	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// TestNamespaceStories runs labs, all of them unshaped and done in milliseconds.
func TestNamespaceStories(t *testing.T) {
	need.NetNS(t)
	engine := storyEngine(t)
	engine.Conds["netem"] = script.BoolCondition("this kernel has the netem engine's qdiscs",
		doctor(t).GetAutoEngine() == tcplabv1.Engine_ENGINE_NETEM)
	engine.Conds["wire"] = script.BoolCondition("the wire engine works here", slices.ContainsFunc(doctor(t).GetCapabilities(), func(c *tcplabv1.Capability) bool {
		return c.GetName() == "tap" && c.GetState() == tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT
	}))
	scripttest.Test(t, t.Context(), engine, storyEnv(), "testdata/script/netns/*.txt")
}

// inProcess runs the command line in this process, and returns what it printed.
func inProcess(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := &Environment{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: os.Getenv}
	if got := Main(args, env); got != status {
		t.Fatalf("tcplab %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, &out, &errs)
	}
	return out.String(), errs.String()
}

// doctor is what `tcplab doctor -o json` says.
func doctor(t *testing.T) *tcplabv1.Host {
	t.Helper()
	stdout, stderr := inProcess(t, exitOK, "doctor", "-o", "json")
	host := &tcplabv1.Host{}
	if err := protojson.Unmarshal([]byte(stdout), host); err != nil || stderr != "" {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	return host
}

// Doctor names everything that was tried, and each thing to do once.
func TestDoctor(t *testing.T) {
	need.NetNS(t)
	host := doctor(t)
	table, _ := inProcess(t, exitOK, "doctor")
	if !strings.Contains(table, "engine auto takes "+host.GetAutoEngineReason()) || host.GetAutoEngineReason() == "" {
		t.Errorf("the engine and why are not told:\n%s", table)
	}
	for group := range groups(host.GetCapabilities()) {
		for _, c := range group {
			if !strings.Contains(table, c.GetName()+" ") || !strings.Contains(table, c.GetDetail()) {
				t.Errorf("%s is not told", c.GetName())
			}
		}
	}
	words := strings.Join(strings.Fields(table), " ")
	for _, c := range host.GetCapabilities() {
		remedy := strings.Join(strings.Fields(c.GetRemedy()), " ")
		if remedy != "" && strings.Count(words, remedy) != 1 {
			t.Errorf("what to do about %s is told %d times", c.GetName(), strings.Count(words, remedy))
		}
	}
}

// TestVirtualStories runs labs in guest kernels.
func TestVirtualStories(t *testing.T) {
	folder := need.GuestKernel(t)
	scripttest.Test(t, t.Context(), storyEngine(t), append(storyEnv(), kernelDirVar+"="+folder), "testdata/script/virtual/*.txt")
}
