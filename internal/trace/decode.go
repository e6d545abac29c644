package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ErrNotTCP is of packets that are no whole TCP segments: of other protocols, and of fragments.
var ErrNotTCP = errors.New("no TCP segment")

// ErrDamaged is of packets that contradict themselves, or whose checksum is wrong.
var ErrDamaged = errors.New("the packet is damaged")

// Numbers of protocols (IANA's registries) and lengths of headers in bytes.
const (
	ethernetHeader = 14
	typeIPv4       = 0x0800
	typeIPv6       = 0x86dd
	protocolTCP    = 6
	ipv4Header     = 20
	ipv6Header     = 40
	tcpHeader      = 20
)

// Extension headers of IPv6 that are passed over (RFC 8200, 4).
const (
	hopByHop    = 0
	routing     = 43
	destination = 60
)

// Decode reads a frame as a TCP segment. Of a frame that was cut short it wants the headers; options that
// are cut are left out. The errors are ErrNotTCP and ErrDamaged. Of what went out no checksum
// of TCP is checked: it is completed later.
func Decode(p Packet) (Segment, error) {
	s := Segment{Time: p.Time, Interface: p.Interface, Way: p.Way, Options: Options{Scale: -1}}
	if len(p.Data) < ethernetHeader {
		return s, ErrNotTCP
	}
	data, length := p.Data[ethernetHeader:], p.Length-ethernetHeader
	var body []byte // what was captured of the segment
	var whole int   // its length
	var pseudo uint32
	var err error
	switch binary.BigEndian.Uint16(p.Data[12:]) {
	case typeIPv4:
		body, whole, pseudo, err = s.ipv4(data, length)
	case typeIPv6:
		body, whole, pseudo, err = s.ipv6(data, length)
	default:
		err = ErrNotTCP
	}
	if err != nil {
		return s, err
	}
	return s, s.tcp(body, whole, pseudo)
}

// ipv4 reads the header (RFC 791).
func (s *Segment) ipv4(data []byte, length int) (body []byte, whole int, pseudo uint32, err error) {
	if len(data) < ipv4Header {
		return nil, 0, 0, ErrNotTCP
	}
	header, total := int(data[0]&0xf)*4, int(binary.BigEndian.Uint16(data[2:]))
	switch {
	case data[0]>>4 != 4 || header < ipv4Header || header > len(data):
		return nil, 0, 0, fmt.Errorf("%w: the IPv4 header", ErrDamaged)
	case folded(sum(0, data[:header])) != 0xffff:
		return nil, 0, 0, fmt.Errorf("%w: the checksum of the IPv4 header", ErrDamaged)
	case total < header || total > length:
		return nil, 0, 0, fmt.Errorf("%w: a length of %d bytes in a frame of %d", ErrDamaged, total, length)
	case data[9] != protocolTCP || binary.BigEndian.Uint16(data[6:])&0x3fff != 0: // or a fragment
		return nil, 0, 0, ErrNotTCP
	}
	s.ID, s.Marked = binary.BigEndian.Uint16(data[4:]), data[1]&3 == 3
	s.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[12:16])), 0)
	s.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[16:20])), 0)
	whole = total - header
	pseudo = sum(uint32(protocolTCP+whole), data[12:20])
	return data[header:min(len(data), total)], whole, pseudo, nil
}

// ipv6 reads the headers (RFC 8200).
func (s *Segment) ipv6(data []byte, length int) (body []byte, whole int, pseudo uint32, err error) {
	if len(data) < ipv6Header {
		return nil, 0, 0, ErrNotTCP
	}
	whole = int(binary.BigEndian.Uint16(data[4:]))
	switch {
	case data[0]>>4 != 6:
		return nil, 0, 0, fmt.Errorf("%w: the IPv6 header", ErrDamaged)
	case ipv6Header+whole > length:
		return nil, 0, 0, fmt.Errorf("%w: a length of %d bytes in a frame of %d", ErrDamaged, ipv6Header+whole, length)
	}
	next := data[6]
	s.Marked = data[1]>>4&3 == 3
	s.From = netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[8:24])), 0)
	s.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[24:40])), 0)
	addresses := data[8:40]
	body = data[ipv6Header:min(len(data), ipv6Header+whole)]
	for next == hopByHop || next == routing || next == destination {
		if len(body) < 8 {
			return nil, 0, 0, ErrNotTCP
		}
		size := 8 + 8*int(body[1])
		if size > whole {
			return nil, 0, 0, fmt.Errorf("%w: an extension header of %d bytes in %d", ErrDamaged, size, whole)
		}
		if size > len(body) {
			return nil, 0, 0, ErrNotTCP
		}
		next, body, whole = body[0], body[size:], whole-size
	}
	if next != protocolTCP {
		return nil, 0, 0, ErrNotTCP
	}
	return body, whole, sum(uint32(protocolTCP+whole), addresses), nil
}

