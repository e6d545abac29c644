package wire

import (
	"encoding/binary"
	"math/rand/v2"
)

// struct virtio_net_hdr (include/uapi/linux/virtio_net.h), which stands in front of
// each frame where one of the link's ports is Plain: flags, gso_type, hdr_len, gso_size,
// csum_start, csum_offset, in the machine's own byte order.
const (
	vnetHeader     = 10
	needsChecksum  = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	superPacket    = 1 // where gso_type is; 0: none
	checksumStart  = 6
	checksumOffset = 8
)

// corrupt turns one bit of the frame over, so that its receiver notices: one that a checksum
// is about. Of an IPv4 packet that is any; of an IPv6 packet, whose own header has none, any
// behind it; of other frames any behind the Ethernet header. A checksum that the sender's stack left
// to the device is finished first, or the damage would be declared good. It reports false
// for a frame that has nothing behind its headers.
//
// UDP over IPv4 may do without a checksum: such damage reaches the application, as it would
// on a real link.
func corrupt(f *frame, random *rand.Rand) bool {
	frame, header := f.ethernet(), f.data[:len(f.data)-f.size]
	from, to := ethernetHeader, len(frame)
	switch version, at := ip(frame); version {
	case 4:
		from = at
		if n := int(binary.BigEndian.Uint16(frame[at+2:])); n >= headerIPv4 {
			to = min(to, at+n) // without Ethernet's padding
		}
	case 6:
		if n := int(binary.BigEndian.Uint16(frame[at+4:])); n > 0 && at+headerIPv6+n <= to {
			from, to = at+headerIPv6, at+headerIPv6+n
		}
	}
	if len(header) == vnetHeader {
		if header[superPacket] != 0 {
			// The receiver's kernel looks at the IP header of a super-packet before it
			// takes it, and refuses it at the door.
			from = max(from, int(binary.NativeEndian.Uint16(header[checksumStart:])))
		}
		finishChecksum(header, frame)
	}
	if from >= to {
		return false
	}
	bit := random.IntN((to - from) * 8)
	frame[from+bit/8] ^= 1 << (bit % 8)
	return true
}

// finishChecksum computes a checksum that was left to the device.
func finishChecksum(header, frame []byte) {
	if header[0]&needsChecksum != 0 {
		start := int(binary.NativeEndian.Uint16(header[checksumStart:]))
		at := start + int(binary.NativeEndian.Uint16(header[checksumOffset:]))
		if at+2 <= len(frame) {
			// The field holds the sum of the pseudo-header already.
			sum := ^fold(frame[start:])
			if sum == 0 {
				sum = 0xffff // 0 is "none" to UDP, and the same number to all
			}
			binary.BigEndian.PutUint16(frame[at:], sum)
		}
	}
	header[0] = 0 // no promises
}

// fold is the Internet checksum's sum (RFC 1071) of some bytes.
func fold(data []byte) uint16 {
	sum := uint64(0)
	for ; len(data) >= 4; data = data[4:] {
		sum += uint64(binary.BigEndian.Uint32(data))
	}
	if len(data) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(data))
		data = data[2:]
	}
	if len(data) == 1 {
		sum += uint64(data[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
