package virtual

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// furnish makes the guest fit to live in: the kernel's own file systems, memory where a system writes, and the
// guest's folder, in which alone it writes to the host. All else of the host's files is seen read-only.
func furnish(dir string) error {
	// Written to by no guest, and seen by programs; the overlay keeps the host's files in sight.
	if err := mount("tmpfs", "/run", "tmpfs", "mode=0755"); err != nil {
		return err
	}
	for _, folder := range []string{"/run/tmp", "/run/tmp/upper", "/run/tmp/work"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return fmt.Errorf("furnish the guest: %w", err)
		}
	}
	for _, m := range []struct{ source, target, kind, data string }{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755"},
		{"overlay", "/tmp", "overlay", "lowerdir=/tmp,upperdir=/run/tmp/upper,workdir=/run/tmp/work"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	} {
		if err := mount(m.source, m.target, m.kind, m.data); err != nil {
			return err
		}
	}
	for _, folder := range []string{"/dev/pts", "/dev/shm", "/dev/net", dir} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("furnish the guest: %w", err)
		}
	}
	if err := errors.Join(
		mount("devpts", "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
		mount("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
		// By its own way through the host's files, since one above may be memory by now.
		mount("hostfs", dir, "hostfs", dir),
	); err != nil {
		return err
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make /dev/net/tun: %w", err)
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("name the guest: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return errors.Join(yieldToKernel(), os.Chdir(filepath.Dir(dir)))
}

// yieldToKernel has the kernel's own threads come before this process and all that it starts. While a program spins
// the clock stands still, and the kernel's scheduler sees no reason to change threads; one of the idle policy gives
// way at once (wakeup_preempt_fair, kernel/sched/fair.c). So the host can still ask the guest what it does.
func yieldToKernel() error {
	idle := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	for range 2 { // a thread may be made meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("yield to the guest's kernel: %w", err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err == nil {
				err = unix.SchedSetAttr(id, &idle, 0)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("yield to the guest's kernel: %w", err)
			}
		}
	}
	return nil
}

func mount(source, target, kind, data string) error {
	if err := unix.Mount(source, target, kind, 0, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
