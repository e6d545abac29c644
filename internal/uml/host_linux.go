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
	"strings"
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
	log := &Tail{also: config.Log}
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

// boot runs the kernel until it ends.
func boot(ctx context.Context, kernel, state string, config Config, log *Tail) error {
	diagnostics := config.Stderr
	if same(config.Stdout, config.Stderr) {
		diagnostics = nil // the guest sends both by the first console
	}
	return Boot(ctx, Machine{
		Kernel:  kernel,
		Dir:     state,
		Memory:  config.Memory,
		Params:  []string{"init=" + filepath.Join(state, initFile), "--", initArg, state},
		Talk:    config.Log != nil,
		Outputs: []io.Writer{log, orDiscard(config.Stdout), orDiscard(diagnostics)},
		Log:     log,
	})
}

// judge reads what the guest's init left.
func judge(state string, ended error, log *Tail) error {
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
