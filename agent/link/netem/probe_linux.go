package netem

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/netns"
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
	if err := w.build(t); err != nil {
		return remedy(err)
	}
	t.queue = queueQdisc{bytes: true, limit: 1}
	if err := w.hang(t.queue); err != nil {
		return remedy(err)
	}
	read, _, err := w.read()
	if err != nil {
		return remedy(err)
	}
	if read.delay.delay != 0 || read.rate.bytesPerSecond != t.rate.bytesPerSecond || read.queue != t.queue {
		return fmt.Errorf("this kernel's qdiscs read back as %+v, set %+v", read, t)
	}
	if err := ns.Do(func() error { return redirect(loopback, loopback) }); err != nil {
		return remedy(err)
	}
	return nil
}

// remedy tells what to do about a part that the kernel lacks.
func remedy(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("this kernel lacks a part of the netem engine (%w): load the module (modprobe sch_netem sch_tbf sch_ingress cls_u32 act_mirred), "+
			"install the package with the kernel's further modules (linux-modules-extra-$(uname -r) on Ubuntu), or use the wire engine", err)
	}
	return fmt.Errorf("this kernel refuses a part of the netem engine: %w", err)
}
