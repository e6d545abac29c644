package wire

import "encoding/binary"

// Numbers of Ethernet and IP (IEEE 802.1Q, RFC 791, RFC 8200, IANA protocol numbers).
const (
	ethernetHeader = 14
	typeIPv4       = 0x0800
	typeIPv6       = 0x86dd
	typeVLAN       = 0x8100
	typeProvider   = 0x88a8 // 802.1ad
	headerIPv4     = 20     // least
	headerIPv6     = 40
)

// ethernet is the frame from its Ethernet header on, without what the port has in front of it.
func (f *frame) ethernet() []byte { return f.data[len(f.data)-f.size:] }

// ip finds the IP packet in an Ethernet frame, behind VLAN tags: its version, and
// where it begins. Version 0: there is none, or not so much as its header.
func ip(frame []byte) (version, at int) {
	at = ethernetHeader
	if len(frame) < at {
		return 0, 0
	}
	kind := binary.BigEndian.Uint16(frame[at-2:])
	for range 2 {
		if kind != typeVLAN && kind != typeProvider || len(frame) < at+4 {
			break
		}
		kind = binary.BigEndian.Uint16(frame[at+2:])
		at += 4
	}
	switch {
	case kind == typeIPv4 && len(frame) >= at+headerIPv4 && frame[at]>>4 == 4 && frame[at]&15 >= headerIPv4/4:
		return 4, at
	case kind == typeIPv6 && len(frame) >= at+headerIPv6 && frame[at]>>4 == 6:
		return 6, at
	}
	return 0, 0
}
