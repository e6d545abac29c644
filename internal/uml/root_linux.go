package uml

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one file system of the guest, below the new root.
type mount struct {
	source, target, kind string
	data                 string
}

// overlayRoot puts an overlay over the host's files, which hostfs shows read-only:
// writes go to the guest's memory. It enters it as the root and mounts there
// what a Linux system has, the host's writable folders, and the kernel's modules
// where modprobe looks for them.
func overlayRoot(modules string, writable []string) error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	modules = filepath.Join(modules, unix.ByteSliceToString(name.Release[:]))
	if err := insert(filepath.Join(modules, "kernel/fs/overlayfs/overlay.ko")); err != nil {
		return err
	}
	// /tmp serves only to stand on: the overlay's lower layer is what lies below it.
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0755,size=90%"); err != nil {
		return fmt.Errorf("mount the guest's memory: %w", err)
	}
	for _, folder := range []string{"/tmp/upper", "/tmp/work", "/tmp/root"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/tmp/root", "overlay", 0, "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work"); err != nil {
		return fmt.Errorf("lay the guest's memory over the host's files: %w", err)
	}
	if err := os.Chdir("/tmp/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}

	mounts := []mount{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755"},
		{"devpts", "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"},
		{"tmpfs", "/run", "tmpfs", "mode=0755"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	}
	for _, folder := range writable {
		mounts = append(mounts, mount{"hostfs", folder, "hostfs", folder})
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return modprobeReady(modules)
}

// modprobeReady puts the modules where modprobe looks for them, and the node of
// the one driver that is loaded by opening it (modules.devname).
func modprobeReady(modules string) error {
	place := filepath.Join("/lib/modules", filepath.Base(modules))
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	if place != modules {
		if err := os.Symlink(modules, place); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/dev/net", 0o755); err != nil {
		return err
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil && !os.IsExist(err) {
		return fmt.Errorf("make /dev/net/tun: %w", err)
	}
	return nil
}

// insert loads one module that needs no other.
func insert(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("load the module %s: %w", path, err)
	}
	return nil
}

// cutPath is the value of an environment entry that sets PATH.
func cutPath(entry string) (string, bool) { return strings.CutPrefix(entry, "PATH=") }
