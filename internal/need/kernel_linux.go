package need

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// NetNS needs to make a network namespace. The feature is "netns".
func NetNS(t testing.TB) {
	t.Helper()
	space, err := netns.New("probe")
	if err != nil {
		Missing(t, "netns", err.Error())
		return
	}
	defer space.Close()
}

// UserNS needs to make a user namespace. The feature is "userns".
func UserNS(t testing.TB) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.list=^$")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		Missing(t, "userns", err.Error())
	}
}

// TUN needs to make a TAP interface through /dev/net/tun, in a namespace of the
// test's own. The feature is "tun"; it implies NetNS.
func TUN(t testing.TB) {
	t.Helper()
	inNamespace(t, "tun", func() error {
		tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer tun.Close()
		request, err := unix.NewIfreq("probe")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, request); err != nil {
			return fmt.Errorf("make a TAP interface: %w", err)
		}
		return nil
	})
}

// Qdisc needs a kind of queueing discipline, "netem" or "fq_codel" for
// instance, built in or loadable. The feature is the kind; it implies NetNS.
func Qdisc(t testing.TB, kind string) {
	t.Helper()
	inNamespace(t, kind, func() error { return addQdisc(kind) })
}

// addQdisc asks for the qdisc on the loopback interface of the current
// namespace, without any option. The kernel looks the kind up first and answers
// ENOENT when it has none (net/sched/sch_api.c, qdisc_create); EINVAL is the
// answer of a kind that is there and wants options.
func addQdisc(kind string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{
		LinkIndex: lo.Attrs().Index,
		Parent:    netlink.HANDLE_ROOT,
		Handle:    netlink.MakeHandle(1, 0),
	}
	switch kind {
	case "ingress":
		attrs.Parent, attrs.Handle = netlink.HANDLE_INGRESS, netlink.MakeHandle(0xffff, 0)
	case "clsact":
		attrs.Parent, attrs.Handle = netlink.HANDLE_CLSACT, netlink.MakeHandle(0xffff, 0)
	}
	err = netlink.QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: attrs, QdiscType: kind})
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("add the qdisc: %w", err)
	}
	return nil
}

// Congestion needs a TCP congestion control that this process may set on a
// socket, built in or loadable. The feature is its name.
func Congestion(t testing.TB, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatalf("open a TCP socket: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
		Missing(t, name, fmt.Sprintf("set TCP_CONGESTION: %v", err))
	}
}

// inNamespace runs the probe in a namespace that ends with it.
func inNamespace(t testing.TB, feature string, probe func() error) {
	t.Helper()
	space, err := netns.New("probe")
	if err != nil {
		Missing(t, feature, err.Error())
		return
	}
	defer space.Close()
	if err := space.Do(probe); err != nil {
		Missing(t, feature, err.Error())
	}
}
