package nic

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/guard"
)

// Filters of other programs hang behind ours, which take the priorities below.
const (
	firstPriority = 100 // where nobody else has one
	filterHandle  = 1
)

// parent is where filters of a side hang in a clsact qdisc.
func parent(s side) uint32 {
	if s == received {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func clsactAttrs(index int) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}
}

// addClsact gives an interface of this thread's namespace the qdisc that filters hang
// in. It queues nothing and leaves the root qdisc alone.
func addClsact(index int) error {
	if err := netlink.QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: clsactAttrs(index), QdiscType: "clsact"}); err != nil {
		return fmt.Errorf("add a clsact qdisc: %w", err)
	}
	return nil
}

// hasClsact reports whether there is one. Where another kind is in its place, no
// filter can be hung on what is sent.
func hasClsact(index int) (bool, error) {
	qdiscs, err := netlink.QdiscList(device(index))
	if err != nil {
		return false, fmt.Errorf("list the qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_CLSACT { // HANDLE_INGRESS as well
			continue
		}
		if q.Type() == "clsact" {
			return true, nil
		}
		return false, fmt.Errorf("another program's %s qdisc is in the place of clsact, and is left there", q.Type())
	}
	return false, nil
}

// device names an interface by its number.
func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// newFilter is a filter that runs a program, and does as it answers.
func newFilter(index int, s side, priority uint16, name string, program *ebpf.Program) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: parent(s), Priority: priority, Handle: filterHandle, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: name, DirectAction: true,
	}
}

func addFilter(f *netlink.BpfFilter) error {
	if err := netlink.FilterAdd(f); err != nil {
		return fmt.Errorf("add a filter with a BPF program: %w", err)
	}
	return nil
}

// freePriority is one before all that hang at the interface.
func freePriority(index int) (uint16, error) {
	least := uint16(firstPriority + 1)
	for _, s := range []side{sent, received} {
		filters, err := netlink.FilterList(device(index), parent(s))
		if err != nil {
			return 0, fmt.Errorf("list the filters: %w", err)
		}
		for _, f := range filters {
			least = min(least, f.Attrs().Priority)
		}
	}
	if least <= 1 {
		return 0, errors.New("a filter of another program has the first priority, before which nothing can be diverted; it is left there")
	}
	return least - 1, nil
}

// identity is what tells a filter of ours from one that another has put in its place.
type identity struct {
	index    int
	parent   uint32
	priority uint16
	handle   uint32
	program  uint32
	name     string
}

// filterAt is the filter in that place, and whether it is the very one; nil: none
// is there.
func filterAt(id identity) (netlink.Filter, bool, error) {
	filters, err := netlink.FilterList(device(id.index), id.parent)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil, false, nil // without the interface, or its qdisc, there is no filter
	}
	if err != nil {
		return nil, false, fmt.Errorf("list the filters: %w", err)
	}
	for _, f := range filters {
		a := f.Attrs()
		if a.Priority != id.priority || a.Handle != id.handle {
			continue
		}
		bpf, ok := f.(*netlink.BpfFilter)
		return f, ok && uint32(bpf.Id) == id.program && bpf.Name == id.name, nil
	}
	return nil, false, nil
}

// filterHook is a program that hangs in a clsact qdisc.
type filterHook struct {
	identity
	change guard.Change
	host   *Host
}

func (h *filterHook) close() error {
	foreign, err := removeFilter(h.identity)
	if foreign {
		reportForeign(h.host.o.Log, h.change)
	}
	return err
}

func (h *filterHook) intact() error {
	there, same, err := filterAt(h.identity)
	switch {
	case err != nil:
		return err
	case there == nil:
		return errors.New("the interface is gone, or somebody has taken the filter away")
	case !same:
		return errors.New("somebody has put another filter in the place of ours")
	}
	return nil
}

// remove takes a filter away. One that is not there is none; another's is
// left, and foreign is true.
func removeFilter(id identity) (foreign bool, err error) {
	there, same, err := filterAt(id)
	if err != nil || there == nil {
		return false, err
	}
	if !same {
		return true, nil
	}
	err = netlink.FilterDel(there)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		err = nil
	}
	if err != nil {
		return false, fmt.Errorf("remove a filter: %w", err)
	}
	return false, nil
}

// removeClsact takes the qdisc away. One that is not there is none; one in which
// others' filters hang is left, and foreign is true.
func removeClsact(index int) (foreign bool, err error) {
	there, err := hasClsact(index)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return true, nil //nolint:nilerr // another's qdisc is in its place
	}
	if !there {
		return false, nil
	}
	for _, s := range []side{sent, received} {
		filters, err := netlink.FilterList(device(index), parent(s))
		if err != nil {
			return false, fmt.Errorf("list the filters: %w", err)
		}
		if len(filters) > 0 {
			return true, nil
		}
	}
	err = netlink.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: clsactAttrs(index), QdiscType: "clsact"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		err = nil
	}
	if err != nil {
		return false, fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return false, nil
}
