package uml

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// The files by which host and guest speak, in a folder that both can write.
const (
	initFile    = "init"         // a link to this program, which is the guest's init too
	requestFile = "request.json" // what to run
	resultFile  = "result.json"  // how it ended
)

// request is what the guest's init is asked to do.
type request struct {
	Args     []string `json:"args"`
	Dir      string   `json:"dir"`
	Env      []string `json:"env"`
	Modules  string   `json:"modules"`
	Writable []string `json:"writable"`
	Merged   bool     `json:"merged"` // standard error goes where standard output goes
}

// result is how that ended. Either Error is set, and the command did not run,
// or the rest says how it ended.
type result struct {
	Error  string         `json:"error,omitempty"`
	Status int            `json:"status"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

// Run boots a guest, runs the command in it as root and ends the guest. The
// program that calls it must call [Init] first of all, for the guest boots the
// same program as its init. The error is an [ExitError] when the command did
// not succeed, and a [GuestError] when it could not be carried out. When the
// context ends, and when this process dies in any way, the whole guest is killed.
func Run(ctx context.Context, config Config, args ...string) error {
	if len(args) == 0 {
		return errors.New("user-mode-linux: no command to run")
	}
	kernel, err := exec.LookPath(cmp.Or(config.Kernel, "linux.uml"))
	if err != nil {
		return fmt.Errorf("find the guest kernel (Debian's package user-mode-linux has it): %w", err)
	}
	state, err := os.MkdirTemp("", "tcplab-uml-")
	if err != nil {
		return fmt.Errorf("make the guest's folder: %w", err)
	}
	defer os.RemoveAll(state)
	if strings.ContainsAny(state, " \t\"") {
		return fmt.Errorf("the guest's folder %q cannot be named to a kernel: set TMPDIR to one without spaces", state)
	}
	if err := prepare(state, config, args); err != nil {
		return fmt.Errorf("prepare the guest's folder: %w", err)
	}
	log := &tail{also: config.Log}
	ended := boot(ctx, kernel, state, config, log)
	if cause := ctx.Err(); cause != nil {
		return &GuestError{Err: fmt.Errorf("the guest was killed: %w", cause), Log: log.String()}
	}
	return judge(state, ended, log)
}

// prepare lays out the folder: the request and the init.
func prepare(state string, config Config, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(state, initFile)); err != nil {
		return err
	}
	ask := request{
		Args:     args,
		Dir:      config.Dir,
		Env:      config.Env,
		Modules:  cmp.Or(config.Modules, "/usr/lib/uml/modules"),
		Writable: config.Writable,
		Merged:   same(config.Stdout, config.Stderr),
	}
	if ask.Dir == "" {
		if ask.Dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	if ask.Env == nil {
		ask.Env = os.Environ()
	}
	text, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(state, requestFile), text, 0o600)
}

// boot runs the kernel until it ends and returns how the process ended, which
// says little: a kernel that halts and one that panics may both exit with 0 or 1.
func boot(ctx context.Context, kernel, state string, config Config, log *tail) error {
	memory := cmp.Or(config.Memory, 1<<30)
	// The kernel is several processes, which do not all end with the first. The
	// shell is the init of a process namespace and takes them with it; the kernel
	// itself could not be, since an init does not die of the abort that ends a panic.
	talk := "quiet"
	if config.Log != nil {
		talk = "loglevel=7"
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `"$@"; exit $?`, "sh", kernel,
		fmt.Sprintf("mem=%dM", memory>>20),
		"uml_dir="+state+"/", "umid=guest",
		"root=hostfs", "rootfstype=hostfs", "rootflags=/", "ro",
		// A panic ends the process rather than leaving it to spin.
		"panic=-1", "noreboot", talk,
		"con=null", "con0=null,fd:3", "con1=null,fd:4", "con2=null,fd:5",
		"init="+filepath.Join(state, initFile), "--", initArg, state)
	cmd.Env = []string{"TMPDIR=" + os.Getenv("TMPDIR")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}

	var copies sync.WaitGroup
	var theirs []*os.File
	defer copies.Wait()
	diagnostics := config.Stderr
	if same(config.Stdout, config.Stderr) {
		diagnostics = nil // the guest sends both by the first console
	}
	for _, to := range []io.Writer{log, orDiscard(config.Stdout), orDiscard(diagnostics)} {
		from, guests, err := os.Pipe()
		if err != nil {
			closeAll(theirs)
			return err
		}
		theirs = append(theirs, guests)
		copies.Go(func() {
			defer from.Close()
			if _, err := io.Copy(to, from); err != nil {
				fmt.Fprintf(log, "user-mode-linux: pass the output on: %v\n", err)
				// The writer is lost, and the guest must not block on it.
				_, _ = io.Copy(io.Discard, from)
			}
		})
	}
	cmd.ExtraFiles = theirs

	// The signal at the parent's death is one at the death of the thread that
	// started the child, so that thread is kept until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back := place()
	err := cmd.Start()
	back()
	closeAll(theirs)
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// judge reads what the guest's init left.
func judge(state string, ended error, log *tail) error {
	text, err := os.ReadFile(filepath.Join(state, resultFile))
	if err != nil {
		return &GuestError{Err: cmp.Or(ended, errors.New("the guest ended without a result")), Log: log.String()}
	}
	var how result
	if err := json.Unmarshal(text, &how); err != nil {
		return &GuestError{Err: fmt.Errorf("read the guest's result: %w", err), Log: log.String()}
	}
	switch {
	case how.Error != "":
		return &GuestError{Err: errors.New(how.Error), Log: log.String()}
	case how.Status != 0:
		return &ExitError{Status: how.Status, Signal: how.Signal}
	}
	return nil
}

// same tells whether both are one writer, which must not be written to from two
// goroutines, and whose order is that of the command's writes.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && a == b
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}
