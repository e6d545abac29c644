package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// apply gives a setting of this thread's network namespace its value and reads
// it back, for the kernel rounds some and ignores others without an error. One that has the
// value is left alone: some settings do work when they are written, and most of
// a node's are as they should be.
func (s Sysctl) apply() error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(s.Name, ".", "/"))
	// Not os.OpenFile: it would try to have the runtime poll the file.
	file, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if s.Default {
			return nil
		}
		return fmt.Errorf("sysctl %s: this kernel has no such setting for a network namespace", s.Name)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", s.Name, err)
	}
	defer unix.Close(file)
	if got, err := inForce(file); err == nil && sameFields(got, s.Value) {
		return nil
	}
	if _, err := unix.Write(file, []byte(s.Value)); err != nil {
		return fmt.Errorf("sysctl %s: the kernel refuses %q: %w%s", s.Name, s.Value, err, s.advice(err))
	}
	got, err := inForce(file)
	if err != nil {
		return fmt.Errorf("sysctl %s: read back: %w", s.Name, err)
	}
	if !sameFields(got, s.Value) {
		return fmt.Errorf("sysctl %s: %q was written and %q is in force", s.Name, s.Value, strings.TrimSpace(got))
	}
	return nil
}

// inForce is the value of a setting whose file is open.
func inForce(file int) (string, error) {
	got := make([]byte, 4096)
	n, err := unix.Pread(file, got, 0)
	if err != nil {
		return "", err
	}
	return string(got[:n]), nil
}

// advice says what else would do, where something would.
func (s Sysctl) advice(err error) string {
	if strings.HasSuffix(s.Name, ".tcp_congestion_control") && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT)) {
		return "; give the flow `socket: {congestion: ...}` instead, which needs no permission of the host"
	}
	return ""
}

// sameFields compares settings as the kernel does: lists are separated by any blanks.
func sameFields(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}
