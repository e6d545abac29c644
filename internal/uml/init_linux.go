package uml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// initArg tells this program that it is the init of a guest.
const initArg = "tcplab-uml-init"

// drainTime is how long output is waited for once the command has ended, where
// a process that it left behind holds the pipe open.
const drainTime = time.Second

// modprobeTime is far above what loading a module takes here, some 50 ms.
const modprobeTime = 20 * time.Second

// Init takes over where this program was booted as the init of a guest, and
// does not return then. Call it first in main.
func Init() {
	// The kernel appends arguments of its own.
	if os.Getpid() != 1 || len(os.Args) < 3 || os.Args[1] != initArg {
		return
	}
	how := carryOut(os.Args[2])
	text, err := json.Marshal(how)
	if err == nil {
		err = os.WriteFile(filepath.Join(os.Args[2], resultFile), text, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the result:", err)
	}
	// The console is the host's pipe, and the last words must get there.
	for _, console := range []*os.File{os.Stdout, os.Stderr} {
		drain(console)
	}
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "power off:", err)
	os.Exit(1) //nolint:forbidigo // an init has nowhere to return to: this makes the kernel panic, which ends the guest
}

// carryOut makes the guest fit to live in, runs the command and says how that
// ended.
func carryOut(state string) result {
	text, err := os.ReadFile(filepath.Join(state, requestFile))
	if err != nil {
		return result{Error: fmt.Sprintf("read the request: %v", err)}
	}
	var ask request
	if err := json.Unmarshal(text, &ask); err != nil {
		return result{Error: fmt.Sprintf("read the request: %v", err)}
	}
	if err := settle(state, ask); err != nil {
		return result{Error: fmt.Sprintf("set up the guest: %v", err)}
	}
	how, err := run(ask)
	if err != nil {
		return result{Error: fmt.Sprintf("run %s: %v", ask.Args[0], err)}
	}
	return how
}

// settle lays a writable root over the host's files, loads IPv6, which no
// request would load by itself, and brings up the loopback interface.
func settle(state string, ask request) error {
	if err := overlayRoot(ask.Modules, append([]string{state}, ask.Writable...)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), modprobeTime)
	defer cancel()
	if text, err := exec.CommandContext(ctx, "/sbin/modprobe", "ipv6").CombinedOutput(); err != nil {
		return fmt.Errorf("load ipv6 with modprobe (Debian's package kmod has it): %w: %s", err, text)
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("name the guest: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return nil
}

// run starts the command, waits for it, and reaps what it leaves behind
// meanwhile, as an init must. The command's output goes through pipes rather
// than straight to the consoles, so that it finds itself on no terminal.
func run(ask request) (result, error) {
	path, err := lookPath(ask)
	if err != nil {
		return result{}, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return result{}, err
	}
	defer null.Close()
	files := []*os.File{null}
	var copies sync.WaitGroup
	for _, name := range []string{"/dev/tty1", "/dev/tty2"} {
		console, err := openConsole(name)
		if err != nil {
			return result{}, err
		}
		from, to, err := os.Pipe()
		if err != nil {
			return result{}, err
		}
		files = append(files, to)
		copies.Go(func() {
			defer console.Close()
			if _, err := io.Copy(console, from); err != nil {
				fmt.Fprintf(os.Stderr, "pass the output on to %s: %v\n", name, err)
			}
			drain(console)
		})
	}

	outputs := files[1:]
	theirs := files
	if ask.Merged {
		theirs = []*os.File{null, outputs[0], outputs[0]}
	}
	process, err := os.StartProcess(path, ask.Args, &os.ProcAttr{Dir: ask.Dir, Env: ask.Env, Files: theirs})
	if err != nil {
		return result{}, err
	}
	for _, file := range outputs {
		file.Close()
	}
	how, err := reap(process.Pid)
	if err != nil {
		return result{}, err
	}
	drained := make(chan struct{})
	go func() { copies.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTime):
	}
	return how, nil
}

// lookPath finds the command as a shell in its folder and environment would.
func lookPath(ask request) (string, error) {
	if err := os.Chdir(ask.Dir); err != nil {
		return "", err
	}
	for _, pair := range ask.Env {
		if path, ok := cutPath(pair); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return "", err
			}
		}
	}
	return exec.LookPath(ask.Args[0])
}

// reap waits for all children until the one named has ended.
func reap(pid int) (result, error) {
	for {
		var status unix.WaitStatus
		child, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || child != pid:
			continue
		case err != nil:
			return result{}, fmt.Errorf("wait for the command: %w", err)
		case status.Signaled():
			return result{Status: 128 + int(status.Signal()), Signal: status.Signal()}, nil
		default:
			return result{Status: status.ExitStatus()}, nil
		}
	}
}

// openConsole opens a console in raw mode: it passes bytes on as they are.
func openConsole(name string) (*os.File, error) {
	console, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	mode, err := unix.IoctlGetTermios(int(console.Fd()), unix.TCGETS)
	if err == nil {
		mode.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(console.Fd()), unix.TCSETS, mode)
	}
	if err != nil {
		console.Close()
		return nil, fmt.Errorf("make %s raw: %w", name, err)
	}
	return console, nil
}

// drain waits until the host has taken all that was written to the console
// (tcdrain; TCSBRK with an argument that is not 0).
func drain(console *os.File) {
	if err := unix.IoctlSetInt(int(console.Fd()), unix.TCSBRK, 1); err != nil {
		fmt.Fprintf(os.Stderr, "drain %s: %v\n", console.Name(), err)
	}
}
