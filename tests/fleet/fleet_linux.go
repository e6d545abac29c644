// Package fleet is a real fleet on one machine: a network namespace for each machine, a management network
// that joins them, a controller process and an agent process on each host, all the built program. Tests cut the
// network, kill processes and look at what is left.
//
// It refuses to pretend: nothing here speaks for a controller or an agent.
package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/internal/netns"
)

// within bounds everything that the harness waits for.
const within = 30 * time.Second

// port is where the controller serves.
const port = "7443"

// Fleet is the machines and what runs on them. Its methods are for one goroutine, but for Tcplab.
type Fleet struct {
	tcplab   string
	dir      string
	network  *machine // the switch of the management network
	control  *machine
	hosts    map[string]*machine
	next     byte
	keepArgs []string
}

// machine is a namespace and the process on it.
type machine struct {
	name    string
	space   *netns.Handle
	address netip.Addr
	process *process // nil: none runs
}

// New makes the management network and the controller's machine. Tcplab is the program, dir an empty folder. The
// caller closes the fleet.
func New(tcplab, dir string) (_ *Fleet, err error) {
	f := &Fleet{tcplab: tcplab, dir: dir, hosts: make(map[string]*machine), next: 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	space, err := netns.New("management")
	if err != nil {
		return nil, err
	}
	f.network = &machine{name: "management", space: space}
	if err := withNetlink(space, func(nl *netlink.Handle) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		return errors.Join(nl.LinkAdd(bridge), nl.LinkSetUp(bridge))
	}); err != nil {
		return nil, err
	}
	f.control, err = f.machine("controller")
	return f, err
}

func withNetlink(space *netns.Handle, do func(*netlink.Handle) error) error {
	nl, err := space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	return do(nl)
}

// machine makes a namespace with an interface eth0 on the management network.
func (f *Fleet) machine(name string) (*machine, error) {
	space, err := netns.New(name)
	if err != nil {
		return nil, err
	}
	m := &machine{name: name, space: space, address: netip.AddrFrom4([4]byte{192, 0, 2, f.next})}
	f.next++
	err = withNetlink(f.network.space, func(nl *netlink.Handle) error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: portOf(m)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(space.FD()),
		}
		if err := nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("plug %s in: %w", name, err)
		}
		bridge, err := nl.LinkByName("br0")
		if err != nil {
			return err
		}
		return errors.Join(nl.LinkSetMaster(veth, bridge), nl.LinkSetUp(veth))
	})
	if err == nil {
		err = withNetlink(space, func(nl *netlink.Handle) error {
			eth, err := nl.LinkByName("eth0")
			if err != nil {
				return err
			}
			address, err := netlink.ParseAddr(m.address.String() + "/24")
			if err != nil {
				return err
			}
			return errors.Join(nl.AddrAdd(eth, address), nl.LinkSetUp(eth))
		})
	}
	if err != nil {
		return nil, errors.Join(err, space.Close())
	}
	return m, nil
}

// portOf is the machine's port on the switch, whose name has at most 15 bytes.
func portOf(m *machine) string { return fmt.Sprintf("p%d", m.address.As4()[3]) }

// Address is where the controller serves.
func (f *Fleet) Address() string { return f.control.address.String() + ":" + port }

// Cut takes a host off the management network without a word: neither side is told.
func (f *Fleet) Cut(host string) error { return f.plug(host, false) }

// Heal puts it back.
func (f *Fleet) Heal(host string) error { return f.plug(host, true) }

// plug removes the host's port from the switch's bridge, or puts it back: frames vanish, and no carrier goes.
func (f *Fleet) plug(host string, in bool) error {
	m, ok := f.hosts[host]
	if !ok {
		return fmt.Errorf("no host is called %s", host)
	}
	return withNetlink(f.network.space, func(nl *netlink.Handle) error {
		at, err := nl.LinkByName(portOf(m))
		if err != nil {
			return err
		}
		if !in {
			return nl.LinkSetNoMaster(at)
		}
		bridge, err := nl.LinkByName("br0")
		if err != nil {
			return err
		}
		return nl.LinkSetMaster(at, bridge)
	})
}

