package host

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// loopback is the index of lo in every namespace (LOOPBACK_IFINDEX).
const loopback = 1

// ports are the ways to hold a node's interface, and what joins them.
func ports(space *netns.Handle) []*tcplabv1.Capability {
	const inKernel = "Load the kernel module %[1]s (modprobe %[1]s), or take a kernel that has it."
	var all []*tcplabv1.Capability
	for _, p := range []struct {
		name, detail, remedy string
		try                  func() error
	}{
		{"veth", "links between namespaces", fmt.Sprintf(inKernel, "veth"), tryVeth},
		{
			"tap", "/dev/net/tun opens; the wire engine's ports are TAPs",
			"Load the kernel module tun (modprobe tun); in a container pass the device: --device /dev/net/tun. Until then the wire engine's ports are packet sockets.",
			tryTAP,
		},
		{"packet", "packet sockets, the wire engine's other kind of port", fmt.Sprintf(inKernel, "af_packet"), tryPacket},
		{"bridge", "switches", fmt.Sprintf(inKernel, "bridge"), tryBridge},
		{
			"tcx", "BPF programs at an interface, with a link that ends with its holder",
			"Take kernel 6.6 or later, and run as root of the host. Labs in namespaces do without it.", tryTCX,
		},
	} {
		all = append(all, attempt(groupPort, p.name, p.detail, space.Do(p.try), p.remedy))
	}
	return all
}

func tryVeth() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "probe1"
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a veth pair: %w", err)
	}
	return netlink.LinkDel(veth)
}

func tryBridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	return netlink.LinkDel(bridge)
}

func tryTAP() error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tun.Close()
	request, err := unix.NewIfreq("probe0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("make a TAP interface: %w", err)
	}
	return nil
}

func tryPacket() error {
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	return unix.Close(sock)
}

// tryTCX hangs a program that lets everything pass at the loopback interface.
func tryTCX() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
		License:      "MIT",
	})
	if err != nil {
		return fmt.Errorf("load a BPF program: %w", err)
	}
	defer program.Close()
	attached, err := link.AttachTCX(link.TCXOptions{Interface: loopback, Program: program, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return fmt.Errorf("attach a BPF program by TCX: %w", err)
	}
	return attached.Close()
}
