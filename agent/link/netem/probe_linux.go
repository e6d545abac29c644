package netem

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/rpcerr"
)

// feature is what a link may need of the kernel: one of those below, or a leaf's kind.
type feature string

const (
	basics    feature = "netem"  // every link
	selecting feature = "paths"  // prio and flower
	counting  feature = "counts" // prio and eBPF
)

// probe builds the thing itself on the loopback interface of a namespace that ends
// with it, reads it back, and says what this kernel lacks: module
// lists and versions tell less.
func probe(f feature) error {
	ns, err := netns.New("probe")
	if err != nil {
		return fmt.Errorf("the netem engine needs network namespaces: %w; run as root, or where ordinary users may make user namespaces", err)
	}
	defer ns.Close()
	requests, err := newRequests(ns)
	if err != nil {
		return err
	}
	defer requests.close()

	const loopback = 1 // LOOPBACK_IFINDEX, in every namespace
	top := position{device: loopback, parent: handleRoot, handle: handlePrio}
	switch f {
	case basics:
		return probeBasics(ns, requests, loopback)
	case selecting:
		if err := requests.do(adding().to(prioQdisc{}, top)); err != nil {
			return refused("sch_prio", err)
		}
		for _, filter := range filters(link.Match{Port: 1}, handlePrio|1) {
			if err := requests.do(filter.to(top, 0)); err != nil {
				return refused("cls_flower", err)
			}
		}
		return nil
	case counting:
		if err := requests.do(adding().to(prioQdisc{}, top)); err != nil {
			return refused("sch_prio", err)
		}
		c, err := newCounter(link.Loss{Packets: []uint64{1}})
		if err != nil {
			return noBPF(err)
		}
		defer c.close()
		if err := requests.do(c.to(top)); err != nil {
			return refused("cls_bpf", err)
		}
		return nil
	}
	leaf, err := sample(f)
	if err != nil {
		return err
	}
	if err := requests.do(adding().to(leaf, top)); err != nil {
		return refused(module(leaf.kind()), err)
	}
	state, err := requests.get(top)
	if err != nil {
		return fmt.Errorf("read back what the netem engine made: %w", err)
	}
	read, err := decodeLeaf(state)
	if err != nil {
		return fmt.Errorf("this kernel's %s reads back as something else: %w", f, err)
	}
	if red, ok := read.(redQdisc); ok {
		red.idle = leaf.(redQdisc).idle
		read = red
	}
	if !same(leaf, read) {
		return fmt.Errorf("this kernel's %s reads back as %+v, set %+v", f, read, leaf)
	}
	return nil
}

// sample is a leaf of a kind.
func sample(kind feature) (leaf, error) {
	queue := link.Queue{Packets: 100}
	switch kind {
	case "bfifo":
		queue = link.Queue{Bytes: 100000}
	case "pfifo":
	case "pfifo_head_drop":
		queue.Discipline = link.HeadDrop
	case "cake":
		queue = link.Queue{Discipline: link.CAKE}
	default:
		queue.Discipline = link.Discipline(kind)
	}
	return newLeaf(queue, 1e6, 1514)
}

// module is the kernel's for a leaf.
func module(kind string) string {
	switch kind {
	case "pfifo", "bfifo", "pfifo_head_drop":
		return "sch_fifo"
	}
	return "sch_" + kind
}

// probeBasics builds one whole direction.
func probeBasics(ns *netns.Handle, requests *requests, loopback int) error {
	asked := link.Direction{Shape: link.Shape{Rate: 1e9, Queue: link.Queue{Packets: 1}}}
	w := &way{requests: requests, device: loopback, frame: 1514}
	trees, err := plans(asked, w.frame)
	if err != nil {
		return err
	}
	b := &branch{device: loopback, parent: handleRoot}
	w.branches = []*branch{b}
	for i, r := range b.build(trees[0]) {
		if err := requests.do(r); err != nil {
			return refused([]string{"sch_netem", "sch_tbf", "sch_fifo"}[i], err)
		}
	}
	read, err := w.read()
	if err != nil {
		return fmt.Errorf("read back what the netem engine made: %w", err)
	}
	if t := read.trees[0]; !trees[0].delay.same(t.delay) || !trees[0].rate.same(t.rate) || !same(trees[0].queue, t.queue) {
		return fmt.Errorf("this kernel's qdiscs read back as %+v, set %+v", t, trees[0])
	}
	if err := ns.Do(func() error { return redirect(loopback, loopback) }); err != nil {
		return refused("sch_ingress, cls_u32 or act_mirred", err)
	}
	return nil
}

// refused says which part of the kernel did not do what it should, and what to do
// where it is not there.
func refused(module string, err error) error {
	e := &rpcerr.Error{Code: codes.FailedPrecondition, Reason: rpcerr.HostUnsupported, Cause: err}
	if errors.Is(err, unix.ENOENT) || errors.As(err, &netlink.LinkNotFoundError{}) {
		e.Message = "this kernel has no " + module
		e.Remedy = fmt.Sprintf("Load the kernel's modules (modprobe -a %s), where need be from the package with the kernel's "+
			"further modules (linux-modules-extra-$(uname -r) on Ubuntu, kernel-modules-extra on Fedora); or take the wire engine, which does without them.", modules(module))
		return e
	}
	e.Message = fmt.Sprintf("this kernel refuses a part of the netem engine (%s): %v", module, err)
	return e
}

// modules are those to be loaded where one is missing: all that every link needs, and that one.
func modules(missing string) string {
	all := "sch_netem sch_tbf sch_ingress cls_u32 act_mirred"
	switch missing {
	case "sch_netem", "sch_tbf", "sch_fifo", "sch_ingress, cls_u32 or act_mirred":
		return all
	}
	return all + " " + missing
}

// noBPF says that programs cannot be loaded here.
func noBPF(err error) error {
	return &rpcerr.Error{
		Code: codes.FailedPrecondition, Reason: rpcerr.HostUnsupported, Cause: err,
		Message: fmt.Sprintf("this kernel takes no eBPF program, which the netem engine counts packets by to lose listed ones or every nth: %v", err),
		Remedy:  "Run as root of the host, on a kernel with CONFIG_BPF_SYSCALL; or take the wire engine, which counts by itself.",
	}
}
