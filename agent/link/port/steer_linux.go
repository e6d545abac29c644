package port

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// steer has every frame that arrives on an interface of this thread's namespace
// handled by the first processor. Otherwise a veth hands a frame to the
// processor that happened to send it, and a flow whose sender moves between
// processors arrives out of order.
//
// The setting (kernel: Documentation/networking/scaling.rst, RPS) lives in sysfs
// alone, and the machine's /sys shows the machine's namespace. So sysfs is
// opened for this namespace, without mounting it anywhere (kernel 5.2).
func steer(name string) error {
	file := fmt.Sprintf("class/net/%s/queues/rx-0/rps_cpus", name)
	root, err := sysfs()
	if err != nil {
		return fmt.Errorf("open sysfs to keep frames in order: %w", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel for one processor: nothing can overtake
	}
	if err != nil {
		return fmt.Errorf("open %s to keep frames in order: %w", file, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		return fmt.Errorf("set %s to keep frames in order: %w", file, err)
	}
	return nil
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
