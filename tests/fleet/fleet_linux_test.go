package fleet_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/cli"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/tests/fleet"
)

// asProgram makes the test binary be tcplab.
const asProgram = "TCPLAB_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || program.IsFirst() {
		os.Exit(cli.Main(os.Args[1:], cli.Process()))
	}
	goleak.VerifyTestMain(m)
}

// start makes a fleet of hosts, each with its policy, and a user who may do all.
func start(t *testing.T, hosts map[string]string) *fleet.Fleet {
	t.Helper()
	need.NetNS(t)
	t.Setenv(asProgram, "1")
	tcplab, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(tcplab, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.StartController(); err != nil {
		t.Fatal(err)
	}
	for name, policy := range hosts {
		if err := f.Join(t.Context(), name, policy); err != nil {
			t.Fatal(err)
		}
	}
	token, err := f.Admin(t.Context(), "user", "invite", "alice", "--role", "admin", "--exec")
	if err != nil {
		t.Fatal(err)
	}
	ok(t, f, "context", "add", "lab1", "--controller", f.Address(), "--join", strings.TrimSpace(token))
	return f
}

// ok runs tcplab, which must succeed.
func ok(t *testing.T, f *fleet.Fleet, args ...string) string {
	t.Helper()
	return exits(t, f, 0, args...)
}

func exits(t *testing.T, f *fleet.Fleet, status int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := f.Tcplab(ctx, args...)
	if err != nil || result.Status != status {
		t.Fatalf("tcplab %s: exit status %d, want %d, error %v\n%s%s\ncontroller: %s", strings.Join(args, " "), result.Status, status, err, result.Stdout, result.Stderr, f.ControllerSaid())
	}
	return result.Stdout + result.Stderr
}

// on writes a lab whose nodes are on a host, with a flow that takes a while.
func on(t *testing.T, host, flow string) string {
	t.Helper()
	path := t.TempDir() + "/lab.yaml"
	text := `name: placed
nodes: {client: {on: ` + host + `}, server: {on: ` + host + `}}
links:
  - between: [client, server]
    rate: 10Mbit
experiments:
  - flows:
      - name: up
        bulk: {from: client, to: server, ` + flow + `}
expect:
  - name: one connection
    that: counter.client.TcpActiveOpens == 1
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The commands of one machine work across several: same files, same results.
func TestCommands(t *testing.T) {
	f := start(t, map[string]string{"host-a": "exec: {user: root}\n", "host-b": ""})
	ok(t, f, "run", on(t, "host-a", "bytes: 100kB"))
	ok(t, f, "run", on(t, "host-b", "bytes: 100kB"))
	if out := ok(t, f, "runs", "list"); strings.Count(out, "succeeded") != 2 {
		t.Errorf("the runs:\n%s", out)
	}
	lab := on(t, "host-a", "bytes: 100kB")
	ok(t, f, "up", lab, "--name", "office")
	if out := ok(t, f, "ps"); !strings.Contains(out, "office") || !strings.Contains(out, "host-a") {
		t.Errorf("what stands:\n%s", out)
	}
	if out := ok(t, f, "exec", "office", "client", "--", "getent", "hosts", "server"); !strings.Contains(out, "server") {
		t.Errorf("exec: %s", out)
	}
	ok(t, f, "link", "show", "office")
	ok(t, f, "down", "office")
	// A host permits what its owner has, whoever asks.
	ok(t, f, "up", on(t, "host-b", "bytes: 100kB"), "--name", "guarded")
	if out := exits(t, f, 4, "exec", "guarded", "client", "--", "true"); !strings.Contains(out, "exec.user") {
		t.Errorf("a program on a host whose policy says nothing: %s", out)
	}
	ok(t, f, "down", "guarded")
	// Nobody's interface is there but the management network's.
	for _, host := range []string{"host-a", "host-b"} {
		if links, err := f.Links(host); err != nil || !slices.Equal(links, []string{"lo", "eth0"}) {
			t.Errorf("interfaces of %s: %v, error %v", host, links, err)
		}
	}
	var hosts struct {
		Hosts []struct {
			Name      string `json:"name"`
			Connected bool   `json:"connected"`
			Clock     struct {
				Error string `json:"error"`
			} `json:"clock"`
		} `json:"hosts"`
	}
	if err := json.Unmarshal([]byte(ok(t, f, "hosts", "list", "-o", "json")), &hosts); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts.Hosts {
		bound, err := time.ParseDuration(h.Clock.Error)
		if err != nil || !h.Connected || bound <= 0 || bound > 50*time.Millisecond {
			t.Errorf("host %+v, error %v", h, err)
		}
	}
}

// A connection whose other end has vanished is found on both sides, and made again when the network heals.
func TestHalfOpen(t *testing.T) {
	f := start(t, map[string]string{"host-a": ""})
	if err := f.Cut("host-a"); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	until(t, f, "away", func() bool { return strings.Contains(ok(t, f, "hosts", "list"), "away") })
	until(t, f, "the agent knows", func() bool { return strings.Contains(f.Said("host-a"), "the session has ended") })
	// Both are found within 10 s; what tests take to see it comes on top.
	if took := time.Since(cut); took > 12*time.Second {
		t.Errorf("a dead connection was found after %v", took)
	}
	if err := f.Heal("host-a"); err != nil {
		t.Fatal(err)
	}
	until(t, f, "connected again", func() bool { return strings.Contains(ok(t, f, "hosts", "list"), "connected") })
}

// until waits for something to be so.
func until(t *testing.T, f *fleet.Fleet, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(90 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not %s\ncontroller: %s\nagent: %s", what, f.ControllerSaid(), f.Said("host-a"))
		}
	}
}

// runs is what `tcplab runs list` says.
func runs(t *testing.T, f *fleet.Fleet) (all []run) {
	t.Helper()
	var page struct {
		Runs []run `json:"runs"`
	}
	if err := json.Unmarshal([]byte(ok(t, f, "runs", "list", "-o", "json")), &page); err != nil {
		t.Fatal(err)
	}
	return page.Runs
}

type run struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Verdict string `json:"verdict"`
	Failure string `json:"failure"`
}

// launch starts a run, and waits until its trial runs.
func launch(t *testing.T, f *fleet.Fleet, lab string) *fleet.Command {
	t.Helper()
	c, err := f.Launch("run", lab)
	if err == nil {
		err = c.Says("is running")
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ends waits for a command's end.
func ends(t *testing.T, f *fleet.Fleet, c *fleet.Command, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if status, said, err := c.Wait(ctx); err != nil || status != want {
		t.Errorf("exit status %d, want %d, error %v: %s\ncontroller: %s\nagent: %s", status, want, err, said, f.ControllerSaid(), f.Said("host-a"))
	}
}

// A controller that is killed and starts again takes up the run, whose trial its agent carries out meanwhile.
func TestControllerKilled(t *testing.T) {
	f := start(t, map[string]string{"host-a": ""})
	c := launch(t, f, on(t, "host-a", "duration: 3s"))
	if err := f.KillController(); err != nil {
		t.Fatal(err)
	}
	ends(t, f, c, 4) // it loses its controller
	if err := f.StartController(); err != nil {
		t.Fatal(err)
	}
	until(t, f, "ended", func() bool { all := runs(t, f); return len(all) == 1 && all[0].State != "RUN_STATE_RUNNING" })
	if all := runs(t, f); all[0].State != "RUN_STATE_SUCCEEDED" || all[0].Verdict != "VERDICT_PASSED" {
		t.Errorf("the run: %+v\ncontroller: %s\nagent: %s", all[0], f.ControllerSaid(), f.Said("host-a"))
	}
	if !strings.Contains(f.ControllerSaid(), "a run is taken up") {
		t.Errorf("nothing was taken up: %s", f.ControllerSaid())
	}
}

// An agent that is cut off from its controller while a trial runs carries it out, and the result is fetched when the
// network heals.
func TestCutWhileRunning(t *testing.T) {
	f := start(t, map[string]string{"host-a": ""})
	c := launch(t, f, on(t, "host-a", "duration: 3s"))
	if err := f.Cut("host-a"); err != nil {
		t.Fatal(err)
	}
	until(t, f, "away", func() bool { return strings.Contains(ok(t, f, "hosts", "list"), "away") })
	if err := f.Heal("host-a"); err != nil {
		t.Fatal(err)
	}
	ends(t, f, c, 0)
}

// An agent that is killed takes its labs with it; the run says so, and the next one goes well.
func TestAgentKilled(t *testing.T) {
	f := start(t, map[string]string{"host-a": ""})
	c := launch(t, f, on(t, "host-a", "duration: 20s"))
	if err := f.KillAgent("host-a"); err != nil {
		t.Fatal(err)
	}
	if err := f.StartAgent("host-a"); err != nil {
		t.Fatal(err)
	}
	ends(t, f, c, 4)
	ok(t, f, "run", on(t, "host-a", "bytes: 100kB"))
}
