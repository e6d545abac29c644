package netem

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vishvananda/netlink/nl"
)

const (
	rateOptions = 36 // struct tc_tbf_qopt: rate and peakrate of 12 bytes each, limit, buffer, mtu

	// ethernet is TC_LINKLAYER_ETHERNET: a frame costs its length, by
	// calculation and without a rate table.
	ethernet = 1
)

// rateQdisc is sch_tbf. A frame leaves when the bucket holds its length, so that a
// busy link sends one frame for each serialization time, and the first frame after
// an idle time leaves at once, not after its serialization as on a real link.
type rateQdisc struct {
	bytesPerSecond uint64
	burst          uint32 // bytes that the bucket holds; longer frames are dropped
	limit          uint32 // of the leaf, in the leaf's unit: a change of the tbf sets it
}

func (rateQdisc) kind() string { return "tbf" }

func (q rateQdisc) options() *nl.RtAttr {
	fixed := make([]byte, rateOptions)
	fixed[1] = ethernet // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
	binary.NativeEndian.PutUint32(fixed[8:], uint32(min(q.bytesPerSecond, math.MaxUint32)))
	binary.NativeEndian.PutUint32(fixed[24:], q.limit)
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, fixed)
	if q.bytesPerSecond > math.MaxUint32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(q.bytesPerSecond))
	}
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(q.burst))
	return options
}

// decode reads all but the burst, which the kernel tells only as a time.
func (q *rateQdisc) decode(options []byte) error {
	attrs, err := attributes(options)
	if err != nil {
		return fmt.Errorf("tbf's options: %w", err)
	}
	fixed := attrs[nl.TCA_TBF_PARMS]
	if len(fixed) < rateOptions {
		return fmt.Errorf("tbf's options have %d bytes, want at least %d", len(fixed), rateOptions)
	}
	*q = rateQdisc{
		bytesPerSecond: uint64(binary.NativeEndian.Uint32(fixed[8:])),
		limit:          binary.NativeEndian.Uint32(fixed[24:]),
	}
	if rate := attrs[nl.TCA_TBF_RATE64]; len(rate) >= 8 {
		q.bytesPerSecond = binary.NativeEndian.Uint64(rate)
	}
	return nil
}
