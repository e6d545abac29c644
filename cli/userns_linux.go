package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVar tells the program started by enterUserNamespace where it is, so
// that it does not start another.
const insideVar = "TCPLAB_USER_NAMESPACE"

// enterUserNamespace runs this same command as root of a user namespace of its
// own, where this process may not make network namespaces itself. It reports
// whether it did so, and the exit status. stdin is what the command has not read
// yet, or reads again. The other process is killed by the
// kernel when this one dies in any way.
func (a *app) enterUserNamespace(ctx context.Context, stdin io.Reader) (status int, entered bool, err error) {
	if canMakeNamespaces() {
		return 0, false, nil
	}
	if a.Getenv(insideVar) != "" {
		return 0, true, noPrivilege(nil)
	}
	dir, err := a.stateDirectory()
	if err != nil {
		return 0, true, err
	}
	// PDEATHSIG is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVar+"=1", stateDirVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, a.Out, a.Err
	cmd.SysProcAttr = asRootOfUserNamespace()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// Its own group: a terminal's Ctrl-C comes through this process, once.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		a.log.Debug("enter a user namespace", "error", err)
		return 0, true, noPrivilege(err)
	}
	ended := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		for {
			select {
			case <-ended:
				return
			case <-a.Signals:
				_ = cmd.Process.Signal(os.Interrupt)
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	<-forwarded
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() >= 0 {
			return exit.ExitCode(), true, nil
		}
		if by := exit.Sys().(syscall.WaitStatus).Signal(); by == syscall.SIGINT || by == syscall.SIGTERM {
			return exitInterrupted, true, nil
		}
		return exitTrial, true, nil
	}
	if err != nil {
		return 0, true, fmt.Errorf("run in a user namespace: %w", err)
	}
	return 0, true, nil
}

// asRootOfUserNamespace has a process start as root of a user namespace, which is this user
// outside.
func asRootOfUserNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

// noPrivilege says that this user can make no lab stand; why may be nil.
func noPrivilege(why error) error {
	e := &statusError{
		status:  exitHost,
		message: "making network namespaces needs root, and this machine gives this user no user namespace",
		remedy:  "run as root, or allow user namespaces: sysctl user.max_user_namespaces=10000 (and on Debian kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)",
	}
	if why != nil {
		e.message += ": " + why.Error()
	}
	return e
}

// canMakeNamespaces reports whether this process has the capabilities that a
// lab needs over its user namespace (capabilities(7)).
func canMakeNamespaces() bool {
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return os.Geteuid() == 0
	}
	for line := range strings.Lines(string(content)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			effective, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			need := uint64(1)<<unix.CAP_SYS_ADMIN | uint64(1)<<unix.CAP_NET_ADMIN
			return err == nil && effective&need == need
		}
	}
	return false
}

// enterCommand is what a user types to look around in a node.
func enterCommand(netnsPath string) string {
	if inUserNamespace() {
		return fmt.Sprintf("nsenter -t %d --user --preserve-credentials --net=%s", os.Getpid(), netnsPath)
	}
	return "nsenter --net=" + netnsPath
}
