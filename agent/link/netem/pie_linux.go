package netem

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of pie's options (include/uapi/linux/pkt_sched.h).
const (
	pieTarget = 1 // TCA_PIE_TARGET, µs
	pieLimit  = 2 // TCA_PIE_LIMIT, frames
	pieECN    = 6 // TCA_PIE_ECN
)

// pieQdisc is sch_pie, with the kernel's alpha, beta and interval of 15 ms (rounded up to its tick). From a chance of
// 10% on it drops what it would mark (RFC 8033, 5.1).
type pieQdisc struct {
	limit  uint32 // frames, the one in service included
	target uint32 // µs
	ecn    bool
}

func (pieQdisc) kind() string { return "pie" }

func (q pieQdisc) options() *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(pieTarget, nl.Uint32Attr(q.target))
	options.AddRtAttr(pieLimit, nl.Uint32Attr(q.limit))
	options.AddRtAttr(pieECN, nl.Uint32Attr(flag(q.ecn)))
	return options
}

func decodePIE(_ string, options []byte) (leaf, error) {
	values, err := values32("pie", options, pieTarget, pieLimit, pieECN)
	if err != nil {
		return nil, err
	}
	return pieQdisc{target: fromTicks(values[0]), limit: values[1], ecn: values[2] != 0}, nil
}

// asTicks is what pie tells of a time, in µs, that it was told: it keeps ticks of 64 ns.
func asTicks(told uint32) uint32 { return uint32(uint64(told) * 1000 >> 6 << 6 / 1000) }

// fromTicks is a time that pie, told of it, tells as this one. One that it keeps exactly and the
// next are told alike.
func fromTicks(tells uint32) uint32 {
	if asTicks(tells) == tells {
		return tells
	}
	return tells + 1
}

func (q pieQdisc) queue(frame int) link.Queue {
	queue := link.Queue{Discipline: link.PIE, ECN: q.ecn, Target: microseconds(q.target)}
	packets.limit(&queue, q.limit, frame)
	return queue
}

func (q pieQdisc) limits() uint32 { return q.limit }

// counts reads struct tc_pie_xstats: prob (64 bits), delay, avg_dq_rate,
// dq_rate_estimating, packets_in, dropped, overlimit, maxq, ecn_mark.
func (q pieQdisc) counts(s state) outcome {
	if len(s.own) < 40 {
		return outcome{overflow: s.drops}
	}
	return beyondLimit(s.drops, binary.NativeEndian.Uint32(s.own[28:]), binary.NativeEndian.Uint32(s.own[36:]))
}

func (q pieQdisc) become(to leaf) error {
	if _, ok := to.(pieQdisc); !ok {
		return another(q, to)
	}
	return nil
}
