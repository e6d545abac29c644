package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddress gives an interface an address that serves at once: IPv6 without
// duplicate address detection.
func AddAddress(index int, a netip.Prefix) Message {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(a.Addr()), byte(a.Bits())
	if a.Addr().Is6() {
		h[2] = unix.IFA_F_NODAD
	}
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	own := a.Addr().AsSlice()
	m := NewMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, h).
		Attr(unix.IFA_LOCAL, own).Attr(unix.IFA_ADDRESS, own)
	if a.Addr().Is4() && a.Bits() < 31 {
		for bit := a.Bits(); bit < 32; bit++ {
			own[bit/8] |= 1 << (7 - bit%8)
		}
		m = m.Attr(unix.IFA_BROADCAST, own)
	}
	return m
}

// neighbour is an entry of the neighbour tables, or of a bridge's (struct ndmsg).
func neighbour(index int, family byte, state uint16, flags byte) Message {
	h := make([]byte, unix.SizeofNdMsg)
	h[0], h[10] = family, flags
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint16(h[8:], state)
	return NewMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
}

// SetNeighbour says for ever at which MAC address an IP address is found.
func SetNeighbour(index int, a netip.Addr, mac net.HardwareAddr) Message {
	return neighbour(index, family(a), unix.NUD_PERMANENT, 0).Attr(unix.NDA_DST, a.AsSlice()).Attr(unix.NDA_LLADDR, mac)
}

// SetStation says for ever behind which port of a bridge a MAC address is found.
// NUD_NOARP is static; NUD_PERMANENT would be the bridge's own.
func SetStation(port int, mac net.HardwareAddr) Message {
	return neighbour(port, unix.AF_BRIDGE, unix.NUD_NOARP, unix.NTF_MASTER).Attr(unix.NDA_LLADDR, mac)
}

// AddRoute leads to a subnet, through a gateway on the interface's own subnets.
func AddRoute(index int, to netip.Prefix, via netip.Addr) Message {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(to.Addr()), byte(to.Bits())
	h[4], h[5], h[6], h[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	return NewMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, h).
		Attr(unix.RTA_DST, to.Addr().AsSlice()).
		Attr(unix.RTA_GATEWAY, via.AsSlice()).
		Uint32(unix.RTA_OIF, uint32(index))
}

// IsLocal reports whether the namespace takes what is sent to an address for its own.
func (c *Conn) IsLocal(a netip.Addr) (bool, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(a), byte(a.BitLen())
	body, err := c.Get(NewMessage(unix.RTM_GETROUTE, 0, h).Attr(unix.RTA_DST, a.AsSlice()))
	if err != nil {
		return false, err
	}
	if len(body) < unix.SizeofRtMsg {
		return false, fmt.Errorf("the kernel's answer of %d bytes is no route", len(body))
	}
	return body[7] == unix.RTN_LOCAL, nil
}
