package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// role is what the test's own program is started as: an agent with a watchdog, or
// a watchdog.
const role = "TCPLAB_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "agent":
		err = beAgent(os.Args[1])
	case "watchdog":
		err = beWatchdog()
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// undoneFile is what a watchdog of these tests writes when it has undone something.
const undoneFile = "undone"

func beWatchdog() error {
	return Watch(os.Args[1:], RollbackOptions{Namespace: namespace, Undo: func(c []Change) error {
		return os.WriteFile(filepath.Join(os.Args[1], undoneFile), fmt.Appendf(nil, "%d", len(c)), 0o600)
	}})
}

// beAgent makes a change and waits to be killed.
func beAgent(dir string) error {
	w, err := StartWatchdog(watchdogOptions(dir))
	if err != nil {
		return err
	}
	j, err := OpenJournal(JournalOptions{Dir: dir, Name: "a", Namespace: namespace})
	if err == nil {
		err = j.Write(first)
	}
	if err != nil {
		return err
	}
	fmt.Println(w.Process())
	select {}
}

func watchdogOptions(dir string) WatchdogOptions {
	return WatchdogOptions{Command: []string{"/proc/self/exe"}, Dir: dir, Env: append(os.Environ(), role+"=watchdog")}
}

// An agent that is killed has its change undone by its watchdog, which then ends;
// what a terminal or a service manager sends before does not stop it.
func TestWatchdog(t *testing.T) {
	dir := t.TempDir()
	agent := exec.CommandContext(t.Context(), "/proc/self/exe", dir)
	agent.Env = append(os.Environ(), role+"=agent")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatal(err)
	}
	watchdog, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watchdog)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if err := unix.PidfdSendSignal(watchdog, s, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = agent.Wait() // it was killed
	// A pidfd becomes readable when its process ends.
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(watchdog), Events: unix.POLLIN}}, 2000)
	if err != nil || n != 1 {
		t.Fatalf("the watchdog has not ended 2 s after the agent: %v", err)
	}
	t.Logf("the watchdog had ended %v after the agent", time.Since(killed))
	if content, err := os.ReadFile(filepath.Join(dir, undoneFile)); err != nil || string(content) != "1" {
		t.Errorf("undone: %q, %v", content, err)
	}
	if exists(t, filepath.Join(dir, "a"+journalSuffix)) {
		t.Error("the journal is left")
	}
}

// A watchdog whose agent ends well finds nothing to do and ends with it. One that is
// killed is missed.
func TestWatchdogEnds(t *testing.T) {
	dir := t.TempDir()
	lost := make(chan error, 1)
	o := watchdogOptions(dir)
	o.Lost = func(err error) { lost <- err }
	w, err := StartWatchdog(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-lost:
		t.Errorf("a watchdog that was closed is missed: %v", err)
	default:
	}
	if w, err = StartWatchdog(o); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(w.Process(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-lost:
		if !strings.Contains(err.Error(), "killed") {
			t.Errorf("why it is missed: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("a watchdog that was killed is not missed")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestWatchdogDoesNotStart(t *testing.T) {
	for name, command := range map[string][]string{
		"none":             nil,
		"not there":        {"/nowhere/at/all"},
		"one that exits":   {"/bin/false"},
		"no test, no sign": {"/bin/true"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := StartWatchdog(WatchdogOptions{Command: command, Dir: t.TempDir()})
			if err == nil {
				t.Errorf("it starts: %v", errors.Join(w.Close()))
			}
		})
	}
}
