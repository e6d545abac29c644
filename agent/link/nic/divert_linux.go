package nic

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	tcx "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
)

// divert leads packets from a host's interface into a link and from the link back to
// the interface. Its switch is off until it is turned, and packets pass then as if it were
// not there.
type divert struct {
	host    *Host
	iface   facts
	match   link.Match
	tag     string // in the names of what is made
	journal *guard.Journal

	on       *ebpf.Map
	programs []*ebpf.Program
	own      []tcx.Link // at the link's devices, which end with it
	hung     []hung     // at the interface, in the order in which they were hung
}

// hung is a program at the host's interface.
type hung struct {
	hook interface {
		intact() error
		close() error
	}
	what string
}

// devices are the link's interfaces in the host's namespace.
type devices struct{ near, far string }

// hang makes the programs and hangs them, switched off. On an error nothing of them is
// left at the interface. The caller holds the host's mu.
func (d *divert) hang(ends devices, hooks Hooks) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.takeDown())
		}
	}()
	return d.host.space.Do(func() error {
		near, err := netlink.LinkByName(ends.near)
		if err != nil {
			return fmt.Errorf("find the link's near end: %w", err)
		}
		far, err := netlink.LinkByName(ends.far)
		if err != nil {
			return fmt.Errorf("find the link's far end: %w", err)
		}
		if d.on, err = newSwitch(); err != nil {
			return err
		}
		w := selection{match: d.match, kept: d.host.kept(), loopback: d.iface.Loopback}
		// Behind the link first: what is diverted must find its way back.
		for _, b := range []struct {
			at   int
			side side
		}{{far.Attrs().Index, sent}, {near.Attrs().Index, received}} {
			program, err := d.load("back", leave(b.side, d.iface.index))
			if err == nil {
				err = d.hangOwn(b.at, program, hooks)
			}
			if err != nil {
				return fmt.Errorf("lead packets out of the link: %w", err)
			}
		}
		home, err := d.load("in", enter(received, w, far.Attrs().Index, near.Attrs().Index, d.on.FD()))
		if err != nil {
			return err
		}
		away, err := d.load("out", enter(sent, w, near.Attrs().Index, far.Attrs().Index, d.on.FD()))
		if err != nil {
			return err
		}
		if hooks == TCX {
			return errors.Join(d.hangTCX(received, home), d.hangTCX(sent, away))
		}
		return d.hangFilters(home, away)
	})
}

// load gives a program to the kernel.
func (d *divert) load(what string, code asm.Instructions) (*ebpf.Program, error) {
	program, err := loadProgram("tcplab_"+what, code)
	if err != nil {
		return nil, err
	}
	d.programs = append(d.programs, program)
	return program, nil
}

// hangOwn hangs a program where the link's device receives. It ends with the device.
func (d *divert) hangOwn(index int, program *ebpf.Program, hooks Hooks) error {
	if hooks == TCX {
		attached, err := attachTCX(index, received, program)
		if err == nil {
			d.own = append(d.own, attached)
		}
		return err
	}
	if err := addClsact(index); err != nil {
		return err
	}
	return addFilter(newFilter(index, received, firstPriority, d.name(), program))
}

// name is the filters'.
func (d *divert) name() string { return "tcplab_" + d.tag }

// change writes a change down and makes it.
func (d *divert) change(c guard.Change, what string, do func() error) error {
	if err := d.journal.Write(c); err != nil {
		return err
	}
	d.host.o.Step("wrote down: " + what)
	if err := do(); err != nil {
		return fmt.Errorf("interface %s: %w", d.iface.Name, err)
	}
	d.host.o.Step("made: " + what)
	return nil
}

func (d *divert) hangTCX(s side, program *ebpf.Program) error {
	c := guard.Change{Kind: kindTCX, Interface: d.iface.Name, Index: d.iface.index}
	what := "program where it " + s.String()
	return d.change(c, what, func() error {
		attached, err := attachTCX(d.iface.index, s, program)
		if err == nil {
			d.hung = append(d.hung, hung{&tcxHook{attached}, what})
		}
		return err
	})
}

// String says what an interface does on the side.
func (s side) String() string {
	if s == received {
		return "receives"
	}
	return "sends"
}

