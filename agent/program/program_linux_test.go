package program

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// limit is when something that should long have happened is given up.
const limit = 20 * time.Second

// asAgent makes the test's own program one that starts a program and is killed.
const asAgent = "TCPLAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch {
	case IsFirst():
		os.Exit(First())
	case os.Getenv(asAgent) != "":
		victim(os.Getenv(asAgent))
	default:
		goleak.VerifyTestMain(m)
	}
}

func node(t testing.TB) *netns.Handle {
	t.Helper()
	need.NetNS(t)
	space, err := netns.New("client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { space.Close() })
	return space
}

// spec runs a shell's script in a node of its own.
func spec(t testing.TB, argv ...string) Spec {
	t.Helper()
	return Spec{
		Node: node(t), HostName: "client", Hosts: "10.1.2.3 server\n", Resolv: "# nobody to ask\n",
		Argv: argv, Env: Environment("/", false, map[string]string{"OWN": "yes"}),
	}
}

// run runs a program to its end.
func run(t testing.TB, s Spec, input string) (stdout, stderr string, exit Exit) {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	timer := time.AfterFunc(limit, p.Kill)
	defer timer.Stop()
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(p.Stdin, input)
		if err == nil {
			err = p.EndInput()
		}
		written <- err
	}()
	var errs bytes.Buffer
	read := make(chan error, 1)
	go func() {
		var err error
		if p.Stderr != nil {
			_, err = io.Copy(&errs, p.Stderr)
		}
		read <- err
	}()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Errorf("read what it says: %v", err)
	}
	if err := <-read; err != nil {
		t.Errorf("read what it complains of: %v", err)
	}
	exit, err = p.Wait()
	if err != nil {
		t.Error(err)
	}
	<-written // it need not have read its input
	return string(out), errs.String(), exit
}

// What a program sees is its node, and nothing of the host.
func TestSurroundings(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"interfaces":  {"ls /sys/class/net; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\nlo\n"},
		"processes":   {"tr -d '\\0' </proc/1/cmdline; test -e /proc/$PPID && test $PPID = 1 && echo", firstName + "\n"},
		"names":       {"cat /etc/hosts /etc/resolv.conf; getent hosts server; hostname", "10.1.2.3 server\n# nobody to ask\n10.1.2.3        server\nclient\n"},
		"environment": {"env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort; pwd", "HOME=/\nLANG=C.UTF-8\nLOGNAME=root\nOWN=yes\nPATH=" + searchPath + "\nSHELL=/bin/sh\nUSER=root\n/\n"},
		"descriptors": {"ls /proc/self/fd", "0\n1\n2\n3\n"}, // 3 is ls's own
		"umask":       {"umask", "0022\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, exit := run(t, spec(t, "/bin/sh", "-c", c.script), "")
			if out != c.want || errs != "" || exit != (Exit{}) {
				t.Errorf("it says %q, complains of %q and ends with %+v; want %q", out, errs, exit, c.want)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	input := strings.Repeat("0123456789abcdef", 1<<16)
	out, errs, exit := run(t, spec(t, "sh", "-c", "cat; echo bad >&2; exit 7"), input)
	if out != input || errs != "bad\n" || exit != (Exit{Status: 7}) {
		t.Errorf("%d bytes of %d, %q and %+v", len(out), len(input), errs, exit)
	}
}

func TestExitStatus(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/nowhere/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		argv   []string
		dir    string
		status int
		signal syscall.Signal
		says   string
	}{
		"status":         {argv: []string{"sh", "-c", "exit 255"}, status: 255},
		"signal":         {argv: []string{"sh", "-c", "kill -TERM $$"}, status: 143, signal: syscall.SIGTERM},
		"missing":        {argv: []string{"no-such-program"}, status: 127, says: "no-such-program: there is no such program"},
		"missing path":   {argv: []string{"/no/such/program"}, status: 127, says: "there is no such program"},
		"no interpreter": {argv: []string{script}, status: 127, says: "what runs it is missing"},
		"not executable": {argv: []string{plain}, status: 126, says: "permission denied"},
		"a folder":       {argv: []string{"/etc"}, status: 126},
		"no folder":      {argv: []string{"true"}, dir: "/no/such", status: 126, says: "start in /no/such: no such file"},
		"its own folder": {argv: []string{"sh", "-c", "test $(pwd) = /usr"}, dir: "/usr"},
		"relative":       {argv: []string{"./bin/true"}, dir: "/usr"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, c.argv...)
			s.Dir = c.dir
			_, _, exit := run(t, s, "")
			if exit.Status != c.status || exit.Signal != c.signal || !strings.Contains(exit.Failure, c.says) || c.says == "" && c.status < 126 && exit.Failure != "" {
				t.Errorf("it ends with %+v", exit)
			}
		})
	}
}

