package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Interface is what the kernel says of an interface.
type Interface struct {
	Index int
	// Drops are the frames that the interface could not send.
	TxDropped uint64
	// IPv6 are its settings by their numbers (include/uapi/linux/ipv6.h,
	// DEVCONF_…); empty where it has no IPv6.
	IPv6 []int32
}

// header is struct ifinfomsg.
func header(index int, flags, change uint32) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint32(h[8:], flags)
	binary.NativeEndian.PutUint32(h[12:], change)
	return h
}

// ByName finds an interface.
func (c *Conn) ByName(name string) (Interface, error) {
	return c.get(NewMessage(unix.RTM_GETLINK, 0, header(0, 0, 0)).String(unix.IFLA_IFNAME, name))
}

// ByIndex finds an interface.
func (c *Conn) ByIndex(index int) (Interface, error) {
	return c.get(NewMessage(unix.RTM_GETLINK, 0, header(index, 0, 0)))
}

func (c *Conn) get(m Message) (i Interface, err error) {
	body, err := c.Get(m)
	if err != nil {
		return i, err
	}
	if len(body) < unix.SizeofIfInfomsg {
		return i, fmt.Errorf("the kernel's answer of %d bytes is no interface", len(body))
	}
	i.Index = int(binary.NativeEndian.Uint32(body[4:]))
	attrs := Attributes(body[unix.SizeofIfInfomsg:])
	const txDropped = 7 * 8 // struct rtnl_link_stats64
	if stats := attrs[unix.IFLA_STATS64]; len(stats) >= txDropped+8 {
		i.TxDropped = binary.NativeEndian.Uint64(stats[txDropped:])
	}
	settings := Attributes(Attributes(attrs[unix.IFLA_AF_SPEC])[unix.AF_INET6])[unix.IFLA_INET6_CONF]
	for ; len(settings) >= 4; settings = settings[4:] {
		i.IPv6 = append(i.IPv6, int32(binary.NativeEndian.Uint32(settings)))
	}
	return i, nil
}

// SetLink changes an interface's address, MTU and queue length, and leaves those that are zero.
func SetLink(index int, mac net.HardwareAddr, mtu, queue int) Message {
	m := NewMessage(unix.RTM_NEWLINK, 0, header(index, 0, 0))
	if mac != nil {
		m = m.Attr(unix.IFLA_ADDRESS, mac)
	}
	if mtu != 0 {
		m = m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	if queue != 0 {
		m = m.Uint32(unix.IFLA_TXQLEN, uint32(queue))
	}
	return m
}

// Up brings an interface up.
func Up(index int) Message {
	return NewMessage(unix.RTM_NEWLINK, 0, header(index, unix.IFF_UP, unix.IFF_UP))
}

// NoQueue takes the qdisc away through which an interface sends, so that it
// gives every frame to its device at once.
func NoQueue(index int) Message {
	h := make([]byte, 20) // struct tcmsg
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint32(h[12:], 0xffffffff) // TC_H_ROOT
	return NewMessage(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h).String(unix.TCA_KIND, "noqueue")
}

// AddBridge makes a bridge that floods multicast frames as it does broadcasts.
func AddBridge(name string) Message {
	const multicastSnooping = 23 // IFLA_BR_MCAST_SNOOPING
	info := Message(nil).
		String(unix.IFLA_INFO_KIND, "bridge").
		Attr(unix.IFLA_INFO_DATA, Message(nil).Attr(multicastSnooping, []byte{0}))
	return NewMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header(0, 0, 0)).
		String(unix.IFLA_IFNAME, name).
		Attr(unix.IFLA_LINKINFO, info)
}

// SetMaster makes an interface a port of a bridge.
func SetMaster(port, bridge int) Message {
	return NewMessage(unix.RTM_NEWLINK, 0, header(port, 0, 0)).Uint32(unix.IFLA_MASTER, uint32(bridge))
}
