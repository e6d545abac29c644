package program

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// surround makes what the program sees of the system that of its node, in the
// mount and UTS namespaces of this process.
func (s *settings) surround() error {
	if err := unix.Sethostname([]byte(s.HostName)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	// What the host mounts later is seen, and nothing of what follows is seen there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	if err := s.files(); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Each is that of the namespaces of the process which mounts it.
	for kind, at := range map[string]string{"sysfs": "/sys", "proc": "/proc"} {
		if err := unix.Mount(kind, at, kind, flags, ""); err != nil {
			return fmt.Errorf("mount the node's own %s: %w", at, err)
		}
	}
	if s.Confined != nil {
		if err := s.Confined.confine(); err != nil {
			return err
		}
	}
	if s.Folder != nil {
		return s.Folder.make(s.Confined != nil)
	}
	return nil
}

// files puts the program's own files in the place of the host's. They live in
// memory that has no other name: /sys is covered by the next mount.
func (s *settings) files() error {
	if err := unix.Mount("tcplab", "/sys", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("make room for the node's files: %w", err)
	}
	for name, content := range map[string]string{"hosts": s.Hosts, "resolv.conf": s.Resolv} {
		file, target := "/sys/"+name, "/etc/"+name
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the node's %s: %w", name, err)
		}
		// Where it is a symbolic link, what it leads to is covered.
		if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put the node's %s in the place of %s, which must exist: %w", name, target, err)
		}
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cover the node's files: %w", err)
	}
	return nil
}
