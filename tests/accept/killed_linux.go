package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// kills is how many runs are killed.
	kills = 50
	// nodesEach is how many nodes each of them has.
	nodesEach = 2
	// namespaceLimit is the user namespace's max_net_namespaces: a twelfth of
	// kills × nodesEach, so that the namespaces which outlive their run are
	// missed soon.
	namespaceLimit = kills * nodesEach / 12
	// goneWithin is how soon after the kill nothing may be left.
	goneWithin = time.Second
)

// insideArgument makes this program the part of killedRuns that is root of a
// user namespace of its own.
const insideArgument = "inside-killed"

// killedRuns kills runs at random moments, in a user namespace that may hold
// few network namespaces, and looks for what they left.
func killedRuns(ctx context.Context, b *Bench) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	// PDEATHSIG is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.CommandContext(ctx, self, insideArgument, b.Tcplab, b.Root, filepath.Join(b.Dir, "killed"))
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	var out, diagnostics strings.Builder
	command.Stdout, command.Stderr = &out, &diagnostics
	err = command.Run()
	figure := strings.TrimSpace(out.String())
	if err != nil {
		return figure, fmt.Errorf("%w: %s", err, lastLines(diagnostics.String()))
	}
	return figure, nil
}

// insideKilled is killedRuns's part in the user namespace.
func insideKilled(ctx context.Context, tcplab, root, dir string) (string, error) {
	limit := "/proc/sys/user/max_net_namespaces"
	if err := os.WriteFile(limit, []byte(strconv.Itoa(namespaceLimit)), 0o644); err != nil {
		return "", fmt.Errorf("limit the network namespaces: %w", err)
	}
	before, err := standing(tcplab)
	if err != nil {
		return "", err
	}
	run := func(args ...string) (*exec.Cmd, *strings.Builder) {
		command := exec.CommandContext(ctx, tcplab, append([]string{"--state-dir", dir}, args...)...)
		command.Dir = root
		diagnostics := &strings.Builder{}
		command.Stderr = diagnostics
		return command, diagnostics
	}
	// The same moments each time, so that a failure can be looked for again.
	random := rand.New(rand.NewPCG(1, 2))
	killed, slowest := 0, time.Duration(0)
	for i := range kills {
		args := []string{"run", "./tests/labs/endless.yaml"}
		if i%3 == 2 {
			args = []string{"run", "handshake"}
		}
		command, diagnostics := run(args...)
		if err := command.Start(); err != nil {
			return "", err
		}
		moment := time.NewTimer(time.Duration(random.Int64N(int64(2500 * time.Millisecond))))
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		select {
		case <-moment.C:
			if err := command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return "", err
			}
			if err := <-ended; carriedOut(command) != nil && command.ProcessState.Exited() {
				return "", fmt.Errorf("run %d ended by itself: %w: %s", i+1, err, lastLines(diagnostics.String()))
			}
			killed++
		case err := <-ended:
			moment.Stop()
			if carriedOut(command) != nil {
				return "", fmt.Errorf("run %d: %w: %s", i+1, err, lastLines(diagnostics.String()))
			}
		}
		took, err := allGone(tcplab, before)
		if err != nil {
			return "", fmt.Errorf("after run %d: %w", i+1, err)
		}
		slowest = max(slowest, took)
	}
	figure := fmt.Sprintf("%d of %d killed, all gone within %.0f ms, never more than %d namespaces", killed, kills, slowest.Seconds()*1e3, namespaceLimit)
	if killed < kills*2/3 {
		return figure, errors.New("too few were killed to say anything")
	}
	if err := namespacesFree(); err != nil {
		return figure, err
	}
	return figure, stateIsWhole(run, dir)
}

// carriedOut says whether a run went to its end, whatever it found: its
// predictions are not the matter here.
func carriedOut(command *exec.Cmd) error {
	if status := command.ProcessState.ExitCode(); status != 0 && status != 1 {
		return fmt.Errorf("exit status %d", status)
	}
	return nil
}

// stateIsWhole looks at the state directory after the killed runs: the next
// run goes well, and no file of an earlier one is left over.
func stateIsWhole(run func(...string) (*exec.Cmd, *strings.Builder), dir string) error {
	command, diagnostics := run("run", "handshake")
	if err := command.Run(); err != nil && carriedOut(command) != nil {
		return fmt.Errorf("the next run: %w: %s", err, lastLines(diagnostics.String()))
	}
	spooled, err := filepath.Glob(filepath.Join(dir, "spool", "[^.]*"))
	if err != nil || len(spooled) > 0 {
		return errors.Join(fmt.Errorf("left in the spool: %v", spooled), err)
	}
	command, diagnostics = run("runs", "list", "-o", "json", "--most", "1000")
	var out strings.Builder
	command.Stdout = &out
	if err := command.Run(); err != nil {
		return fmt.Errorf("list the runs: %w: %s", err, lastLines(diagnostics.String()))
	}
	for _, state := range []string{"RUN_STATE_RUNNING", "RUN_STATE_PENDING"} {
		if strings.Contains(out.String(), state) {
			return fmt.Errorf("a killed run is still %s", state)
		}
	}
	return nil
}

// allGone waits until what stands is what stood before.
func allGone(tcplab string, before []string) (time.Duration, error) {
	start := time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, err := standing(tcplab)
		if err == nil && !slices.Equal(now, before) {
			err = fmt.Errorf("left behind: %v, before: %v", now, before)
		}
		took := time.Since(start)
		if err == nil {
			return took, nil
		}
		if took > goneWithin {
			return took, err
		}
		<-ticker.C
	}
}

// standing lists interfaces, qdiscs and tcplab's processes.
func standing(tcplab string) ([]string, error) {
	var all []string
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		all = append(all, "interface "+link.Attrs().Name)
		qdiscs, err := netlink.QdiscList(link)
		if err != nil {
			return nil, fmt.Errorf("list qdiscs: %w", err)
		}
		for _, qdisc := range qdiscs {
			all = append(all, "qdisc "+qdisc.Type()+" on "+link.Attrs().Name)
		}
	}
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	for _, program := range programs {
		if target, err := os.Readlink(program); err == nil && target == tcplab {
			all = append(all, "process "+program)
		}
	}
	slices.Sort(all)
	return all, nil
}

// namespacesFree makes as many network namespaces as the user namespace allows,
// which is possible only where nobody holds one, and lets them go. The kernel
// clears up behind a namespace's last user, so it is given goneWithin.
func namespacesFree() error {
	var made []*os.File
	defer func() {
		for _, f := range made {
			f.Close()
		}
	}()
	deadline := time.After(goneWithin)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for len(made) < namespaceLimit {
		file, err := newNamespace()
		if err == nil {
			made = append(made, file)
			continue
		}
		if !errors.Is(err, unix.ENOSPC) {
			return err
		}
		select {
		case <-deadline:
			return fmt.Errorf("only %d of %d network namespaces are free: %w", len(made), namespaceLimit, err)
		case <-ticker.C:
		}
	}
	return nil
}

// newNamespace makes a network namespace that lives as long as its file.
func newNamespace() (*os.File, error) {
	type namespace struct {
		file *os.File
		err  error
	}
	done := make(chan namespace)
	go func() {
		// Never unlocked: the thread, now elsewhere, ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- namespace{err: err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		done <- namespace{file, err}
	}()
	got := <-done
	return got.file, got.err
}
