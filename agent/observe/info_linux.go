package observe

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// infoSize is room for struct tcp_info of kernels to come; 6.18's has 280
// bytes. The kernel writes no more than it has and says how much that was.
const infoSize = 512

// ReadInfo asks the kernel for TCP_INFO of a TCP socket. It does not wait, and
// takes the socket's lock for the time of a copy.
func ReadInfo(fd int) (Info, error) {
	var raw [infoSize]byte
	size := uint32(len(raw))
	// The library's own struct is as long as the kernel it was made for.
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return Info{}, fmt.Errorf("read TCP_INFO: %w", errno)
	}
	return DecodeInfo(raw[:size]), nil
}
