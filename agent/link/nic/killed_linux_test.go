package nic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/netem"
	"github.com/tcplab/tcplab/agent/link/wire"
)

// asAgent has the test's own program be an agent that shapes eth1, one step for each line on its
// standard input. Its arguments are the engine, the hooks and the folder of the journals.
const asAgent = "TCPLAB_TEST_AGENT"

const (
	// killedDelay is that of the link each way. Nothing that is not shaped takes so long.
	killedDelay = 150 * time.Millisecond
	// within is how long after kill -9 traffic flows as before, at the latest.
	within = 2 * time.Second
)

// everything but the way to the controller, which has otherPort.
func everythingMatch() link.Match {
	return link.Match{Destination: netip.MustParsePrefix("192.0.2.0/24")}
}

func controllerMatch() link.Match {
	return link.Match{Destination: netip.MustParsePrefix(worldAddress + "/32"), Protocol: link.UDP, Port: otherPort}
}

func beAgent(arguments []string) error {
	in := bufio.NewReader(os.Stdin)
	step := func(what string) {
		fmt.Println(what)
		_, _ = in.ReadString('\n')
	}
	var engine link.Engine = netem.New()
	if arguments[0] == "wire" {
		w, err := wire.New(wire.Options{})
		if err != nil {
			return err
		}
		engine = w
	}
	host, err := NewHost(Options{
		Management: []link.Match{controllerMatch()}, Journals: arguments[2], Hooks: Hooks(arguments[1]), Step: step,
		Watchdog: guard.WatchdogOptions{Command: []string{"/proc/self/exe"}, Env: append(os.Environ(), asWatchdog+"=1"), Stderr: os.Stderr},
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	if err := host.Recover(context.Background()); err != nil {
		return err
	}
	step("begin")
	made, err := host.Engine(engine, Way{Match: everythingMatch()}).Create(context.Background(), spec(killedDelay))
	if err != nil {
		return err
	}
	step("stands")
	if err := errors.Join(made.Close(), engine.Close()); err != nil {
		return err
	}
	step("closed")
	return host.Close()
}

// agent is such a process.
type agent struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (b *bed) agent(t *testing.T, engine string, hooks Hooks, journals string) *agent {
	t.Helper()
	a := &agent{Cmd: exec.CommandContext(t.Context(), "/proc/self/exe", engine, string(hooks), journals)}
	a.Env = append(os.Environ(), asAgent+"=1")
	a.Stderr = os.Stderr
	out, err := a.StdoutPipe()
	if err == nil {
		a.in, err = a.StdinPipe()
	}
	if err == nil {
		err = b.host.Do(a.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewScanner(out)
	return a
}

// step is what the agent has come to; false: it has ended.
func (a *agent) step() (string, bool) {
	ok := a.out.Scan()
	return a.out.Text(), ok
}

func (a *agent) goOn(t *testing.T) {
	t.Helper()
	if _, err := a.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
}

// owners is control without what tcplab hangs there.
func (b *bed) owners(t *testing.T) []string {
	return slices.DeleteFunc(b.control(t), func(line string) bool {
		return strings.HasPrefix(line, "filter bpf") || strings.HasPrefix(line, "qdisc clsact")
	})
}

// An agent that is killed at any step of making and removing a link at a host's
// interface leaves the interface as it was: within two seconds traffic flows as
// before, the owner's tree is as it was all the time, and the way to the controller
// is never shaped.
func TestKilledAtEachStep(t *testing.T) {
	for _, engine := range []string{"wire", "netem"} {
		for _, hooks := range []Hooks{TCX, Clsact} {
			t.Run(engine+" by "+string(hooks), func(t *testing.T) {
				inner(t, engine) // or it is skipped
				newBed(t).shaper(t, Options{Hooks: hooks})
				steps := killedAt(t, engine, hooks, -1)
				least := 10
				if hooks == Clsact {
					least = 14
				}
				if len(steps) < least {
					t.Fatalf("an agent goes through %d steps, want %d at least: %q", len(steps), least, steps)
				}
				for i, name := range steps {
					t.Run(name, func(t *testing.T) { killedAt(t, engine, hooks, i) })
				}
			})
		}
	}
}

// killedAt lets an agent come to the step and kills it; -1: it goes through all of
// them, which are returned.
func killedAt(t *testing.T, engine string, hooks Hooks, at int) []string {
	b := newBed(t)
	b.echo(t, shapedPort)
	b.echo(t, otherPort)
	shaped, controller := b.caller(t, worldAddress, shapedPort), b.caller(t, worldAddress, otherPort)
	before := b.control(t)
	unshaped := func(when string) {
		t.Helper()
		if took, err := controller.roundTrip(time.Second, 100); err != nil || took >= killedDelay {
			t.Errorf("%s: the way to the controller takes %v: %v", when, took, err)
		}
		if diff := cmp.Diff(before, b.owners(t)); diff != "" {
			t.Errorf("%s: the owner's tree (-before +now):\n%s", when, diff)
		}
	}
	unshaped("at first")
	journals := t.TempDir()
	a := b.agent(t, engine, hooks, journals)
	var steps []string
	for i := 0; ; i++ {
		name, ok := a.step()
		if !ok {
			break
		}
		steps = append(steps, name)
		unshaped(name)
		if name == "stands" {
			if took := shaped.least(t, 1); took < 2*killedDelay {
				t.Errorf("shaped, a round trip takes %v, want %v", took, 2*killedDelay)
			}
		}
		if i == at {
			break
		}
		a.goOn(t)
	}
	ended := time.Now()
	if at >= 0 {
		if err := a.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Wait(); err != nil && at < 0 {
		t.Fatal(err)
	}
	for {
		took, err := shaped.roundTrip(100*time.Millisecond, 100)
		devices := b.devices(t)
		// A namespace's end takes its devices, and the kernel does that a little later.
		if err == nil && took < killedDelay && slices.Equal(b.control(t), before) && slices.Equal(devices, []string{"eth1", "lo"}) {
			t.Logf("traffic flowed as before %v after the end", time.Since(ended))
			break
		}
		if time.Since(ended) > within {
			t.Fatalf("%v after the end a round trip takes %v: %v; the host has %v; the interface has (-before +now):\n%s",
				within, took, err, devices, cmp.Diff(before, b.control(t)))
		}
	}
	unshaped("in the end")
	// The next agent finds the interface as its owner has it, and no journal stays.
	next, err := NewHost(Options{Namespace: b.host, Journals: journals, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if err := next.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !hasFile(t, journals) {
			break
		}
		// The watchdog has it locked still.
		if time.Since(ended) > 2*within {
			t.Fatal("a journal is left")
		}
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, b.control(t)); diff != "" {
		t.Errorf("the interface (-before +after):\n%s", diff)
	}
	return steps
}

// childOf is the one child of a process.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state parent: proc_pid_stat(5)
		var pid, itsParent int
		var state string
		_, rest, _ := strings.Cut(string(content), ") ")
		if _, err := fmt.Sscan(rest, &state, &itsParent); err != nil || itsParent != parent {
			continue
		}
		if _, err := fmt.Sscan(string(content), &pid); err == nil {
			return pid
		}
	}
	t.Fatalf("process %d has no child", parent)
	return 0
}

// Without a watchdog, which was killed with the agent, the next agent undoes what
// is left.
func TestKilledWithItsWatchdog(t *testing.T) {
	inner(t, "wire")
	newBed(t).shaper(t, Options{Hooks: Clsact})
	b := newBed(t)
	b.echo(t, shapedPort)
	before := b.control(t)
	journals := t.TempDir()
	a := b.agent(t, "wire", Clsact, journals)
	for name := ""; name != "stands"; {
		if name != "" {
			a.goOn(t)
		}
		var ok bool
		if name, ok = a.step(); !ok {
			t.Fatal("the agent has ended")
		}
	}
	// Stopped, it cannot act before it is killed.
	watchdog := childOf(t, a.Process.Pid)
	err := errors.Join(unix.Kill(watchdog, unix.SIGSTOP), a.Process.Kill(), unix.Kill(watchdog, unix.SIGKILL))
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Wait() // it was killed
	if slices.Equal(b.control(t), before) {
		t.Fatal("nothing is left at the interface: the test proves nothing")
	}
	next, err := NewHost(Options{Namespace: b.host, Journals: journals, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(next.Recover(t.Context()), next.Close()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, b.control(t)); diff != "" {
		t.Errorf("the interface (-before +after):\n%s", diff)
	}
	if took := b.caller(t, worldAddress, shapedPort).least(t, 1); took >= killedDelay {
		t.Errorf("a round trip takes %v", took)
	}
}
