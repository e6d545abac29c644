// Package program runs programs in the nodes of a lab that stands.
//
// A program has the node's network, and process IDs, mounts and a host name of
// its own: /proc and /sys are the node's, and its hosts and resolv.conf those
// of the lab. Between it and the agent stands a process of tcplab's own, the
// first of the program's process IDs: when that goes the kernel kills whatever
// the program has started, daemons too. It goes when the program ends, when it
// is killed, and when the agent dies in any way, of which the kernel (PDEATHSIG)
// and the end of a socket both tell.
//
// The package refuses to run a program with anything of its host's in these
// places: what cannot be mounted is an error, not a program that sees the host.
package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Spec is a program to be run.
type Spec struct {
	Node     *netns.Handle // whose network it has; open until Wait has returned
	HostName string        // its host name
	Hosts    string        // content of its /etc/hosts
	Resolv   string        // content of its /etc/resolv.conf
	Argv     []string      // the program and its arguments; at least one
	Env      []string      // "NAME=value", all of them
	Dir      string        // where it starts; empty: "/"
	Terminal *Size         // of the terminal that it gets; nil: it has pipes
	Folder   *Folder       // in the place of /tmp; nil: the host's /tmp
	Gainless bool          // it can gain no privilege by execve(2) (no_new_privs)
	Confined *Confinement  // nil: it may do what the agent's user may
}

// Folder is a program's own /tmp: in memory, and gone with it.
type Folder struct {
	Files map[string]string // text files in it, by name
}

// Confinement makes a program that of nobody. It is Gainless, sees every file system
// read-only but for its Folder and /dev/shm, and dumps no core. It runs as user and group
// 65534, or where this process is root of a user namespace that has no such user as
// that root, without any capability.
type Confinement struct {
	Hidden []string // folders that it does not see; those that are not there are not
}

// Size of a terminal in characters.
type Size struct {
	Columns, Rows uint16
}

// Exit is how a program ended.
type Exit struct {
	Status  int            // as a shell has it: 0 to 255
	Signal  syscall.Signal // that ended it; 0: none
	Failure string         // why it was not run, with status 126 or 127
}

// Exit statuses of a program that was not run (POSIX, 2.8.2).
const (
	statusNotRun   = 126
	statusNotFound = 127
	signalBase     = 128 // and the signal's number
)

// Program is one that was started. Its methods are safe for concurrent use, but for Wait
// and Close.
type Program struct {
	// Stdin is the program's standard input. On a terminal closing it does nothing; see
	// EndInput.
	Stdin io.WriteCloser
	// Stdout is what it writes, until it and all that it started have ended.
	Stdout io.Reader
	// Stderr is the same of standard error; nil on a terminal.
	Stderr io.Reader

	name     string
	files    []*os.File // this side's
	terminal *os.File   // this side of the terminal; nil: there is none
	first    *os.Process

	running chan struct{} // closed when it runs, or will not
	told    chan struct{} // closed when last is all that its first process had to say
	last    report
	ended   chan struct{} // closed when its first process is gone
	err     error         // of starting that

	control *os.File // leads to the first process
	mu      sync.Mutex
	orders  *json.Encoder // to control; guarded by mu
}

// Start starts a program. Its end must be waited for, and then it must be closed.
// A program that cannot be run is no error here, but an [Exit].
func Start(spec Spec) (_ *Program, err error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("start a program: none is named")
	}
	p := &Program{name: spec.Argv[0], running: make(chan struct{}), told: make(chan struct{}), ended: make(chan struct{})}
	theirs, err := p.open(spec.Terminal)
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			err = fmt.Errorf("start %s in %s: %w", spec.Argv[0], spec.Node.Name(), errors.Join(err, p.Close()))
		}
	}()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // its end is Kill's matter, and that of what PDEATHSIG is for
	cmd.Args = []string{firstName}
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr // should it panic
	cmd.ExtraFiles = theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		// PDEATHSIG comes when the thread that started the process ends, so the thread,
		// which is in the node for the process to be there, waits for it.
		p.err = spec.Node.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
		select {
		case started <- p.err: // Do itself failed
		default:
		}
	}()
	if err := <-started; err != nil {
		<-p.ended
		return nil, err
	}
	p.first = cmd.Process
	go p.listen()
	err = p.order(order{Program: &settings{
		HostName: spec.HostName, Hosts: spec.Hosts, Resolv: spec.Resolv,
		Argv: spec.Argv, Env: spec.Env, Dir: spec.Dir, Terminal: spec.Terminal != nil,
		Folder: spec.Folder, Gainless: spec.Gainless || spec.Confined != nil, Confined: spec.Confined,
	}})
	if err != nil {
		p.Kill()
		_, endErr := p.Wait()
		return nil, errors.Join(err, endErr)
	}
	return p, nil
}

