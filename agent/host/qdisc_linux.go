package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// qdiscs are the queueing disciplines, classifiers and actions that labs may
// use, each tried on the loopback interface.
func qdiscs(space *netns.Handle) []*tcplabv1.Capability {
	var all []*tcplabv1.Capability
	for _, q := range []struct{ kind, use string }{
		{"netem", "delay and loss of the netem engine"},
		{"tbf", "rates of the netem engine"},
		{"htb", "rates by class"},
		{"pfifo", "queues of packets"},
		{"bfifo", "queues of bytes"},
		{"fq", "pacing by flow"},
		{"fq_codel", "fair queues kept short"},
		{"codel", "a queue kept short"},
		{"cake", "a shaper with fair queues kept short"},
		{"red", "early drops"},
		{"pie", "a queue kept short"},
		{"prio", "paths, and packets lost by number, of the netem engine"},
		{"ingress", "filters on what comes in"},
		{"clsact", "filters on both ways"},
	} {
		err := space.Do(func() error { return tryQdisc(q.kind) })
		all = append(all, attempt(groupQdisc, "qdisc."+q.kind, q.use, absent(err, "sch_"+q.kind), missingModule))
	}
	for _, f := range []struct{ kind, use string }{
		{"u32", "filters by bytes"},
		{"matchall", "a filter for everything"},
		{"flower", "filters by header fields"},
		{"bpf", "filters by program"},
	} {
		err := space.Do(func() error { return tryFilter(&netlink.GenericFilter{FilterType: f.kind}) })
		all = append(all, attempt(groupQdisc, "filter."+f.kind, f.use, absent(err, "cls_"+f.kind), missingModule))
	}
	// A match of all frames, for there must be a filter to hang the action at.
	redirect := &netlink.U32{Actions: []netlink.Action{netlink.NewMirredAction(loopback)}}
	err := space.Do(func() error { return tryFilter(redirect) })
	return append(all, attempt(groupQdisc, "action.mirred", "the netem engine's way between ports", absent(err, "act_mirred"), missingModule))
}

// missingModule says how to come by a part of the kernel's traffic control. It is
// the same for each, so that a report can say it once.
const missingModule = "Load the kernel module (modprobe), where need be from the package with the kernel's further modules " +
	"(linux-modules-extra-$(uname -r) on Ubuntu, kernel-modules-extra on Fedora). The wire engine does without it."

// tryQdisc asks for the qdisc without any option. The kernel looks the kind up
// first and answers ENOENT when it has none (net/sched/sch_api.c,
// qdisc_create); EINVAL is the answer of a kind that wants options.
func tryQdisc(kind string) error {
	attrs := netlink.QdiscAttrs{LinkIndex: loopback, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}
	switch kind {
	case "ingress":
		attrs.Parent, attrs.Handle = netlink.HANDLE_INGRESS, netlink.MakeHandle(0xffff, 0)
	case "clsact":
		attrs.Parent, attrs.Handle = netlink.HANDLE_CLSACT, netlink.MakeHandle(0xffff, 0)
	}
	qdisc := &netlink.GenericQdisc{QdiscAttrs: attrs, QdiscType: kind}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil
		}
		return fmt.Errorf("add a %s qdisc: %w", kind, err)
	}
	return netlink.QdiscDel(qdisc)
}

// absent says what the kernel means by ENOENT, which is no file: it has no such
// module.
func absent(err error, module string) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("this kernel has no %s", module)
	}
	return err
}

// tryFilter hangs a filter at an ingress qdisc. ENOENT and EINVAL mean what they mean
// for qdiscs.
func tryFilter(filter netlink.Filter) error {
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: loopback, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0),
	}}
	if err := netlink.QdiscAdd(ingress); err != nil {
		return fmt.Errorf("add an ingress qdisc: %w", err)
	}
	*filter.Attrs() = netlink.FilterAttrs{
		LinkIndex: loopback, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL,
	}
	err := netlink.FilterAdd(filter)
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("add a %s filter: %w", filter.Type(), err)
	}
	return errors.Join(err, netlink.QdiscDel(ingress))
}
