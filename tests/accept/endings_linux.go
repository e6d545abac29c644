package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// interrupted sends SIGINT, and then SIGTERM to another run, in the middle of a
// transfer: exit status 130 within a second, the run stored as cancelled,
// nothing left.
func interrupted(ctx context.Context, b *Bench) (string, error) {
	before, err := standing(b.Tcplab)
	if err != nil {
		return "", err
	}
	var figures []string
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		running, err := b.start(ctx, "run", "./tests/labs/endless.yaml")
		if err != nil {
			return "", err
		}
		if err := running.says("running"); err != nil {
			return "", err
		}
		told := time.Now()
		if err := running.Process.Signal(signal); err != nil {
			return "", err
		}
		_ = running.Wait()
		took := time.Since(told)
		figures = append(figures, fmt.Sprintf("%v: gone in %.0f ms", signal, took.Seconds()*1e3))
		figure := strings.Join(figures, ", ")
		if status := running.ProcessState.ExitCode(); status != 130 {
			return figure, fmt.Errorf("exit status %d, want 130: %s", status, lastLines(running.said()))
		}
		if took > goneWithin {
			return figure, fmt.Errorf("more than %v", goneWithin)
		}
		if after, err := standing(b.Tcplab); err != nil || !slices.Equal(before, after) {
			return figure, errors.Join(fmt.Errorf("left behind: %v, before: %v", after, before), err)
		}
		last, err := b.Run(ctx, "runs", "list", "--most", "1", "-o", "json")
		if err != nil {
			return figure, err
		}
		if !strings.Contains(last.Stdout, "RUN_STATE_CANCELLED") {
			return figure, fmt.Errorf("the run is not stored as cancelled: %s", last.Stdout)
		}
	}
	return strings.Join(figures, ", "), nil
}

// oneAtATime starts a run while another is under way: with --wait=0 it fails at
// once, without it is carried out when its turn comes, and the first can be
// cancelled from elsewhere.
func oneAtATime(ctx context.Context, b *Bench) (string, error) {
	first, err := b.start(ctx, "run", "./tests/labs/endless.yaml")
	if err != nil {
		return "", err
	}
	if err := first.says("running"); err != nil {
		return "", err
	}
	refused, err := b.Run(ctx, "run", "handshake", "--wait=0")
	if err != nil {
		return "", err
	}
	if refused.Status == 0 || refused.Took > 2*time.Second {
		return "", fmt.Errorf("--wait=0 ended with %d after %v", refused.Status, refused.Took)
	}
	second, err := b.start(ctx, "run", "handshake", "-o", "json")
	if err != nil {
		return "", err
	}
	if err := second.says("wait"); err != nil {
		return "", err
	}
	cancelled, err := b.Run(ctx, "runs", "cancel", "last")
	if err != nil {
		return "", err
	}
	if cancelled.Status != 0 {
		return "", fmt.Errorf("runs cancel: exit status %d: %s", cancelled.Status, lastLines(cancelled.Stderr))
	}
	_ = first.Wait()
	_ = second.Wait()
	if first.ProcessState.ExitCode() != 130 || second.ProcessState.ExitCode() != 0 {
		return "", fmt.Errorf("the first ended with %d, want 130; the second with %d, want 0: %s",
			first.ProcessState.ExitCode(), second.ProcessState.ExitCode(), lastLines(second.said()))
	}
	return fmt.Sprintf("refused in %.0f ms; the second ran when the first was cancelled", refused.Took.Seconds()*1e3), nil
}

