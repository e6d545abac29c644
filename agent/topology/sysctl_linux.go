package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// apply writes a setting of this thread's network namespace and reads it back,
// for the kernel rounds some and ignores others without an error.
func (s Sysctl) apply() error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(s.Name, ".", "/"))
	// Not os.WriteFile: it would ask to create the file.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if s.Default {
			return nil
		}
		return fmt.Errorf("sysctl %s: this kernel has no such setting for a network namespace", s.Name)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", s.Name, err)
	}
	defer file.Close()
	if _, err := file.WriteString(s.Value); err != nil {
		return fmt.Errorf("sysctl %s: the kernel refuses %q: %w%s", s.Name, s.Value, err, s.advice(err))
	}
	got := make([]byte, 4096)
	n, err := file.ReadAt(got, 0)
	if n == 0 && err != nil {
		return fmt.Errorf("sysctl %s: read back: %w", s.Name, err)
	}
	if got := string(got[:n]); !sameFields(got, s.Value) {
		return fmt.Errorf("sysctl %s: %q was written and %q is in force", s.Name, s.Value, strings.TrimSpace(got))
	}
	return nil
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