func TestTerminal(t *testing.T) {
	s := spec(t, "sh", "-c", "tty >/dev/null && stty size && read line && stty size && echo got $line && cat && exit 3")
	s.Terminal = &Size{Columns: 101, Rows: 33}
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	timer := time.AfterFunc(limit, p.Kill)
	defer timer.Stop()
	var seen strings.Builder
	await(t, p.Stdout, &seen, "33 101")
	if err := p.Resize(Size{Columns: 55, Rows: 22}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(p.Stdin, "word\n")
	await(t, p.Stdout, &seen, "22 55")
	await(t, p.Stdout, &seen, "got word")
	if err := p.EndInput(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&seen, p.Stdout); err != nil {
		t.Errorf("the terminal's end is an error: %v", err)
	}
	if exit, err := p.Wait(); err != nil || exit.Status != 3 {
		t.Errorf("it ends with %+v, %v\n%s", exit, err, &seen)
	}
}

// Ctrl-C on its terminal reaches the program, which may answer it.
func TestInterrupt(t *testing.T) {
	s := spec(t, "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.01; done")
	s.Terminal = &Size{Columns: 80, Rows: 24}
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	timer := time.AfterFunc(limit, p.Kill)
	defer timer.Stop()
	var seen strings.Builder
	await(t, p.Stdout, &seen, "ready")
	io.WriteString(p.Stdin, "\x03")
	await(t, p.Stdout, &seen, "caught")
	io.Copy(io.Discard, p.Stdout)
	if exit, err := p.Wait(); err != nil || exit.Status != 9 {
		t.Errorf("it ends with %+v, %v", exit, err)
	}
}

// await reads until the text was read.
func await(t *testing.T, r io.Reader, seen *strings.Builder, text string) {
	t.Helper()
	buffer := make([]byte, 4096)
	for !strings.Contains(seen.String(), text) {
		n, err := r.Read(buffer)
		seen.Write(buffer[:n])
		if err != nil {
			t.Fatalf("%v before %q; seen %q", err, text, seen)
		}
	}
}

// A signal reaches the program and what it runs, and one that comes late is no error.
func TestSignal(t *testing.T) {
	p, err := Start(spec(t, "sh", "-c", "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.01; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	timer := time.AfterFunc(limit, p.Kill)
	defer timer.Stop()
	var seen strings.Builder
	await(t, p.Stdout, &seen, "ready")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, p.Stdout, &seen, "caught")
	if exit, err := p.Wait(); err != nil || exit.Status != 4 {
		t.Errorf("it ends with %+v, %v", exit, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a late signal: %v", err)
	}
}

// daemons leaves processes in sessions and groups of their own, which hold a file
// open that the test can see, and then says so. It reads its input to the end.
const daemons = `for i in 1 2 3; do setsid sh -c 'trap "" TERM HUP INT; sleep 1000' </dev/null >/dev/null 2>&1 & done; echo ready; cat`

// A program's end, however it comes, is the end of all that it started.
func TestNothingIsLeft(t *testing.T) {
	for name, end := range map[string]func(*Program) error{
		"its own end": (*Program).EndInput,
		"killed":      func(p *Program) error { p.Kill(); return nil },
		"signal":      func(p *Program) error { return p.Signal(syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			mark := marked(t)
			s := spec(t, "sh", "-c", daemons)
			s.Env = append(s.Env, mark)
			p, err := Start(s)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var seen strings.Builder
			await(t, p.Stdout, &seen, "ready")
			if n := len(processes(t, mark)); n < 4 {
				t.Errorf("only %d processes run", n)
			}
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(); err != nil {
				t.Error(err)
			}
			if left := processes(t, mark); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// An agent that is killed takes its programs with it.
func TestKilledAgent(t *testing.T) {
	need.NetNS(t)
	mark := marked(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), asAgent+"="+mark)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	await(t, out, &seen, "ready")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; {
		left := processes(t, mark)
		if len(left) == 0 {
			t.Logf("nothing was left %v after the kill", time.Since(start))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("processes %v outlive the agent", left)
		case <-tick.C:
		}
	}
}

// victim starts a program, hands on what it says, and waits to be killed.
func victim(mark string) {
	space, err := netns.New("client")
	if err != nil {
		panic(err)
	}
	p, err := Start(Spec{
		Node: space, HostName: "client", Argv: []string{"sh", "-c", daemons}, Env: Environment("/", false, nil),
	}.with(mark))
	if err != nil {
		panic(err)
	}
	_, err = io.Copy(os.Stdout, p.Stdout)
	panic(err)
}

func (s Spec) with(mark string) Spec {
	s.Env = append(s.Env, mark)
	return s
}

// marked is an environment variable that no other test's processes have.
func marked(t *testing.T) string {
	return "TCPLAB_TEST_MARK=" + strconv.Itoa(os.Getpid()) + filepath.Base(t.TempDir()) + t.Name()
}

// processes lists those that have the variable in their environment.
func processes(t *testing.T, variable string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && bytes.Contains(content, []byte(variable)) && !bytes.Contains(content, []byte(asAgent)) {
			all = append(all, file)
		}
	}
	return all
}

// Any number of programs can run in one node at once.
func TestTogether(t *testing.T) {
	s := spec(t, "cat")
	done := make(chan string, 8)
	for range cap(done) {
		go func() {
			out, _, _ := run(t, s, "hello")
			done <- out
		}()
	}
	for range cap(done) {
		if out := <-done; out != "hello" {
			t.Errorf("one says %q", out)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	s := spec(b, "true")
	for b.Loop() {
		run(b, s, "")
	}
}