// noPrivilege runs a lab as an ordinary user: in a user namespace of its own it
// passes, and where those are not to be had it exits 3 and says what to do.
func noPrivilege(ctx context.Context, b *Bench) (string, error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("this check becomes an ordinary user, so it must start as root")
	}
	const nobody = 65534
	dir := filepath.Join(b.Dir, "nobody")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		return "", err
	}
	if err := os.Chmod(b.Dir, 0o711); err != nil { //nolint:gosec // passed through, not read
		return "", err
	}
	program := filepath.Join(b.Dir, "tcplab")
	if err := copyProgram(b.Tcplab, program); err != nil {
		return "", err
	}
	run := func(attr *syscall.SysProcAttr, args ...string) (string, string, int, error) {
		command := exec.CommandContext(ctx, program, args...)
		command.Dir = dir
		command.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		command.SysProcAttr = attr
		var out, diagnostics strings.Builder
		command.Stdout, command.Stderr = &out, &diagnostics
		err := command.Run()
		if command.ProcessState == nil {
			return "", "", 0, err
		}
		return out.String(), diagnostics.String(), command.ProcessState.ExitCode(), nil
	}
	ordinary := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, said, status, err := run(ordinary, "run", "handshake", "-o", "json")
	if err != nil {
		return "", err
	}
	if status != 0 {
		return "", fmt.Errorf("as an ordinary user: exit status %d: %s", status, lastLines(said))
	}
	if !json.Valid([]byte(out)) {
		return "", fmt.Errorf("as an ordinary user: no JSON on standard output")
	}
	// In a user namespace that allows no further one, and without capabilities.
	_, said, status, err = b.withoutNamespaces(ctx, program)
	if err != nil {
		return "", err
	}
	if status != 3 || !strings.Contains(said, "to do:") {
		return "", fmt.Errorf("without privilege: exit status %d, want 3 and what to do: %s", status, lastLines(said))
	}
	return "passes in its own user namespace; without one exits 3 and says: " + lastLines(said), nil
}

// withoutNamespaces runs handshake where no user namespace can be made.
func (b *Bench) withoutNamespaces(ctx context.Context, program string) (string, string, int, error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", 0, err
	}
	command := exec.CommandContext(ctx, self, deprivedArgument, program, "run", "handshake")
	command.Dir = b.Dir
	command.Env = []string{"HOME=" + b.Dir, "PATH=" + os.Getenv("PATH")}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	var out, diagnostics strings.Builder
	command.Stdout, command.Stderr = &out, &diagnostics
	if err := command.Run(); command.ProcessState == nil {
		return "", "", 0, err
	}
	return out.String(), diagnostics.String(), command.ProcessState.ExitCode(), nil
}

// deprivedArgument makes this program one that forbids further user namespaces,
// gives up its capabilities and becomes the program named behind it.
const deprivedArgument = "inside-deprived"

func insideDeprived(program string, args []string) error {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o644); err != nil {
		return fmt.Errorf("forbid user namespaces: %w", err)
	}
	// An exec as root would give the capabilities back (capabilities(7)).
	const noRoot, noRootLocked = 1, 2
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|noRootLocked, 0, 0, 0); err != nil {
		return fmt.Errorf("give up root's privilege: %w", err)
	}
	return syscall.Exec(program, append([]string{program}, args...), os.Environ())
}

// cannotStore runs a lab with its state in a place that cannot be written and
// in one that is full: a clear error, and no result that is half there.
func cannotStore(ctx context.Context, b *Bench) (string, error) {
	file := filepath.Join(b.Dir, "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	result, err := b.Run(ctx, "run", "handshake", "--state-dir", filepath.Join(file, "state"))
	if err != nil {
		return "", err
	}
	if result.Status == 0 || result.Stdout != "" || !strings.Contains(result.Stderr, "state directory") {
		return "", fmt.Errorf("unwritable: exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	full := filepath.Join(b.Dir, "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		return "", err
	}
	// 256 KiB hold the database but not a run's results.
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=256k"); err != nil {
		return "", fmt.Errorf("mount a small disk: %w", err)
	}
	defer func() { _ = unix.Unmount(full, unix.MNT_DETACH) }()
	result, err = b.Run(ctx, "run", "slow-start", "--repeat", "20", "--state-dir", full)
	if err != nil {
		return "", err
	}
	if result.Status != 4 || !strings.Contains(result.Stderr, "to do:") {
		return "", fmt.Errorf("full: exit status %d, want 4 and what to do: %s", result.Status, lastLines(result.Stderr))
	}
	if strings.Contains(result.Stdout, "passed") {
		return "", fmt.Errorf("full: a verdict was printed: %s", lastLines(result.Stdout))
	}
	return "unwritable and full are said: " + lastLines(result.Stderr), nil
}

func copyProgram(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755) //nolint:gosec // another user runs it
}
