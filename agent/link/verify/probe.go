package verify

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// probe is the content of a frame: what it takes to know it again, twice over, so
// that it is known with one bit of it turned over too.
type probe struct {
	nonce  uint32 // of one attempt: a late probe of an earlier one is not counted
	stream uint8  // of the direction's shapes: 0 its own, n that of its path n
	seq    uint32 // in the stream, from 0
	sent   time.Duration
}

const (
	recordLen = 4 + 1 + 4 + 8 + 4
	probeLen  = 2 * recordLen
	headerLen = 14 // of Ethernet
)

// put writes the probe.
func (p probe) put(content []byte) {
	record := content[:recordLen]
	binary.BigEndian.PutUint32(record, p.nonce)
	record[4] = p.stream
	binary.BigEndian.PutUint32(record[5:], p.seq)
	binary.BigEndian.PutUint64(record[9:], uint64(p.sent))
	binary.BigEndian.PutUint32(record[17:], crc32.ChecksumIEEE(record[:17]))
	copy(content[recordLen:probeLen], record)
}

// parse finds a probe of the attempt in a frame that may be damaged: behind its
// headers, of whatever kind they are, one of the two records is whole.
func parse(frame []byte, nonce uint32) (p probe, ok bool) {
	var start [4]byte
	binary.BigEndian.PutUint32(start[:], nonce)
	for _, at := range [...]int{headerLen, offsetIPv4, offsetIPv4UDP, offsetIPv4TCP, offsetIPv6UDP, offsetIPv6TCP} {
		for range 2 {
			if at+recordLen > len(frame) {
				break
			}
			record := frame[at : at+recordLen]
			if bytes.Equal(record[:4], start[:]) && crc32.ChecksumIEEE(record[:17]) == binary.BigEndian.Uint32(record[17:]) {
				return probe{
					nonce:  nonce,
					stream: record[4],
					seq:    binary.BigEndian.Uint32(record[5:]),
					sent:   time.Duration(binary.BigEndian.Uint64(record[9:])),
				}, true
			}
			at += recordLen
		}
	}
	return probe{}, false
}