// listen hears what the first process has to say, until it is gone.
func (p *Program) listen() {
	defer close(p.told)
	var once sync.Once
	runs := func() { once.Do(func() { close(p.running) }) }
	defer runs()
	for reports := json.NewDecoder(p.control); ; {
		var r report
		if reports.Decode(&r) != nil {
			return
		}
		if r.Running {
			runs()
			continue
		}
		p.last = r
		// It ends by itself, and with it what the program left; this is sooner.
		p.Kill()
	}
}

// open makes the ways between this side and the program, and returns what the
// program's side gets: the control socket, and its three files.
func (p *Program) open(terminal *Size) (theirs []*os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make its control socket: %w", err)
	}
	theirs = append(theirs, os.NewFile(uintptr(pair[1]), "control"))
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return theirs, errors.Join(err, unix.Close(pair[0]))
	}
	p.control = os.NewFile(uintptr(pair[0]), "control")
	p.files = append(p.files, p.control)
	p.orders = json.NewEncoder(p.control)
	if terminal != nil {
		master, slave, err := openTerminal(*terminal)
		if err != nil {
			return theirs, err
		}
		p.terminal = master
		p.files = append(p.files, master)
		p.Stdin, p.Stdout = unclosed{master}, terminalReader{master}
		return append(theirs, slave, slave, slave), nil
	}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, fmt.Errorf("make its pipes: %w", err)
		}
		if i == 0 {
			r, w = w, r
		}
		p.files = append(p.files, r)
		theirs = append(theirs, w)
		switch i {
		case 0:
			p.Stdin = r
		case 1:
			p.Stdout = r
		case 2:
			p.Stderr = r
		}
	}
	return theirs, nil
}

// EndInput ends the program's standard input: on a terminal as the user would.
func (p *Program) EndInput() error {
	if p.terminal != nil {
		_, err := p.terminal.Write([]byte{endOfFile})
		return err
	}
	return p.Stdin.Close()
}

// Resize gives the program's terminal another size, of which the kernel tells it.
// Without a terminal it does nothing.
func (p *Program) Resize(s Size) error {
	if p.terminal == nil {
		return nil
	}
	return resize(p.terminal, s)
}

// Signal sends the program, and what it has started in its process group, a
// signal. One that has ended is no error.
func (p *Program) Signal(s syscall.Signal) error {
	if s == syscall.SIGKILL {
		p.Kill()
		return nil
	}
	err := p.order(order{Signal: int(s)})
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

func (p *Program) order(o order) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.orders.Encode(o)
}

// Kill ends the program and all that it has started, at once.
func (p *Program) Kill() {
	// It may have ended by itself; nothing else can be wrong with a child of one's own.
	_ = p.first.Kill()
}

// Running is closed when the program runs, or is known not to: see Wait.
func (p *Program) Running() <-chan struct{} { return p.running }

// Wait waits until the program and all that it started have ended. The error
// says that its surroundings could not be made.
func (p *Program) Wait() (Exit, error) {
	<-p.ended
	// Its side of the socket is closed by now.
	<-p.told
	switch {
	case p.last.Failure != "":
		return Exit{}, fmt.Errorf("prepare %s in its node: %s", p.name, p.last.Failure)
	case p.last.Exit != nil:
		return *p.last.Exit, nil
	}
	return Exit{Status: signalBase + int(syscall.SIGKILL), Signal: syscall.SIGKILL}, nil
}

// Close closes this side's files. The program has ended by then.
func (p *Program) Close() error {
	var errs []error
	for _, f := range p.files {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
