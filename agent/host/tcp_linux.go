package host

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// knownControls are the congestion controls that labs know about
// (net/ipv4/Kconfig), the common ones first.
func knownControls() []string {
	return []string{"cubic", "reno", "bbr", "vegas", "dctcp", "westwood", "htcp", "illinois", "hybla"}
}

// tcp is what the kernel's TCP and IP offer in a namespace.
func tcp(space *netns.Handle) []*tcplabv1.Capability {
	var all []*tcplabv1.Capability
	for _, name := range knownControls() {
		err := space.Do(func() error { return tryCongestion(name) })
		all = append(all, attempt(groupTCP, "congestion."+name, "for sockets in labs", absent(err, "tcp_"+name),
			"Load the kernel module (modprobe); an ordinary user needs it in net.ipv4.tcp_allowed_congestion_control as well."))
	}
	err := space.Do(func() error {
		_, err := os.Stat("/proc/thread-self/net/if_inet6")
		return err
	})
	return append(all, attempt(groupTCP, "ipv6", "labs have IPv6", err, "Boot without ipv6.disable=1, or load the kernel module ipv6. Labs with IPv4 alone do without it."))
}

// congestionControls are those that a socket of this thread's namespace takes.
func congestionControls() []string {
	var usable []string
	for _, name := range knownControls() {
		if tryCongestion(name) == nil {
			usable = append(usable, name)
		}
	}
	return usable
}

func tryCongestion(name string) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("open a TCP socket: %w", err)
	}
	defer unix.Close(sock)
	err = unix.SetsockoptString(sock, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("this kernel has it for privileged processes alone: %w", err)
	}
	return err
}

// defaultCongestionControl is that of a new namespace, which it inherits from the host.
func defaultCongestionControl() string {
	name, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
