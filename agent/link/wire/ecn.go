package wire

import "encoding/binary"

// Codepoints of the two ECN bits (RFC 3168, section 5).
const (
	notECT = 0
	ce     = 3 // congestion experienced; 1 and 2: capable of it
)

// mark says congestion experienced on an Ethernet frame with an IP packet that is capable of it.
// It reports whether the mark is there.
func mark(frame []byte) bool {
	switch version, at := ip(frame); version {
	case 4:
		packet := frame[at:]
		before := packet[1]
		if before&ce == notECT {
			return false
		}
		packet[1] |= ce
		// RFC 1624, equation 3, for the word of version, length and type of service.
		sum := uint32(^binary.BigEndian.Uint16(packet[10:]))
		sum += uint32(^before) & 0xff
		sum += 0xff00 // the other byte and its complement
		sum += uint32(packet[1])
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
		return true
	case 6: // no checksum has the traffic class in it
		if frame[at+1]>>4&ce == notECT {
			return false
		}
		frame[at+1] |= ce << 4
		return true
	}
	return false
}
