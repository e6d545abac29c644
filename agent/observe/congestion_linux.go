package observe

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// congestionSize is that of union tcp_cc_info, five words of BBR's.
const congestionSize = 20

// ReadCongestion asks the kernel for TCP_CC_INFO of a socket with the congestion control of
// that name. One that says nothing is not asked.
func ReadCongestion(fd int, control string) (Congestion, error) {
	which := partOf(control)
	if which == noPart {
		return Congestion{}, nil
	}
	var raw [congestionSize]byte
	size := uint32(len(raw))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_CC_INFO,
		uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return Congestion{}, fmt.Errorf("read TCP_CC_INFO: %w", errno)
	}
	return decodeCongestion(which, raw[:size]), nil
}

// Cookie is the kernel's name for a socket's connection (SO_COOKIE), by which sock_diag knows it too.
func Cookie(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read SO_COOKIE: %w", err)
	}
	return cookie, nil
}
