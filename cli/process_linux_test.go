package cli

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcplab/tcplab/internal/need"
)

// patience bounds everything that a test waits for.
const patience = 30 * time.Second

// longLab sends until it is stopped.
const longLab = `name: long
title: A transfer that goes on and on
nodes: [client, server]
links:
  - between: [client, server]
experiments:
  - flows:
      - name: up
        bulk: {from: client, to: server, duration: 30s}
expect:
  - name: one connection
    that: counter.client.TcpActiveOpens == 1
`

// process is a tcplab of its own, as a user would start it.
type process struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	lines  *bufio.Scanner // of standard error
	stderr strings.Builder
}

// setting is how a process is started. Only the folder for its runs must be given.
type setting struct {
	state string
	attr  *syscall.SysProcAttr
	stdin string
	env   []string // beside what all stories have
}

// start runs tcplab. It is killed with the test, if not ended before.
func (s setting) start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	p := &process{cmd: exec.CommandContext(ctx, "/proc/self/exe", args...)}
	p.cmd.Env = append(append(storyEnv(), stateDirVar+"="+s.state, runtimeDirVar+"="+filepath.Join(s.state, "run")), s.env...)
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdin = strings.NewReader(s.stdin)
	p.cmd.Stdout = &p.stdout
	p.cmd.SysProcAttr = s.attr
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// await reads standard error up to a line that matches, and returns it.
func (p *process) await(t *testing.T, pattern string) string {
	t.Helper()
	line := regexp.MustCompile(pattern)
	for p.lines.Scan() {
		p.stderr.WriteString(p.lines.Text() + "\n")
		if line.MatchString(p.lines.Text()) {
			return p.lines.Text()
		}
	}
	_ = p.cmd.Wait()
	t.Fatalf("%v said nothing like %s:\n%s", p.cmd.Args[1:], pattern, &p.stderr)
	return ""
}

// end waits for the process and wants its exit status.
func (p *process) end(t *testing.T, status int) (stdout, stderr string) {
	t.Helper()
	for p.lines.Scan() {
		p.stderr.WriteString(p.lines.Text() + "\n")
	}
	_ = p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("%v: %v, want exit status %d\n%s%s", p.cmd.Args[1:], p.cmd.ProcessState, status, &p.stdout, &p.stderr)
	}
	return p.stdout.String(), p.stderr.String()
}

// tcplabIn runs a command to its end.
func tcplabIn(t *testing.T, dir string, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	return setting{state: dir}.start(t, args...).end(t, status)
}

func labFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// quiet fails the test where a run has left anything in the state directory
// that is not the record of runs.
func quiet(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, socketName)); err == nil {
		t.Error("the controller's socket is left")
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("the state directory is still held: %v", err)
	}
}

// A run under way is seen, and cancelled, by other processes of the same user;
// another run does not start beside it.
func TestCancelFromAnotherProcess(t *testing.T) {
	need.NetNS(t)
	dir, lab := t.TempDir(), labFile(t, "long", longLab)
	driver := setting{state: dir}.start(t, "run", lab)
	id, _, _ := strings.Cut(driver.await(t, `: trial 1 of 1$`), ":")

	if stdout, _ := tcplabIn(t, dir, exitOK, "runs", "list"); !strings.Contains(stdout, id+"  running  0/1") {
		t.Errorf("the run under way is listed as\n%s", stdout)
	}
	if stdout, _ := tcplabIn(t, dir, exitOK, "runs", "show", "last"); !strings.Contains(stdout, id+" running: ") {
		t.Errorf("the run under way is shown as\n%s", stdout)
	}
	_, stderr := tcplabIn(t, dir, exitTrial, "run", lab, "--wait=0")
	if !strings.Contains(stderr, "which drives run "+id) || !strings.Contains(stderr, "to do: ") || !strings.Contains(stderr, "tcplab runs cancel "+id) {
		t.Errorf("a second run is refused with %q", stderr)
	}
	next := setting{state: dir}.start(t, "run", lab)
	next.await(t, `^waiting for process \d+, which drives run `+id)

	if stdout, _ := tcplabIn(t, dir, exitOK, "runs", "cancel", id[:len(id)-1]); stdout != id+" is cancelled\n" {
		t.Errorf("cancel says %q", stdout)
	}
	stdout, stderr := driver.end(t, exitInterrupted)
	if !strings.HasPrefix(stdout, id+" cancelled: 0 trials done in ") || strings.Contains(stderr, "tcplab:") {
		t.Errorf("the cancelled run says %q and %q", stdout, stderr)
	}

	// Then it is the next one's turn, until Ctrl-C.
	second, _, _ := strings.Cut(next.await(t, `: trial 1 of 1$`), ":")
	if err := next.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if stdout, _ := next.end(t, exitInterrupted); !strings.HasPrefix(stdout, second+" cancelled: ") {
		t.Errorf("the interrupted run says %q", stdout)
	}
	quiet(t, dir)
	stdout, _ = tcplabIn(t, dir, exitOK, "runs", "list")
	for _, id := range []string{id, second} {
		if !strings.Contains(stdout, id+"  cancelled") {
			t.Errorf("%s is not stored as cancelled:\n%s", id, stdout)
		}
	}
}

