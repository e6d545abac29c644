package spool

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Scratch is a file of the spool's disk without a name: once it is closed nothing is left of it, kill -9 included.
func (t *Trial) Scratch() (*os.File, error) {
	fd, err := unix.Open(t.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(t.dir, "scratch")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, storage("make a scratch file for trial "+t.id, err)
	}
	// A file system without such files: one that loses its name.
	file, err := os.CreateTemp(t.dir, partial+"scratch")
	if err == nil {
		if err = os.Remove(file.Name()); err == nil {
			return file, nil
		}
		err = errors.Join(err, file.Close())
	}
	return nil, storage("make a scratch file for trial "+t.id, err)
}
