package uml

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/need"
)

// asParent makes the test binary a program that runs a guest and waits.
const asParent = "TCPLAB_UML_TEST_PARENT"

func TestMain(m *testing.M) {
	Init()
	if marker := os.Getenv(asParent); marker != "" {
		err := Run(context.Background(), Config{Stdout: os.Stdout}, "/bin/sh", "-c", "echo "+marker+"; sleep 600")
		fmt.Println("the guest ended:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// guest runs a command with a minute to spare, which no test here uses up.
func guest(t *testing.T, config Config, args ...string) error {
	t.Helper()
	canBoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Run(ctx, config, args...)
}

// canBoot needs the guest's kernel, and a binary that runs in it.
func canBoot(t *testing.T) {
	t.Helper()
	need.Command(t, "linux.uml")
	if raceDetector {
		t.Skip("the race detector's shadow memory has no room in user-mode-linux: run without -race")
	}
}

func TestOutputComesThroughAsWritten(t *testing.T) {
	t.Parallel()
	const length = 1 << 20
	var out, diagnostics bytes.Buffer
	// The input has every byte, line ends and control characters among them.
	script := fmt.Sprintf("head -c %d %q; printf 'a\\nb\\r\\n\\tc\\003' >&2", length, os.Args[0])
	if err := guest(t, Config{Stdout: &out, Stderr: &diagnostics}, "/bin/sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	want := sha256.New()
	if _, err := io.CopyN(want, self, length); err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(out.Bytes()); !bytes.Equal(got[:], want.Sum(nil)) {
		t.Errorf("standard output: %d bytes that are not the %d written", out.Len(), length)
	}
	if got, want := diagnostics.String(), "a\nb\r\n\tc\003"; got != want {
		t.Errorf("standard error %q, want %q", got, want)
	}
}

func TestOneWriterKeepsTheOrder(t *testing.T) {
	t.Parallel()
	var both bytes.Buffer
	script := "for i in 1 2 3; do echo out$i; echo err$i >&2; done"
	if err := guest(t, Config{Stdout: &both, Stderr: &both}, "/bin/sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	if got, want := both.String(), "out1\nerr1\nout2\nerr2\nout3\nerr3\n"; got != want {
		t.Errorf("both streams together: %q, want %q", got, want)
	}
}

func TestHowTheCommandEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want *ExitError
	}{
		"a status": {[]string{"sh", "-c", "exit 7"}, &ExitError{Status: 7}},
		"a signal": {[]string{"sh", "-c", "kill -TERM $$"}, &ExitError{Status: 143, Signal: syscall.SIGTERM}},
	} {
		t.Run(name, func(t *testing.T) {
			err := guest(t, Config{}, test.args...)
			var exit *ExitError
			if !errors.As(err, &exit) || *exit != *test.want {
				t.Errorf("the error is %v, want %v", err, test.want)
			}
		})
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	t.Parallel()
	err := guest(t, Config{}, "no-such-program")
	var failed *GuestError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("the error is %v, want a GuestError that names no-such-program", err)
	}
}

// TestGuestHasWhatNetemNeeds runs TestInsideGuest of this same binary in a guest.
func TestGuestHasWhatNetemNeeds(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	// What this machine must have is not what the guest must have.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, need.Require+"=") })
	config := Config{Stdout: &out, Stderr: &out, Env: append(env, need.Require+"="+guestFeatures)}
	if err := guest(t, config, os.Args[0], "-test.run=^TestInsideGuest$", "-test.v"); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "--- PASS: TestInsideGuest ") {
		t.Errorf("TestInsideGuest did not pass in the guest:\n%s", out.String())
	}
}

func TestWritesStayInTheGuest(t *testing.T) {
	t.Parallel()
	open, closed := t.TempDir(), t.TempDir()
	script := fmt.Sprintf("echo yes >%[1]s/f && echo no >%[2]s/f && cat %[1]s/f %[2]s/f", open, closed)
	var out bytes.Buffer
	if err := guest(t, Config{Stdout: &out, Writable: []string{open}}, "/bin/sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	if out.String() != "yes\nno\n" {
		t.Errorf("the guest reads %q of what it wrote", out.String())
	}
	if text, err := os.ReadFile(filepath.Join(open, "f")); err != nil || string(text) != "yes\n" {
		t.Errorf("in the writable folder the host reads %q (%v)", text, err)
	}
	if _, err := os.Stat(filepath.Join(closed, "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a write came through to the host's folder: %v", err)
	}
}

func TestDeadlineKillsTheGuest(t *testing.T) {
	t.Parallel()
	canBoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	err := Run(ctx, Config{Stdout: up}, "/bin/sh", "-c", "echo up; sleep 600")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want one that wraps context.Canceled", err)
	}
}

// TestGuestDiesWithItsParent kills a process that runs a guest and watches a
// process of the guest, by a descriptor, until it has ended.
func TestGuestDiesWithItsParent(t *testing.T) {
	t.Parallel()
	canBoot(t)
	parent := exec.Command(os.Args[0])
	state := t.TempDir()
	parent.Env = append(os.Environ(), asParent+"=up", "TMPDIR="+state)
	up, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	if _, err := io.ReadFull(up, make([]byte, len("up\n"))); err != nil {
		t.Fatalf("wait for the guest: %v", err)
	}
	processes := withArgument(t, "uml_dir="+state)
	// The shell, the kernel, its two threads, and at least one process of the guest.
	if len(processes) < 5 {
		t.Fatalf("the guest has %d processes; the test looks for the wrong ones", len(processes))
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, process := range processes {
		ended := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
		n, err := 0, error(unix.EINTR) // as by a signal of Go's own
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(ended, max(0, int(time.Until(deadline).Milliseconds())))
		}
		if n != 1 {
			t.Errorf("a process of the guest outlives its parent by 10 s (%v)", err)
		}
	}
}

// withArgument opens the processes that have an argument with the prefix.
func withArgument(t *testing.T, prefix string) []*os.File {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []*os.File
	for _, folder := range folders {
		args, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if err != nil || !bytes.Contains(args, []byte("\x00"+prefix)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(folder), &pid); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		process := os.NewFile(uintptr(fd), folder)
		t.Cleanup(func() { process.Close() })
		found = append(found, process)
	}
	return found
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
