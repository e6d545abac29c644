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

// probe builds one whole direction on the loopback interface of a namespace that ends
// with it, and says what this kernel lacks. It tries the thing itself: module
// lists and versions tell less.
func probe() error {
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
	t, err := plan(link.Shape{Rate: 1e9, Queue: link.Queue{Packets: 1}}, 0, 1514)
	if err != nil {
		return err
	}
	w := &way{requests: requests, device: loopback}
	if err := requests.add(w.delayAt(), t.delay); err != nil {
		return refused("sch_netem", err)
	}
	if err := requests.add(w.rateAt(), t.rate); err != nil {
		return refused("sch_tbf", err)
	}
	for _, queue := range []queueQdisc{t.queue, {bytes: true, limit: 1}} {
		if err := w.hang(queue); err != nil {
			return refused("sch_fifo", err)
		}
		t.queue = queue
	}
	read, _, err := w.read()
	if err != nil {
		return fmt.Errorf("read back what the netem engine made: %w", err)
	}
	if read.delay.delay != 0 || read.rate.bytesPerSecond != t.rate.bytesPerSecond || read.queue != t.queue {
		return fmt.Errorf("this kernel's qdiscs read back as %+v, set %+v", read, t)
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
		e.Remedy = "Load the kernel modules (modprobe -a sch_netem sch_tbf sch_ingress cls_u32 act_mirred), where need be from the package with the kernel's " +
			"further modules (linux-modules-extra-$(uname -r) on Ubuntu, kernel-modules-extra on Fedora); or take the wire engine, which does without them."
		return e
	}
	e.Message = fmt.Sprintf("this kernel refuses a part of the netem engine (%s): %v", module, err)
	return e
}
