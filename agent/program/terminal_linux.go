package program

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// endOfFile is what Ctrl-D types (VEOF of a new terminal, drivers/tty/tty_io.c,
// tty_std_termios).
const endOfFile = 4

// openTerminal makes a terminal: this side of it, and the program's.
func openTerminal(s Size) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a terminal: %w", err), master.Close())
			master = nil
		}
	}()
	err = control(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		// By descriptor: its name means something else in another mount namespace.
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		slave = os.NewFile(peer, "terminal")
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return master, slave, resize(master, s)
}

func resize(terminal *os.File, s Size) error {
	err := control(terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: s.Columns, Row: s.Rows})
	})
	if err != nil {
		return fmt.Errorf("set the terminal's size: %w", err)
	}
	return nil
}

// control calls fn with the file's descriptor, which stays with the runtime's poller.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = fn(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// terminalReader reads a terminal up to its end, which is when nobody has the
// other side open any more: the kernel says EIO then.
type terminalReader struct{ master *os.File }

// Read is io.Reader's.
func (r terminalReader) Read(b []byte) (int, error) {
	n, err := r.master.Read(b)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

// unclosed is a file whose end is somebody else's matter.
type unclosed struct{ *os.File }

// Close does nothing.
func (unclosed) Close() error { return nil }