// Whoever gives up waiting has done nothing.
func TestInterruptedWait(t *testing.T) {
	need.NetNS(t)
	dir, lab := t.TempDir(), labFile(t, "long", longLab)
	driver := setting{state: dir}.start(t, "run", lab)
	driver.await(t, `: trial 1 of 1$`)
	waiting := setting{state: dir}.start(t, "run", lab)
	waiting.await(t, `^waiting for process `)
	if err := waiting.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr := waiting.end(t, exitInterrupted); stdout != "" || !strings.HasSuffix(stderr, "tcplab: interrupted\n") {
		t.Errorf("the interrupted wait says %q and %q", stdout, stderr)
	}
	if err := driver.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	driver.end(t, exitInterrupted)
	if stdout, _ := tcplabIn(t, dir, exitOK, "runs", "list"); strings.Count(stdout, "\n") != 2 {
		t.Errorf("there is more than the one run:\n%s", stdout)
	}
}

// With --keep the nodes of a failed trial can be entered until Ctrl-C; the
// run has failed nonetheless.
func TestKeep(t *testing.T) {
	need.NetNS(t)
	nsenter := need.Command(t, "nsenter")
	ip := need.Command(t, "ip")
	lab := labFile(t, "vegas", strings.Replace(longLab, "bulk: {", "socket: {congestion: no_such_control}\n        bulk: {", 1))
	for name, attr := range map[string]*syscall.SysProcAttr{"as started": nil, "ordinary user": asUser(1000)} {
		t.Run(name, func(t *testing.T) {
			if attr != nil {
				need.UserNS(t)
			}
			dir := t.TempDir()
			p := setting{state: dir, attr: attr}.start(t, "run", lab, "--keep")
			p.await(t, `: the nodes are held`)
			line := p.await(t, `^  client \(10\..*\): nsenter `)
			_, command, _ := strings.Cut(line, ": nsenter ")
			enter := exec.CommandContext(t.Context(), nsenter, append(strings.Fields(command), ip, "-brief", "address")...)
			out, err := enter.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "eth0@") || !strings.Contains(string(out), "10.64.0.1/") {
				t.Errorf("nsenter %s: %v\n%s", command, err, out)
			}
			p.await(t, `^  server `)
			if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if stdout, stderr := p.end(t, exitTrial); !strings.Contains(stdout, " failed: 0 trials done") || !strings.Contains(stderr, "no_such_control") {
				t.Errorf("the held run ends with %q and %q", stdout, stderr)
			}
			quiet(t, dir)
		})
	}
}

// An ordinary user's run enters a user namespace by itself, also with a lab that
// came by standard input, and with Ctrl-C handed on.
func TestOrdinaryUser(t *testing.T) {
	need.UserNS(t)
	dir := t.TempDir()
	short := strings.Replace(longLab, "duration: 30s", "bytes: 1MB", 1)
	p := setting{state: dir, attr: asUser(1000), stdin: short}.start(t, "run", "-")
	if stdout, _ := p.end(t, exitOK); !strings.Contains(stdout, " passed: 1 of 1 expectations hold") {
		t.Errorf("the run says %q", stdout)
	}
	quiet(t, dir)
	p = setting{state: dir, attr: asUser(1000), stdin: short}.start(t, "run", "-", "--dry-run")
	if stdout, _ := p.end(t, exitOK); !strings.Contains(stdout, "1 trial, ") || strings.Contains(stdout, "no lab can run here") {
		t.Errorf("the dry run says %q", stdout)
	}
	p = setting{state: dir, attr: asUser(1000)}.start(t, "doctor")
	if stdout, _ := p.end(t, exitOK); !strings.Contains(stdout, "root of a user namespace") {
		t.Errorf("doctor says %q", stdout)
	}
	p = setting{state: dir, attr: asUser(1000), stdin: longLab}.start(t, "run", "-")
	p.await(t, `: trial 1 of 1$`)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if stdout, _ := p.end(t, exitInterrupted); !strings.Contains(stdout, " cancelled: ") {
		t.Errorf("the interrupted run says %q", stdout)
	}
	quiet(t, dir)
}

// Where no user namespace may be made either, that is said with what to do. The
// variable says that this is the user namespace already, in which this user is
// nobody: all that could be tried has been.
func TestNoPrivilege(t *testing.T) {
	need.UserNS(t)
	for _, args := range [][]string{{"run", "handshake"}, {"doctor"}} {
		stdout, stderr := setting{state: t.TempDir(), attr: asUser(1000), env: []string{insideVar + "=1"}}.start(t, args...).end(t, exitHost)
		if stdout != "" || !strings.Contains(stderr, "needs root") || !strings.Contains(stderr, "to do: run as root, or allow user namespaces") {
			t.Errorf("%v says %q and %q", args, stdout, stderr)
		}
	}
}
