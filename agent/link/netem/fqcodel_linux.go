package netem

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of fq_codel's options (include/uapi/linux/pkt_sched.h).
const (
	fqTarget   = 1 // TCA_FQ_CODEL_TARGET, µs
	fqLimit    = 2 // TCA_FQ_CODEL_LIMIT, frames
	fqInterval = 3 // TCA_FQ_CODEL_INTERVAL, µs
	fqECN      = 4 // TCA_FQ_CODEL_ECN
	fqMemory   = 9 // TCA_FQ_CODEL_MEMORY_LIMIT, bytes of memory

	// fqMemoryMost is the most memory that fq_codel takes (fq_codel_change). It is always asked for, so
	// that the default of 32 MiB never is the limit instead of the frames.
	fqMemoryMost = 1 << 31
)

// fqCoDelQdisc is sch_fq_codel, with the kernel's 1024 flows and its quantum of one frame. When it is full it
// drops up to 64 frames at once, of the flow that has most (fq_codel_drop).
type fqCoDelQdisc struct {
	limit            uint32 // frames, the one in service included
	target, interval uint32 // µs
	ecn              bool
}

func (fqCoDelQdisc) kind() string { return "fq_codel" }

func (q fqCoDelQdisc) options() *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(fqTarget, nl.Uint32Attr(q.target))
	options.AddRtAttr(fqLimit, nl.Uint32Attr(q.limit))
	options.AddRtAttr(fqInterval, nl.Uint32Attr(q.interval))
	options.AddRtAttr(fqECN, nl.Uint32Attr(flag(q.ecn)))
	options.AddRtAttr(fqMemory, nl.Uint32Attr(fqMemoryMost))
	return options
}

func decodeFQCoDel(_ string, options []byte) (leaf, error) {
	values, err := values32("fq_codel", options, fqTarget, fqLimit, fqInterval, fqECN, fqMemory)
	if err != nil {
		return nil, err
	}
	if values[4] != fqMemoryMost {
		return nil, fmt.Errorf("fq_codel is limited to %d bytes of memory, set %d", values[4], uint32(fqMemoryMost))
	}
	return fqCoDelQdisc{target: fromCoDel(values[0]), limit: values[1], interval: fromCoDel(values[2]), ecn: values[3] != 0}, nil
}

func (q fqCoDelQdisc) queue(frame int) link.Queue {
	queue := link.Queue{Discipline: link.FQCoDel, ECN: q.ecn, Target: microseconds(q.target), Interval: microseconds(q.interval)}
	packets.limit(&queue, q.limit, frame)
	return queue
}

func (q fqCoDelQdisc) limits() uint32 { return q.limit }

// counts reads struct tc_fq_codel_xstats: type, and of a qdisc (type 0) maxpacket,
// drop_overlimit, ecn_mark and others.
func (q fqCoDelQdisc) counts(s state) outcome {
	own, err := fixed32("fq_codel's statistics", s.own, 4)
	if err != nil || own[0] != 0 {
		return outcome{overflow: s.drops}
	}
	return beyondLimit(s.drops, own[2], own[3])
}

func (q fqCoDelQdisc) become(to leaf) error {
	if _, ok := to.(fqCoDelQdisc); !ok {
		return another(q, to)
	}
	return nil
}

// fqMemoryOf bounds the memory that a frame takes: its pages, rounded up, and the kernel's structures.
func fqMemoryOf(frame int) int { return 2*frame + 4096 }
