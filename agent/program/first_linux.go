package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstName is the name, argv[0], under which this same binary is a program's
// first process.
const firstName = "tcplab: first process of a node's program"

// Descriptors of the first process: the control socket, and those that the program
// has as 0, 1 and 2.
const (
	controlFD = 3
	stdioFD   = 4
)

// settings are what the first process makes of its Spec.
type settings struct {
	HostName, Hosts, Resolv string
	Argv, Env               []string
	Dir                     string
	Terminal                bool
	Folder                  *Folder      `json:",omitempty"`
	Gainless                bool         `json:",omitempty"`
	Confined                *Confinement `json:",omitempty"`
}

// order is what the first process is told: first the program, then signals.
type order struct {
	Program *settings `json:",omitempty"`
	Signal  int       `json:",omitempty"`
}

// report is what the first process says: one thing.
type report struct {
	Running bool   `json:",omitempty"` // the program runs
	Exit    *Exit  `json:",omitempty"` // it has ended, or could not be run
	Failure string `json:",omitempty"` // its surroundings could not be made
}

// IsFirst reports whether this process is the first of a program. Whoever calls [Start]
// must have its main, or TestMain, call [First] then, and nothing else.
func IsFirst() bool { return os.Getpid() == 1 && len(os.Args) == 1 && os.Args[0] == firstName }

// First is the first process of a program: it makes the program's surroundings, starts it,
// buries what has lost its parent, and ends with it, which is the end of all that the
// program has started; or when the agent is gone. It returns the exit status, with which the caller ends.
func First() int {
	control := os.NewFile(controlFD, "control")
	say := json.NewEncoder(control)
	heard := json.NewDecoder(control)
	var o order
	if err := heard.Decode(&o); err != nil || o.Program == nil {
		return 1 // nobody is there to be told
	}
	unix.Umask(0o022) // whatever the agent's is
	// What restrains the program is a matter of the thread that starts it.
	runtime.LockOSThread()
	if err := o.Program.surround(); err != nil {
		_ = say.Encode(report{Failure: err.Error()})
		return 1
	}
	if err := closeOnExec(); err != nil {
		_ = say.Encode(report{Failure: err.Error()})
		return 1
	}
	pid, exit := o.Program.start()
	if exit != nil {
		_ = say.Encode(report{Exit: exit})
		return 1
	}
	_ = say.Encode(report{Running: true})
	orders := make(chan int)
	go func() {
		defer close(orders)
		for {
			var o order
			if heard.Decode(&o) != nil {
				return
			}
			orders <- o.Signal
		}
	}()
	ended := make(chan Exit, 1)
	go func() { ended <- bury(pid) }()
	for {
		select {
		case signal, ok := <-orders:
			if !ok {
				return 1 // the agent is gone, and so is the program with this process
			}
			// What has ended needs no signal.
			_ = unix.Kill(-pid, syscall.Signal(signal))
		case exit := <-ended:
			_ = say.Encode(report{Exit: &exit})
			return 0
		}
	}
}

// closeOnExec keeps every descriptor from the program that it is not given: those of this
// process, and any that the agent itself was started with.
func closeOnExec() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the open files: %w", err)
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// start starts the program, or says why it does not run.
func (s *settings) start() (pid int, exit *Exit) {
	fail := func(status int, format string, args ...any) (int, *Exit) {
		return 0, &Exit{Status: status, Failure: fmt.Sprintf(format, args...)}
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	if err := os.Chdir(s.Dir); err != nil {
		return fail(statusNotRun, "start in %s: %v", s.Dir, errno(err))
	}
	path, err := s.find()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fail(statusNotFound, "%s: there is no such program", s.Argv[0])
	}
	if err != nil {
		return fail(statusNotRun, "%s: %v", s.Argv[0], errno(err))
	}
	who, err := s.restrain()
	if err != nil {
		return fail(statusNotRun, "%v", err)
	}
	files := []uintptr{stdioFD, stdioFD + 1, stdioFD + 2}
	pid, err = syscall.ForkExec(path, s.Argv, &syscall.ProcAttr{
		Env: s.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: s.Terminal, Ctty: 0, Credential: who},
	})
	for _, fd := range files {
		unix.Close(int(fd))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fail(statusNotFound, "%s: what runs it is missing: %v", path, errno(err))
	}
	if err != nil {
		return fail(statusNotRun, "%s: %v", path, errno(err))
	}
	return pid, nil
}

// find is the program's path, by the PATH that the program will have.
func (s *settings) find() (string, error) {
	path := ""
	for _, variable := range s.Env {
		if len(variable) > 5 && variable[:5] == "PATH=" {
			path = variable[5:]
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return "", err
	}
	found, err := exec.LookPath(s.Argv[0])
	if errors.Is(err, exec.ErrDot) { // a shell would run it, and so does this
		err = nil
	}
	return found, err
}

// errno is the bare reason for which a file could not be used.
func errno(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number
	}
	return err
}

// bury waits for the program, and for everything that has lost its parent before that.
func bury(program int) Exit {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD: somebody else has waited, which nobody does
			return Exit{Status: statusNotRun, Failure: fmt.Sprintf("wait for it: %v", err)}
		case pid != program:
		case status.Signaled():
			return Exit{Status: signalBase + int(status.Signal()), Signal: status.Signal()}
		case status.Exited():
			return Exit{Status: status.ExitStatus()}
		}
	}
}
