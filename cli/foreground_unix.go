//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// behind reports whether a file is a terminal on which another job is in front: a read of
// it would stop this process (SIGTTIN).
func behind(f *os.File) bool {
	if !term.IsTerminal(int(f.Fd())) {
		return false
	}
	front, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && front != unix.Getpgrp()
}