// StartController starts the controller, and waits until it serves. Args are further ones.
func (f *Fleet) StartController(args ...string) error {
	if len(args) > 0 {
		f.keepArgs = args
	}
	p, err := f.start(f.control, nil, append([]string{"controller", "--name", "lab1", "--listen", ":" + port, "--log-level", "info"}, f.keepArgs...)...)
	if err != nil {
		return err
	}
	f.control.process = p
	return p.says("serves at")
}

// Join lets a new machine in as a host, and starts its agent. Policy is the content of its agent.yaml; empty: none.
func (f *Fleet) Join(ctx context.Context, host, policy string) error {
	m, err := f.machine(host)
	if err != nil {
		return err
	}
	f.hosts[host] = m
	if err := os.MkdirAll(f.folder(m), 0o700); err != nil {
		return err
	}
	if policy != "" {
		if err := os.WriteFile(f.policy(m), []byte(policy), 0o600); err != nil {
			return err
		}
	}
	token, err := f.Admin(ctx, "token", "create", "--host", host)
	if err != nil {
		return err
	}
	return f.StartAgent(host, "--controller", f.Address(), "--join", strings.TrimSpace(token))
}

// StartAgent starts a host's agent, and waits until it has a session.
func (f *Fleet) StartAgent(host string, args ...string) error {
	if err := f.LaunchAgent(host, args...); err != nil {
		return err
	}
	return f.hosts[host].process.says("in session with")
}

// LaunchAgent starts a host's agent, and waits for nothing.
func (f *Fleet) LaunchAgent(host string, args ...string) error {
	m, ok := f.hosts[host]
	if !ok {
		return fmt.Errorf("no host is called %s", host)
	}
	p, err := f.start(m, []string{"TCPLAB_AGENT_CONFIG=" + f.policy(m)}, append([]string{"agent", "--log-level", "info"}, args...)...)
	if err != nil {
		return err
	}
	m.process = p
	return nil
}

// KillController kills the controller with -9.
func (f *Fleet) KillController() error { return f.control.end(syscall.SIGKILL) }

// StopController ends it in order.
func (f *Fleet) StopController() error { return f.control.end(syscall.SIGTERM) }

// KillAgent kills a host's agent with -9.
func (f *Fleet) KillAgent(host string) error { return f.hosts[host].end(syscall.SIGKILL) }

// StopAgent ends it in order.
func (f *Fleet) StopAgent(host string) error { return f.hosts[host].end(syscall.SIGTERM) }

// AgentPID is the process of a host's agent.
func (f *Fleet) AgentPID(host string) int { return f.hosts[host].process.cmd.Process.Pid }

// ControllerPID is the controller's process.
func (f *Fleet) ControllerPID() int { return f.control.process.cmd.Process.Pid }