// tcp reads the header (RFC 9293, 3.1).
func (s *Segment) tcp(body []byte, whole int, pseudo uint32) error {
	if whole < tcpHeader {
		return fmt.Errorf("%w: a TCP segment of %d bytes", ErrDamaged, whole)
	}
	if len(body) < tcpHeader {
		return ErrNotTCP
	}
	header := int(body[12]>>4) * 4
	if header < tcpHeader || header > whole {
		return fmt.Errorf("%w: a TCP header of %d bytes in a segment of %d", ErrDamaged, header, whole)
	}
	// Between namespaces a packet may never meet what completes its checksum: then it holds the sum of
	// the pseudo-header alone (CHECKSUM_PARTIAL, include/linux/skbuff.h).
	unfinished := binary.BigEndian.Uint16(body[16:]) == folded(pseudo)
	if s.Way == In && len(body) == whole && !unfinished && folded(sum(pseudo, body)) != 0xffff {
		return fmt.Errorf("%w: the checksum of the segment", ErrDamaged)
	}
	s.From = netip.AddrPortFrom(s.From.Addr(), binary.BigEndian.Uint16(body))
	s.To = netip.AddrPortFrom(s.To.Addr(), binary.BigEndian.Uint16(body[2:]))
	s.Seq, s.Ack = binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:])
	s.Flags, s.Window = Flags(body[13]), binary.BigEndian.Uint16(body[14:])
	s.Payload = whole - header
	s.Options.parse(body[tcpHeader:min(len(body), header)])
	return nil
}

// Kinds of options (IANA, TCP parameters).
const (
	optionEnd        = 0
	optionNone       = 1
	optionMSS        = 2
	optionScale      = 3
	optionPermitted  = 4
	optionSACK       = 5
	optionTimestamps = 8
	maxScale         = 14 // RFC 7323, 2.3
)

// parse reads options up to the first that is cut or no option.
func (o *Options) parse(data []byte) {
	for len(data) > 0 {
		switch data[0] {
		case optionEnd:
			return
		case optionNone:
			data = data[1:]
			continue
		}
		if len(data) < 2 || int(data[1]) < 2 || int(data[1]) > len(data) {
			return
		}
		value := data[2:data[1]]
		switch kind := data[0]; {
		case kind == optionMSS && len(value) == 2:
			o.MSS = binary.BigEndian.Uint16(value)
		case kind == optionScale && len(value) == 1:
			o.Scale = int8(min(value[0], maxScale))
		case kind == optionPermitted && len(value) == 0:
			o.SACKPermitted = true
		case kind == optionSACK && len(value)%8 == 0:
			o.SACK = nil
			for ; len(value) > 0; value = value[8:] {
				o.SACK = append(o.SACK, Range{binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:])})
			}
		case kind == optionTimestamps && len(value) == 8:
			o.Timestamps, o.Value, o.Echo = true, binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:])
		}
		data = data[data[1]:]
	}
}

// sum adds up 16-bit words of at most 64 KiB (RFC 1071).
func sum(start uint32, data []byte) uint32 {
	for ; len(data) >= 2; data = data[2:] {
		start += uint32(data[0])<<8 | uint32(data[1])
	}
	if len(data) == 1 {
		start += uint32(data[0]) << 8
	}
	return start
}

// folded is the sum in one's complement; 0xffff where the checksum is right.
func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
