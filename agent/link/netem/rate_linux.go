package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	rateOptions = 36 // struct tc_tbf_qopt: rate and peakrate of 12 bytes each, limit, buffer, mtu

	// Link layers of struct tc_ratespec: a frame costs its length, or ATM cells, by
	// calculation and without a rate table.
	ethernet = 1 // TC_LINKLAYER_ETHERNET
	atm      = 2 // TC_LINKLAYER_ATM

	// tick is the unit in which tbf tells its bucket (PSCHED_SHIFT in include/net/pkt_sched.h).
	tick = 64 * time.Nanosecond
)

// rateQdisc is sch_tbf. A frame leaves when the bucket holds its cost, so that a
// busy link sends one frame for each serialization time, and the first frame after
// an idle time leaves at once, not after its serialization as on a real link.
type rateQdisc struct {
	bytesPerSecond uint64
	overhead       link.Overhead
	burst          uint32 // bytes that the bucket holds; longer frames are dropped
	limit          uint32 // of the leaf where it is a fifo, in the leaf's unit: a change of the tbf sets it

	bucket uint32 // of a tbf that was read: what the bucket holds, in ticks, modulo 2³²
}

func (rateQdisc) kind() string { return "tbf" }

func (q rateQdisc) options() *nl.RtAttr {
	fixed := make([]byte, rateOptions)
	// struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
	fixed[1] = ethernet
	if q.overhead.ATM {
		fixed[1] = atm
	}
	binary.NativeEndian.PutUint16(fixed[2:], uint16(q.overhead.Bytes))
	binary.NativeEndian.PutUint16(fixed[6:], uint16(q.overhead.MinBytes))
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
		overhead: link.Overhead{
			Bytes:    int(binary.NativeEndian.Uint16(fixed[2:])),
			MinBytes: int(binary.NativeEndian.Uint16(fixed[6:])),
			ATM:      fixed[1]&0x0f == atm, // TC_LINKLAYER_MASK
		},
		limit:  binary.NativeEndian.Uint32(fixed[24:]),
		bucket: binary.NativeEndian.Uint32(fixed[28:]),
	}
	if rate := attrs[nl.TCA_TBF_RATE64]; len(rate) >= 8 {
		q.bytesPerSecond = binary.NativeEndian.Uint64(rate)
	}
	return nil
}

// same reports whether both are told to the kernel alike, but for the limit, which is the leaf's. read comes
// from the kernel, which tells its bucket.
func (q rateQdisc) same(read rateQdisc) bool {
	return q.bytesPerSecond == read.bytesPerSecond && q.overhead == read.overhead && q.ticks(q.burst) == read.bucket
}

// ticks is what the kernel makes of a bucket of so many bytes, as it tells it.
func (q rateQdisc) ticks(burst uint32) uint32 {
	return uint32(q.nanoseconds(burst) / uint64(tick))
}

// nanoseconds is psched_l2t_ns of include/net/sch_generic.h: what a frame of a
// length takes of the rate.
func (q rateQdisc) nanoseconds(length uint32) uint64 {
	// psched_ratecfg_precompute__ in net/sched/sch_generic.c.
	multiplier, shift, factor := uint32(1), 0, uint64(time.Second)
	for q.bytesPerSecond > 0 {
		multiplier = uint32(factor / q.bytesPerSecond)
		if multiplier&(1<<31) != 0 || factor&(1<<63) != 0 {
			break
		}
		factor <<= 1
		shift++
	}
	length += uint32(q.overhead.Bytes)
	length = max(length, uint32(q.overhead.MinBytes))
	if q.overhead.ATM {
		length = (length + 47) / 48 * 53
	}
	return uint64(length) * uint64(multiplier) >> shift
}

// beyond is how many bytes the bucket of a tbf that was read holds beyond those given: the inverse
// of its burst, to within a tick of the rate, or an ATM cell. It must fill in less than 2³² ticks.
func (q rateQdisc) beyond(base uint32) int {
	more := q.bucket - q.ticks(base) // modulo 2³², as both are
	bytes := float64(more) * tick.Seconds() * float64(q.bytesPerSecond)
	if q.overhead.ATM {
		bytes *= 48. / 53
	}
	return int(math.Round(bytes))
}

// checkRate says why tbf cannot have the bottleneck of a shape.
func checkRate(shape link.Shape, frame int) error {
	const longest = 1 << 32 * tick // that a bucket may take to fill, so that it can be read back
	switch {
	case shape.Rate < 8:
		return fmt.Errorf("a rate of %d bit/s is less than the kernel's least, 8 bit/s", shape.Rate)
	case shape.Rate >= unlimited:
		return fmt.Errorf("a rate of %d bit/s is not below 1 Tbit/s: leave it out for a link without a limit", shape.Rate)
	case shape.Overhead.Bytes < 0:
		return fmt.Errorf("the kernel's rates cannot take an overhead of %d bytes off a frame (struct tc_ratespec has no sign): give 0 or more, or take the wire engine",
			shape.Overhead.Bytes)
	case shape.Burst == 0:
	case float64(shape.Burst)*8/float64(shape.Rate) >= longest.Seconds()/2:
		return fmt.Errorf("a burst of %d bytes takes %.0f s to save up at this rate, and the kernel's bucket holds at most %.0f s: make it smaller",
			shape.Burst, float64(shape.Burst)*8/float64(shape.Rate), longest.Seconds()/2)
	case int64(shape.Burst)+int64(base(shape.Rate, frame)) > math.MaxUint32:
		return fmt.Errorf("a burst of %d bytes is beyond the kernel's", shape.Burst)
	}
	return nil
}

// base is what a bucket holds without any burst, in bytes.
func base(rate uint64, frame int) uint32 {
	return uint32(frame) + uint32(float64(rate)/8*timerSlack.Seconds())
}
