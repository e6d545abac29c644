package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/tcplab/tcplab/agent/link"
)

// Numbers of what an IP packet carries (IANA).
const (
	isICMP     = 1
	isTCP      = 6
	isUDP      = 17
	isICMPv6   = 58
	isHopByHop = 0 // extension headers of IPv6 (RFC 8200, 4; RFC 4302)
	isRouting  = 43
	isFragment = 44
	isAuth     = 51
	isOptions  = 60
)

// key is what of a frame a match can ask for.
type key struct {
	destination netip.Addr // invalid: no IP packet
	carries     uint8
	hasPorts    bool // in a later fragment nothing has
	ports       [2]uint16
}

// keyOf reads an Ethernet frame.
func keyOf(frame []byte) key {
	switch version, at := ip(frame); version {
	case 4:
		packet := frame[at:]
		k := key{destination: netip.AddrFrom4([4]byte(packet[16:20])), carries: packet[9]}
		if offset := binary.BigEndian.Uint16(packet[6:]) & 0x1fff; offset == 0 {
			k.readPorts(packet, int(packet[0]&15)*4)
		}
		return k
	case 6:
		packet := frame[at:]
		k := key{destination: netip.AddrFrom16([16]byte(packet[24:40]))}
		k.carries = packet[6]
		at := headerIPv6
		// Each header says what follows it; RFC 8200 knows seven.
		for range 8 {
			if len(packet) < at+8 {
				return k
			}
			header := packet[at:]
			switch k.carries {
			case isHopByHop, isRouting, isOptions:
				at += (int(header[1]) + 1) * 8
			case isAuth:
				at += (int(header[1]) + 2) * 4
			case isFragment:
				if binary.BigEndian.Uint16(header[2:])>>3 != 0 {
					k.carries = header[0]
					return k
				}
				at += 8
			default:
				k.readPorts(packet, at)
				return k
			}
			k.carries = header[0]
		}
		return k
	}
	return key{}
}

func (k *key) readPorts(packet []byte, at int) {
	if (k.carries == isTCP || k.carries == isUDP) && len(packet) >= at+4 {
		k.hasPorts = true
		k.ports = [2]uint16{binary.BigEndian.Uint16(packet[at:]), binary.BigEndian.Uint16(packet[at+2:])}
	}
}

// selects reports whether all that the match asks for holds.
func (k *key) selects(m link.Match) bool {
	if !k.destination.IsValid() || m.Destination.IsValid() && !m.Destination.Contains(k.destination) {
		return false
	}
	switch m.Protocol {
	case link.TCP:
		if k.carries != isTCP {
			return false
		}
	case link.UDP:
		if k.carries != isUDP {
			return false
		}
	case link.ICMP:
		if k.carries != isICMP && k.destination.Is4() || k.carries != isICMPv6 && k.destination.Is6() {
			return false
		}
	}
	return m.Port == 0 || k.hasPorts && (k.ports[0] == m.Port || k.ports[1] == m.Port)
}
