package verify

import (
	"encoding/binary"
	"net"
	"time"
)

// etherType is IEEE 802's Local Experimental EtherType 1 (IEEE Std 802, 9.2.3).
const etherType = 0x88b5

// destination is a link-local group that no bridge forwards (IEEE Std 802.1Q,
// table 8-1: the nearest bridge), so that a probe never leaves its link.
const destination = "\x01\x80\xc2\x00\x00\x0e"

// magic tells tcplab's probes from others' experiments.
const magic = 0x7463706c // "tcpl"

// kind is what a probe is for.
type kind uint8

const (
	kindDelay kind = iota + 1
	kindLoss
	kindTrain // the first train; the n-th is kindTrain + n - 1
)

// probe is the content of a frame.
type probe struct {
	nonce uint64 // of one attempt: a late probe of an earlier one is not counted
	kind  kind
	seq   uint32
	sent  time.Duration // since the epoch
}

const (
	headerLen = 14
	probeLen  = headerLen + 4 + 8 + 1 + 4 + 8
)

// put writes the probe into a frame of at least probeLen bytes.
func (p probe) put(frame []byte, source net.HardwareAddr) {
	copy(frame, destination)
	copy(frame[6:12], source)
	binary.BigEndian.PutUint16(frame[12:], etherType)
	binary.BigEndian.PutUint32(frame[14:], magic)
	binary.BigEndian.PutUint64(frame[18:], p.nonce)
	frame[26] = byte(p.kind)
	binary.BigEndian.PutUint32(frame[27:], p.seq)
	binary.BigEndian.PutUint64(frame[31:], uint64(p.sent))
}

// parse reads a probe; ok is false for any other frame.
func parse(frame []byte) (p probe, ok bool) {
	if len(frame) < probeLen ||
		string(frame[:len(destination)]) != destination ||
		binary.BigEndian.Uint16(frame[12:]) != etherType ||
		binary.BigEndian.Uint32(frame[14:]) != magic {
		return probe{}, false
	}
	return probe{
		nonce: binary.BigEndian.Uint64(frame[18:]),
		kind:  kind(frame[26]),
		seq:   binary.BigEndian.Uint32(frame[27:]),
		sent:  time.Duration(binary.BigEndian.Uint64(frame[31:])),
	}, true
}