// Links names the interfaces in a host's own namespace.
func (f *Fleet) Links(host string) (names []string, err error) {
	err = withNetlink(f.hosts[host].space, func(nl *netlink.Handle) error {
		links, err := nl.LinkList()
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return names, err
}

// Said is what the agent of a host has written since it was last started.
func (f *Fleet) Said(host string) string { return f.hosts[host].process.said() }

// ControllerSaid is what the controller has.
func (f *Fleet) ControllerSaid() string { return f.control.process.said() }

// Admin runs tcplab as root of the controller's machine, and returns its standard output.
func (f *Fleet) Admin(ctx context.Context, args ...string) (string, error) {
	result, err := f.Tcplab(ctx, append([]string{"--context", "local"}, args...)...)
	if err == nil && result.Status != 0 {
		err = fmt.Errorf("tcplab %s: exit status %d: %s", strings.Join(args, " "), result.Status, result.Stderr)
	}
	return result.Stdout, err
}

// Result is what came of a command.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Tcplab runs tcplab on the controller's machine, with its contexts.
func (f *Fleet) Tcplab(ctx context.Context, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, f.tcplab, args...)
	cmd.Env = f.environment(f.control)
	cmd.Dir = "/"
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := f.control.space.Do(cmd.Start); err != nil {
		return Result{}, err
	}
	err := cmd.Wait()
	result := Result{Stdout: out.String(), Stderr: errs.String(), Status: cmd.ProcessState.ExitCode()}
	if _, exited := errors.AsType[*exec.ExitError](err); exited && ctx.Err() == nil {
		err = nil
	}
	return result, err
}

// Command is a tcplab of a user that goes on.
type Command struct{ process *process }

// Launch starts tcplab on the controller's machine, and waits for nothing. It must end before the fleet is closed.
func (f *Fleet) Launch(args ...string) (*Command, error) {
	p, err := f.start(f.control, nil, args...)
	return &Command{p}, err
}

// Says waits until the command writes a word.
func (c *Command) Says(word string) error { return c.process.says(word) }

// Wait waits for the command's end, and returns its exit status and all that it wrote.
func (c *Command) Wait(ctx context.Context) (status int, said string, err error) {
	select {
	case <-c.process.ended:
		return c.process.cmd.ProcessState.ExitCode(), c.process.said(), nil
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), c.process.cmd.Process.Kill())
		<-c.process.ended
		return -1, c.process.said(), err
	}
}

func (f *Fleet) folder(m *machine) string { return filepath.Join(f.dir, m.name) }

func (f *Fleet) policy(m *machine) string { return filepath.Join(f.folder(m), "agent.yaml") }

func (f *Fleet) environment(m *machine) []string {
	return append(os.Environ(),
		"TCPLAB_STATE_DIR="+f.folder(m), "TCPLAB_RUNTIME_DIR="+filepath.Join(f.dir, "run"),
		"TCPLAB_CONFIG_DIR="+filepath.Join(f.dir, "config"), "TCPLAB_CONTEXT=")
}

func (f *Fleet) start(m *machine, env []string, args ...string) (*process, error) {
	if err := os.MkdirAll(f.folder(m), 0o700); err != nil {
		return nil, err
	}
	cmd := exec.Command(f.tcplab, args...) //nolint:noctx // it is ended by Close
	cmd.Env = append(f.environment(m), env...)
	cmd.Dir = "/"
	p := &process{cmd: cmd, more: make(chan struct{}, 1), ended: make(chan struct{})}
	cmd.Stderr, cmd.Stdout = p, p
	if err := m.space.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start tcplab on %s: %w", m.name, err)
	}
	go func() { // ends with the process
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// end ends the machine's process by a signal, and waits until it is gone.
func (m *machine) end(by syscall.Signal) error {
	if m == nil || m.process == nil {
		return nil
	}
	p := m.process
	m.process = nil
	if err := p.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(within):
		return errors.Join(fmt.Errorf("the process on %s does not end: %s", m.name, p.said()), p.cmd.Process.Kill())
	}
}

// Close ends all processes and lets go of the machines.
func (f *Fleet) Close() error {
	var errs []error
	for m := range maps.Values(f.hosts) {
		errs = append(errs, m.end(syscall.SIGTERM))
	}
	errs = append(errs, f.control.end(syscall.SIGTERM))
	for m := range maps.Values(f.hosts) {
		errs = append(errs, m.space.Close())
	}
	if f.control != nil {
		errs = append(errs, f.control.space.Close())
	}
	if f.network != nil {
		errs = append(errs, f.network.space.Close())
	}
	return errors.Join(errs...)
}

// process is a program under way and what it writes.
type process struct {
	cmd   *exec.Cmd
	more  chan struct{}
	ended chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// Write is io.Writer's.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.out.Write(b)
}

func (p *process) said() string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// says waits until the process writes a word.
func (p *process) says(word string) error {
	late := time.After(within)
	for !strings.Contains(p.said(), word) {
		select {
		case <-p.more:
		case <-p.ended:
			return fmt.Errorf("it ended without a word of %q: %s", word, p.said())
		case <-late:
			return fmt.Errorf("no word of %q within %v: %s", word, within, p.said())
		}
	}
	return nil
}