// hangFilters hangs both programs in a clsact qdisc.
func (d *divert) hangFilters(home, away *ebpf.Program) error {
	index := d.iface.index
	there, err := hasClsact(index)
	if err != nil {
		return fmt.Errorf("interface %s: %w", d.iface.Name, err)
	}
	if !there || d.host.made[index] {
		// Written down by each link that uses it: whichever is the last one takes it away.
		c := guard.Change{Kind: kindClsact, Interface: d.iface.Name, Index: index}
		err := d.change(c, "clsact qdisc", func() error {
			if there {
				return nil
			}
			if err := addClsact(index); err != nil {
				return err
			}
			d.host.made[index] = true
			return nil
		})
		if err != nil {
			return err
		}
	}
	priority, err := freePriority(index)
	if err != nil {
		return fmt.Errorf("interface %s: %w", d.iface.Name, err)
	}
	for _, f := range []struct {
		side    side
		program *ebpf.Program
	}{{received, home}, {sent, away}} {
		info, err := f.program.Info()
		if err != nil {
			return fmt.Errorf("identify a BPF program: %w", err)
		}
		id, _ := info.ID()
		c := guard.Change{
			Kind: kindFilter, Interface: d.iface.Name, Index: index, Parent: parent(f.side), Priority: priority,
			Handle: filterHandle, Program: uint32(id), Name: d.name(),
		}
		what := "filter where it " + f.side.String()
		err = d.change(c, what, func() error {
			err := addFilter(newFilter(index, f.side, priority, d.name(), f.program))
			if err == nil {
				d.hung = append(d.hung, hung{&filterHook{identityOf(c), c, d.host}, what})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// turn turns the diversion on or off. What is on its way in the link goes on.
func (d *divert) turn(on bool) error { return turn(d.on, on) }

// intact is nil while all hangs at the interface as it was hung.
func (d *divert) intact() error {
	return d.host.space.Do(func() error {
		for _, h := range d.hung {
			if err := h.hook.intact(); err != nil {
				return fmt.Errorf("interface %s, %s: %w", d.iface.Name, h.what, err)
			}
		}
		return nil
	})
}

// takeDown takes all away that hang made, the last first. The caller holds the host's
// mu. Called again it does what it could not do before.
func (d *divert) takeDown() error {
	var errs []error
	if d.on != nil {
		errs = append(errs, d.turn(false))
	}
	errs = append(errs, d.host.space.Do(func() error {
		var errs []error
		for len(d.hung) > 0 {
			last := d.hung[len(d.hung)-1]
			d.host.o.Step("removing: " + last.what)
			if err := last.hook.close(); err != nil {
				errs = append(errs, fmt.Errorf("interface %s, %s: %w", d.iface.Name, last.what, err))
				break
			}
			d.hung = d.hung[:len(d.hung)-1]
			d.host.o.Step("removed: " + last.what)
		}
		if len(d.hung) == 0 {
			errs = append(errs, d.host.removeClsact(d.iface))
		}
		return errors.Join(errs...)
	}))
	for _, l := range d.own {
		errs = append(errs, l.Close())
	}
	for _, p := range d.programs {
		errs = append(errs, p.Close())
	}
	if d.on != nil {
		errs = append(errs, d.on.Close())
	}
	d.own, d.programs, d.on = nil, nil, nil
	return errors.Join(errs...)
}

// removeClsact takes a clsact qdisc away that this process made, if no link uses it any
// more. The caller holds mu.
func (h *Host) removeClsact(iface facts) error {
	if !h.made[iface.index] {
		return nil
	}
	for _, l := range h.links {
		if l.divert.iface.index == iface.index && len(l.divert.hung) > 0 {
			return nil
		}
	}
	h.o.Step("removing: clsact qdisc")
	foreign, err := removeClsact(iface.index)
	if err != nil {
		return fmt.Errorf("interface %s: %w", iface.Name, err)
	}
	if foreign {
		reportForeign(h.o.Log, guard.Change{Kind: kindClsact, Interface: iface.Name, Index: iface.index})
	}
	delete(h.made, iface.index)
	h.o.Step("removed: clsact qdisc")
	return nil
}
