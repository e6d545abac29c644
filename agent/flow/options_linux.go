package flow

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// abort makes close(2), and the death of the process, reset the connection and
// throw away what was not sent.
func abort() *unix.Linger { return &unix.Linger{Onoff: 1, Linger: 0} }

// setOptions sets what the lab asks for on a socket that is neither connected
// nor listening. The kernel hands all of it on to accepted sockets. It reads
// /proc/sys where it must explain an error, so it runs in the node's namespace.
func setOptions(fd int, options *tcplabv1.SocketOptions) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, abort()); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	noDelay := 1
	if options != nil && options.NoDelay != nil && !options.GetNoDelay() {
		noDelay = 0
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, noDelay); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if name := options.GetCongestion(); name != "" {
		if err := setCongestion(fd, name); err != nil {
			return err
		}
	}
	if mss := options.GetMss(); mss != 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, int(mss)); err != nil {
			return fmt.Errorf("set TCP_MAXSEG to %d: %w", mss, err)
		}
	}
	for _, buffer := range []struct {
		name          string
		option, force int
		bytes         uint32
		limit         string
	}{
		{"SO_SNDBUF", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, options.GetSendBuffer(), "wmem_max"},
		{"SO_RCVBUF", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, options.GetReceiveBuffer(), "rmem_max"},
	} {
		if buffer.bytes == 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, buffer.option, int(buffer.bytes)); err != nil {
			return fmt.Errorf("set %s to %d: %w", buffer.name, buffer.bytes, err)
		}
		// The kernel cuts a buffer at the limit and says nothing (net/core/sock.c);
		// privilege in the first user namespace lifts it.
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, buffer.option)
		if err == nil && got < 2*int(buffer.bytes) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, buffer.force, int(buffer.bytes))
		}
		if err != nil {
			return fmt.Errorf("set %s to %d: this host grants %d (raise net.core.%s on it, or ask for less): %w",
				buffer.name, buffer.bytes, got/2, buffer.limit, err)
		}
	}
	return nil
}

func setCongestion(fd int, name string) error {
	err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("congestion control %q: this kernel has %s: %w", name, sysctl("tcp_available_congestion_control"), err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("congestion control %q: without privilege this kernel allows %s: %w", name, sysctl("tcp_allowed_congestion_control"), err)
	case err != nil:
		return fmt.Errorf("congestion control %q: %w", name, err)
	}
	return nil
}

// sysctl is the value of a setting of net.ipv4 in the thread's namespace, for a
// message.
func sysctl(name string) string {
	value, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		return "unknown ones"
	}
	return strings.Join(strings.Fields(string(value)), ", ")
}
