package socket

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// abort makes close(2), and the death of the process, reset the connection and
// throw away what was not sent.
func abort() *unix.Linger { return &unix.Linger{Onoff: 1, Linger: 0} }

// setOptions sets what the lab asks for on a socket that is neither connected
// nor listening. The kernel hands all of it on to accepted sockets. It reads
// /proc/sys where it must explain an error, so it runs in the node's namespace.
func setOptions(fd int, role Role, options *tcplabv1.SocketOptions) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, abort()); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	if name := options.GetCongestion(); name != "" {
		if err := setCongestion(fd, name); err != nil {
			return err
		}
	}
	for _, o := range numbers(options, role) {
		if !o.asked {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("set %s to %d: %w%s", o.name, o.value, err, o.hint(err))
		}
	}
	if role == Client && options.GetFastOpen() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return fmt.Errorf("set TCP_FASTOPEN_CONNECT: %w%s", err, fastOpenHint(err))
		}
	}
	return setBuffers(fd, options)
}

// number is a socket option whose value is an int.
type number struct {
	name          string
	level, option int
	asked         bool
	value         int
}

// numbers are the options with a number, as asked for.
func numbers(o *tcplabv1.SocketOptions, role Role) []number {
	keep := o.GetKeepAlive()
	whole := func(d, unit time.Duration) int { return int(d / unit) }
	idle, interval := whole(keep.GetIdle().AsDuration(), time.Second), whole(keep.GetInterval().AsDuration(), time.Second)
	patience := whole(o.GetUserTimeout().AsDuration(), time.Millisecond)
	noDelay := o == nil || o.NoDelay == nil || o.GetNoDelay()
	return []number{
		{name: "TCP_NODELAY", level: unix.IPPROTO_TCP, option: unix.TCP_NODELAY, asked: true, value: flag(noDelay)},
		{name: "TCP_MAXSEG", level: unix.IPPROTO_TCP, option: unix.TCP_MAXSEG, asked: o.GetMss() != 0, value: int(o.GetMss())},
		{name: "TCP_NOTSENT_LOWAT", level: unix.IPPROTO_TCP, option: unix.TCP_NOTSENT_LOWAT, asked: o.GetNotsentLowat() != 0, value: int(o.GetNotsentLowat())},
		{name: "TCP_FASTOPEN", level: unix.IPPROTO_TCP, option: unix.TCP_FASTOPEN, asked: role == Server && o.GetFastOpen(), value: int(o.GetFastOpenQueue())},
		{name: "SO_KEEPALIVE", level: unix.SOL_SOCKET, option: unix.SO_KEEPALIVE, asked: keep != nil, value: 1},
		{name: "TCP_KEEPIDLE", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPIDLE, asked: idle != 0, value: idle},
		{name: "TCP_KEEPINTVL", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPINTVL, asked: interval != 0, value: interval},
		{name: "TCP_KEEPCNT", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPCNT, asked: keep.GetCount() != 0, value: int(keep.GetCount())},
		{name: "TCP_USER_TIMEOUT", level: unix.IPPROTO_TCP, option: unix.TCP_USER_TIMEOUT, asked: patience != 0, value: patience},
		{name: "SO_MARK", level: unix.SOL_SOCKET, option: unix.SO_MARK, asked: o.GetMark() != 0, value: int(int32(o.GetMark()))},
	}
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// hint is what to do about an error, for the end of its message.
func (o number) hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		return " (this kernel does not have the option: leave it out)"
	case errors.Is(err, unix.EPERM) && o.option == unix.SO_MARK:
		return " (marking packets needs CAP_NET_ADMIN over the node's network: leave mark out, or run tcplab as root)"
	case o.option == unix.TCP_FASTOPEN && o.level == unix.IPPROTO_TCP:
		return fastOpenHint(err)
	}
	return ""
}

func fastOpenHint(err error) string {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return " (net.ipv4.tcp_fastopen of the node is " + sysctl("tcp_fastopen") + ": it needs bit 1 at a client, bit 2 at a server)"
	}
	return ""
}

// setCodePoint sets the DSCP, which is the upper six bits of the field; the
// lower two are ECN's and the kernel's matter.
func setCodePoint(fd int, six bool, options *tcplabv1.SocketOptions) error {
	if options.GetDscp() == 0 {
		return nil
	}
	level, option, name := unix.IPPROTO_IP, unix.IP_TOS, "IP_TOS"
	if six {
		level, option, name = unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "IPV6_TCLASS"
	}
	if err := unix.SetsockoptInt(fd, level, option, int(options.GetDscp()<<ecnBits)); err != nil {
		return fmt.Errorf("set %s to %d: %w", name, options.GetDscp()<<ecnBits, err)
	}
	return nil
}

// ecnBits are the bits of ECN below the code point (RFC 3168, 5).
const ecnBits = 2

// setLocalPorts limits the ports of which the kernel chooses the client's. ok is
// false where it does not have the option (kernel 6.3); then the ports are tried one by one.
func setLocalPorts(fd int, ports *tcplabv1.PortRange) (ok bool, err error) {
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, int(int32(ports.GetLast()<<16|ports.GetFirst())))
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("set IP_LOCAL_PORT_RANGE to %d-%d: %w", ports.GetFirst(), ports.GetLast(), err)
	}
	return true, nil
}

func setBuffers(fd int, options *tcplabv1.SocketOptions) error {
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
