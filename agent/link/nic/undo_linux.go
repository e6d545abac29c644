package nic

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/internal/netns"
)

// Kinds of guard.Change.
const (
	kindTCX    = "tcx"    // a program by TCX, which the kernel takes away with its process
	kindClsact = "clsact" // a clsact qdisc
	kindFilter = "filter" // a filter in one, with a program
)

// Undo undoes changes in this thread's namespace, in the order given but for
// qdiscs, which come last: several links may have used one. What is not there any more is
// no error. What another has put in the place of a change is reported and left.
func Undo(changes []guard.Change, log *slog.Logger) error {
	var errs []error
	for _, last := range []bool{false, true} {
		for _, c := range changes {
			if (c.Kind == kindClsact) != last {
				continue
			}
			foreign, err := undo(c)
			if err != nil {
				errs = append(errs, fmt.Errorf("interface %s: %w", c.Interface, err))
			}
			if foreign {
				reportForeign(log, c)
			}
		}
	}
	return errors.Join(errs...)
}

// reportForeign says that something of another's is left.
func reportForeign(log *slog.Logger, c guard.Change) {
	what := "a clsact qdisc that tcplab made holds filters of another program: both are left"
	if c.Kind == kindFilter {
		what = "another program's filter is in the place of tcplab's: it is left"
	}
	log.Warn(what, "interface", c.Interface, "kind", c.Kind, "priority", c.Priority)
}

func undo(c guard.Change) (foreign bool, err error) {
	switch c.Kind {
	case kindTCX:
		return false, nil
	case kindFilter:
		return removeFilter(identityOf(c))
	case kindClsact:
		return removeClsact(c.Index)
	}
	return false, fmt.Errorf("this tcplab knows no change of kind %q: undo it with the version that made it", c.Kind)
}

// identityOf is the filter that a change is about.
func identityOf(c guard.Change) identity {
	return identity{index: c.Index, parent: c.Parent, priority: c.Priority, handle: c.Handle, program: c.Program, name: c.Name}
}

// Watch is the work of the watchdog's process in its own namespace: see guard.Watch.
func Watch(arguments []string, space *netns.Handle, log *slog.Logger) error {
	inode, err := space.Inode()
	if err != nil {
		return err
	}
	return guard.Watch(arguments, guard.RollbackOptions{
		Namespace: inode, Log: log,
		Undo: func(changes []guard.Change) error { return Undo(changes, log) },
	})
}
