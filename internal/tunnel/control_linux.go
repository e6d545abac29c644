package tunnel

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Control sets TCP_USER_TIMEOUT on a socket before it connects or listens, from which accepted ones inherit it.
func Control(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedMost.Milliseconds()))
	}); err != nil {
		return err
	}
	return failed
}
