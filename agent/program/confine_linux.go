package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// FolderPath is where a program's [Folder] is.
	FolderPath = "/tmp"
	// folderSize is the most that the Folder, and /dev/shm of one that is confined, take of
	// the machine's memory (tmpfs(5)).
	folderSize = "size=64m"
	// nobody is the user and the group that every Linux knows as nobody's (the kernel's
	// overflow IDs, DEFAULT_OVERFLOWUID in include/linux/highuid.h).
	nobody = 65534
	// lastCapability is more than any kernel has (include/uapi/linux/capability.h: 40 in 6.18).
	lastCapability = 63
)

// make mounts the folder and fills it. A confined program must be able to write there.
func (f *Folder) make(confined bool) error {
	if err := unix.Mount("tcplab", FolderPath, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, folderSize+",mode=0700"); err != nil {
		return fmt.Errorf("make the program's own %s: %w", FolderPath, err)
	}
	for name, content := range f.Files {
		if name != filepath.Base(name) || name == "." || name == ".." || name == "/" {
			return fmt.Errorf("%q is no name of a file in %s", name, FolderPath)
		}
		if err := os.WriteFile(filepath.Join(FolderPath, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the program's file %s: %w", name, err)
		}
	}
	if !confined || !hasNobody() {
		return nil
	}
	return os.Chown(FolderPath, nobody, nobody)
}

// confine takes from the program what it could write to on the host, and what it must
// not see there.
func (c *Confinement) confine() error {
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnly); err != nil {
		return fmt.Errorf("make the program's file systems read-only, which needs a kernel from 5.12 on: %w", err)
	}
	covers := map[string]string{"/dev/shm": folderSize + ",mode=1777"}
	for _, dir := range c.Hidden {
		covers[dir] = "size=4k,mode=0"
	}
	for dir, options := range covers {
		err := unix.Mount("tcplab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cover %s, which the program is not to see: %w", dir, err)
		}
	}
	return nil
}

// restrain prepares this thread for the start of the program, and says who it shall be;
// nil: who this process is.
func (s *settings) restrain() (*syscall.Credential, error) {
	if s.Gainless {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	if s.Confined == nil {
		return nil, nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return nil, fmt.Errorf("forbid core dumps: %w", err)
	}
	// A program that execve(2) finds to be root gets what is in the bounding set.
	for c := range uintptr(lastCapability + 1) {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // which the kernel does not have
			return nil, fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("drop the ambient capabilities: %w", err)
	}
	if !hasNobody() {
		return nil, nil
	}
	return &syscall.Credential{Uid: nobody, Gid: nobody}, nil
}

// hasNobody reports whether this user namespace has the user nobody.
func hasNobody() bool {
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && inside <= nobody && nobody < inside+count {
			return true
		}
	}
	return false
}
