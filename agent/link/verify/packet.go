package verify

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/tcplab/tcplab/agent/link"
)

// etherType is IEEE 802's Local Experimental EtherType 1 (IEEE Std 802, 9.2.3), of
// probes that are to be no packet of any path.
const etherType = 0x88b5

// group is a link-local group address that no bridge forwards (IEEE Std 802.1Q, table 8-1: the nearest
// bridge), so that a probe never leaves its link; and no stack answers an IP packet that came to a
// group (kernel: only PACKET_HOST in icmp_send, tcp_v4_rcv and ip_forward).
const group = "\x01\x80\xc2\x00\x00\x0e"

// Protocol numbers (IANA), and where a probe begins behind the headers.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
	protocolOther  = 253 // for experiments (RFC 3692)

	offsetIPv4    = headerLen + 20
	offsetIPv4UDP = offsetIPv4 + 8 // and ICMP
	offsetIPv4TCP = offsetIPv4 + 20
	offsetIPv6    = headerLen + 40 // as offsetIPv4TCP
	offsetIPv6UDP = offsetIPv6 + 8
	offsetIPv6TCP = offsetIPv6 + 20
)

// packet is the headers of a probe. The zero value is no IP packet.
type packet struct {
	to           netip.Addr
	protocol     link.Protocol // AnyProtocol: none of those that have a name
	source, dest uint16        // ports, with TCP and UDP
}

// selectedBy reports whether the match selects the packet.
func (p packet) selectedBy(m link.Match) bool {
	switch {
	case !p.to.IsValid():
		return false
	case m.Destination.IsValid() && !m.Destination.Contains(p.to):
		return false
	case m.Protocol != link.AnyProtocol && m.Protocol != p.protocol:
		return false
	case m.Port != 0 && p.protocol != link.TCP && p.protocol != link.UDP:
		return false
	}
	return m.Port == 0 || m.Port == p.source || m.Port == p.dest
}

// maxKinds is how many kinds of packet probe one shape.
const maxKinds = 8

var errHidden = errors.New("the paths before it take every packet that it selects")

// packetsOf are packets of each kind that the direction's path selects, and no path
// before it: both families, each protocol, the port at either end. Path -1 is the
// direction's own shape, which has all that no path selects, what is no IP packet first.
func packetsOf(d link.Direction, path int) ([]packet, error) {
	before, match := d.Paths, link.Match{}
	if path >= 0 {
		before, match = d.Paths[:path], d.Paths[path].Match
	}
	var all []packet
	if path < 0 {
		all = append(all, packet{})
		if len(d.Paths) == 0 {
			return all, nil
		}
	}
	for _, family := range [][]netip.Addr{addresses(match.Destination, documentation4()), addresses(match.Destination, documentation6())} {
		for _, protocol := range protocols(match) {
			for _, ports := range portsOf(match, protocol) {
				if p, ok := first(family, protocol, ports, match, before); ok && len(all) < maxKinds {
					all = append(all, p)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, errHidden
	}
	return all, nil
}

// first is a packet to one of the addresses that the match selects and no path before it.
func first(to []netip.Addr, protocol link.Protocol, ports [2]uint16, match link.Match, before []link.Path) (packet, bool) {
	for _, address := range to {
		for shift := range uint16(17) { // one more than there are paths
			p := packet{to: address, protocol: protocol}
			if protocol == link.TCP || protocol == link.UDP {
				p.source, p.dest = ports[0], ports[1]
				if p.source != match.Port {
					p.source += shift
				}
				if p.dest != match.Port {
					p.dest += shift
				}
			}
			if p.selectedBy(match) && !taken(p, before) {
				return p, true
			}
		}
	}
	return packet{}, false
}

func taken(p packet, before []link.Path) bool {
	for _, path := range before {
		if p.selectedBy(path.Match) {
			return true
		}
	}
	return false
}

// protocols are those that the match lets through, one where it does not care and ports do not tell.
func protocols(m link.Match) []link.Protocol {
	switch {
	case m.Protocol != link.AnyProtocol:
		return []link.Protocol{m.Protocol}
	case m.Port != 0:
		return []link.Protocol{link.TCP, link.UDP}
	}
	return []link.Protocol{link.TCP, link.UDP, link.ICMP, link.AnyProtocol}
}

// portsOf are source and destination ports: those of the match at either end, and else some of the dynamic
// ones (RFC 6335).
func portsOf(m link.Match, protocol link.Protocol) [][2]uint16 {
	const one, other = 50000, 60000
	if m.Port != 0 && (protocol == link.TCP || protocol == link.UDP) {
		return [][2]uint16{{one, m.Port}, {m.Port, one}}
	}
	return [][2]uint16{{one, other}}
}

// Addresses for documentation (RFC 5737, RFC 3849).
func documentation4() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1})}
}

func documentation6() []netip.Addr {
	return []netip.Addr{netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: 1}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, 15: 1}), netip.AddrFrom16([16]byte{0xfd, 15: 1})}
}

