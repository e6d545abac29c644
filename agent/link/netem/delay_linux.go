package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// Attributes of netem's options that the netlink library lacks
// (include/uapi/linux/pkt_sched.h).
const (
	attrRate      = 6  // TCA_NETEM_RATE
	attrRate64    = 8  // TCA_NETEM_RATE64
	attrLatency64 = 10 // TCA_NETEM_LATENCY64, kernel 4.16
	attrSeed      = 14 // TCA_NETEM_PRNG_SEED, kernel 6.6

	delayOptions = 24 // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
)

// delayQdisc is sch_netem with a child: it loses a frame or holds it for the delay.
//
// It is given the highest rate there is, at which every frame takes 0 ns. With a
// rate, netem lets no frame out before the one that came earlier, so that a
// shorter delay set later reorders nothing; and it takes the frame from its
// socket even where the delay is 0.
type delayQdisc struct {
	delay time.Duration
	loss  uint32 // see threshold
	limit uint32 // frames in flight and in the child
	seed  uint64 // of the random generator; ignored, and chosen by the kernel, before 6.6
}

func (delayQdisc) kind() string { return "netem" }

func (q delayQdisc) options() *nl.RtAttr {
	fixed := make([]byte, delayOptions)
	binary.NativeEndian.PutUint32(fixed[4:], q.limit)
	binary.NativeEndian.PutUint32(fixed[8:], q.loss)
	options := nl.NewRtAttr(nl.TCA_OPTIONS, fixed)
	options.AddRtAttr(attrLatency64, nl.Uint64Attr(uint64(q.delay)))
	options.AddRtAttr(attrSeed, nl.Uint64Attr(q.seed))
	rate := make([]byte, 16) // struct tc_netem_rate: rate, packet_overhead, cell_size, cell_overhead
	binary.NativeEndian.PutUint32(rate, math.MaxUint32)
	options.AddRtAttr(attrRate64, nl.Uint64Attr(math.MaxUint64))
	options.AddRtAttr(attrRate, rate)
	return options
}

func (q *delayQdisc) decode(options []byte) error {
	if len(options) < delayOptions {
		return fmt.Errorf("netem's options have %d bytes, want at least %d", len(options), delayOptions)
	}
	*q = delayQdisc{
		limit: binary.NativeEndian.Uint32(options[4:]),
		loss:  binary.NativeEndian.Uint32(options[8:]),
	}
	attrs, err := attributes(options[delayOptions:])
	if err != nil {
		return fmt.Errorf("netem's options: %w", err)
	}
	latency, ok := attrs[attrLatency64]
	if !ok || len(latency) < 8 {
		return fmt.Errorf("netem does not tell its delay in nanoseconds: kernel 4.16 or later is needed")
	}
	q.delay = time.Duration(binary.NativeEndian.Uint64(latency))
	if seed := attrs[attrSeed]; len(seed) >= 8 {
		q.seed = binary.NativeEndian.Uint64(seed)
	}
	return nil
}

// threshold is the largest value of a 32-bit random number at which netem loses
// a frame; 0 loses none. A probability above 0 is never rounded to 0.
func threshold(p float64) uint32 {
	if p == 0 {
		return 0
	}
	return uint32(max(1, min(math.Round(p*(1<<32))-1, math.MaxUint32)))
}

// probability is the inverse of threshold.
func probability(threshold uint32) float64 {
	if threshold == 0 {
		return 0
	}
	return (float64(threshold) + 1) / (1 << 32)
}
