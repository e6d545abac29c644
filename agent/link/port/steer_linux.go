package port

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// steer has every frame that arrives on an interface of this thread's namespace
// handled by the first processor. Otherwise a veth hands a frame to the
// processor that happened to send it, and a flow whose sender moves between
// processors arrives out of order.
//
// The setting (kernel: Documentation/networking/scaling.rst, RPS) lives in sysfs,
// and the machine's /sys shows the machine's namespace. So sysfs is opened for
// this namespace, without mounting it anywhere (kernel 5.2). The kernel lets the
// host's root alone write there, and no sysfs be opened from a mount namespace
// that is not the opener's own; root of a user namespace relies on steerNew.
func steer(name string) error {
	file := fmt.Sprintf("class/net/%s/queues/rx-0/rps_cpus", name)
	root, err := sysfs()
	if errors.Is(err, unix.EPERM) && steeredNew() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open sysfs to keep frames in order: %w", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel for one processor: nothing can overtake
	}
	if err != nil {
		return fmt.Errorf("open %s to keep frames in order: %w", file, err)
	}
	defer unix.Close(fd)
	mask := make([]byte, 4096)
	if n, err := unix.Read(fd, mask); err == nil && isFirst(string(mask[:n])) {
		return nil
	}
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		return fmt.Errorf("set %s to keep frames in order: %w", file, err)
	}
	return nil
}

// isFirst reports whether a mask of processors, in groups of 32 bits ("00000000,00000001"), is
// that of the first alone.
func isFirst(mask string) bool {
	return strings.TrimLeft(strings.TrimSpace(mask), "0,") == "1"
}

// defaultMask is the setting for receive queues that are yet to be made.
const defaultMask = "/proc/sys/net/core/rps_default_mask"

// steerNew does what steer does for interfaces that are yet to come into this
// thread's namespace (net.core.rps_default_mask, kernel 6.3), which root of a user
// namespace may do as well. An older kernel has steer alone.
func steerNew() error {
	return writeExisting(defaultMask, "1")
}

// steeredNew reports whether steerNew has done its part here.
func steeredNew() bool {
	mask, err := os.ReadFile(defaultMask)
	return err == nil && isFirst(string(mask))
}

// sysfs opens the root of a sysfs that shows the thread's network namespace.
func sysfs() (int, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