// addresses are some of the prefix, if it is of the others' family; without a prefix, the others.
func addresses(prefix netip.Prefix, others []netip.Addr) []netip.Addr {
	if !prefix.IsValid() {
		return others
	}
	if prefix.Addr().Is4() != others[0].Is4() {
		return nil
	}
	base := prefix.Addr().AsSlice()
	// Its last addresses, and such with one bit of the prefix's own part set, so that a longer prefix
	// of a path before it does not take them all.
	var all []netip.Addr
	for bit := len(base) * 8; bit >= prefix.Bits(); bit-- {
		address := append([]byte(nil), base...)
		for i := max(bit, prefix.Bits()); i < len(base)*8-1; i++ {
			address[i/8] |= 0x80 >> (i % 8)
		}
		if a, ok := netip.AddrFromSlice(address); ok && prefix.Contains(a) {
			all = append(all, a)
		}
	}
	return all
}

// mold is the frame of a kind of packet and a length, into which probes are put.
type mold struct {
	frame    []byte
	content  int    // where the probe begins
	segment  int    // where what the checksum covers begins; 0: no checksum
	checksum int    // where it is
	pseudo   uint32 // sum of what it covers beside that
}

// newMold prepares a frame of the length, which has room for a probe.
func newMold(p packet, source net.HardwareAddr, length int) mold {
	m := mold{frame: make([]byte, length), content: headerLen}
	copy(m.frame, group)
	copy(m.frame[6:12], source)
	if !p.to.IsValid() {
		binary.BigEndian.PutUint16(m.frame[12:], etherType)
		return m
	}
	number, headers, checksum := transport(p)
	if p.to.Is4() {
		binary.BigEndian.PutUint16(m.frame[12:], 0x0800)
		ip := m.frame[headerLen:offsetIPv4]
		ip[0] = 4<<4 | 5 // version, words of the header
		binary.BigEndian.PutUint16(ip[2:], uint16(length-headerLen))
		ip[6] = 0x40 // do not fragment
		ip[8], ip[9] = 64, number
		copy(ip[12:], []byte{192, 0, 2, 254})
		copy(ip[16:], p.to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], finish(sum(0, ip)))
		m.segment = offsetIPv4
		m.pseudo = sum(0, ip[12:20])
	} else {
		binary.BigEndian.PutUint16(m.frame[12:], 0x86dd)
		ip := m.frame[headerLen:offsetIPv6]
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[4:], uint16(length-offsetIPv6))
		ip[6], ip[7] = number, 64
		source := [16]byte{0x20, 1, 0xd, 0xb8, 15: 0xfe}
		copy(ip[8:], source[:])
		copy(ip[24:], p.to.AsSlice())
		m.segment = offsetIPv6
		m.pseudo = sum(0, ip[8:40])
	}
	copy(m.frame[m.segment:], headers)
	m.content = m.segment + len(headers)
	if p.protocol == link.UDP {
		binary.BigEndian.PutUint16(m.frame[m.segment+4:], uint16(length-m.segment))
	}
	if p.protocol == link.ICMP && p.to.Is4() {
		m.pseudo = 0
	} else {
		m.pseudo += uint32(number) + uint32(length-m.segment)
	}
	if checksum == 0 {
		m.segment = 0
	} else {
		m.checksum = m.segment + checksum
	}
	return m
}

// transport is the protocol's number, its header, and where in that its checksum is; 0: it has none.
func transport(p packet) (number byte, header []byte, checksum int) {
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.source), p.dest)
	switch p.protocol {
	case link.TCP:
		// An acknowledgement that belongs to no connection.
		return protocolTCP, append(ports, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, 0x10, 0xff, 0xff, 0, 0, 0, 0), 16
	case link.UDP:
		return protocolUDP, append(ports, 0, 0, 0, 0), 6
	case link.ICMP:
		if p.to.Is4() {
			return protocolICMP, make([]byte, 8), 2 // echo reply
		}
		return protocolICMPv6, []byte{129, 7: 0}, 2 // echo reply
	}
	return protocolOther, nil, 0
}

// pour puts the probe into the frame, which is the mold's until the next.
func (m mold) pour(p probe) []byte {
	p.put(m.frame[m.content:])
	if m.segment > 0 {
		binary.BigEndian.PutUint16(m.frame[m.checksum:], 0)
		// Behind the probe there are zeros.
		value := finish(sum(m.pseudo, m.frame[m.segment:m.content+probeLen]))
		if value == 0 {
			value = 0xffff // as UDP must (RFC 768), and others may
		}
		binary.BigEndian.PutUint16(m.frame[m.checksum:], value)
	}
	return m.frame
}

// smallest is the least frame, in bytes, that holds a probe behind the packet's headers.
func (p packet) smallest() int {
	_, headers, _ := transport(p)
	switch {
	case !p.to.IsValid():
		return smallFrame
	case p.to.Is4():
		return offsetIPv4 + len(headers) + probeLen
	default:
		return offsetIPv6 + len(headers) + probeLen
	}
}

// sum adds to the Internet checksum's sum (RFC 1071).
func sum(start uint32, data []byte) uint32 {
	for ; len(data) >= 2; data = data[2:] {
		start += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) > 0 {
		start += uint32(data[0]) << 8
	}
	return start
}

func finish(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
