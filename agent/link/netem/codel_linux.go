package netem

import (
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of codel's options (include/uapi/linux/pkt_sched.h).
const (
	codelTarget   = 1 // TCA_CODEL_TARGET, µs
	codelLimit    = 2 // TCA_CODEL_LIMIT, frames
	codelInterval = 3 // TCA_CODEL_INTERVAL, µs
	codelECN      = 4 // TCA_CODEL_ECN
)

// codelQdisc is sch_codel. The frame in service has left the queue as far as its delay goes, and
// counts for the limit.
type codelQdisc struct {
	limit            uint32 // frames, the one in service included
	target, interval uint32 // µs
	ecn              bool
}

func (codelQdisc) kind() string { return "codel" }

func (q codelQdisc) options() *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(codelTarget, nl.Uint32Attr(q.target))
	options.AddRtAttr(codelLimit, nl.Uint32Attr(q.limit))
	options.AddRtAttr(codelInterval, nl.Uint32Attr(q.interval))
	options.AddRtAttr(codelECN, nl.Uint32Attr(flag(q.ecn)))
	return options
}

func decodeCoDel(_ string, options []byte) (leaf, error) {
	values, err := values32("codel", options, codelTarget, codelLimit, codelInterval, codelECN)
	if err != nil {
		return nil, err
	}
	return codelQdisc{target: fromCoDel(values[0]), limit: values[1], interval: fromCoDel(values[2]), ecn: values[3] != 0}, nil
}

func (q codelQdisc) queue(frame int) link.Queue {
	queue := link.Queue{Discipline: link.CoDel, ECN: q.ecn, Target: microseconds(q.target), Interval: microseconds(q.interval)}
	packets.limit(&queue, q.limit, frame)
	return queue
}

func (q codelQdisc) limits() uint32 { return q.limit }

// counts reads struct tc_codel_xstats: maxpacket, count, lastcount, ldelay, drop_next,
// drop_overlimit, ecn_mark, dropping, ce_mark.
func (q codelQdisc) counts(s state) outcome {
	own, err := fixed32("codel's statistics", s.own, 7)
	if err != nil {
		return outcome{overflow: s.drops}
	}
	return beyondLimit(s.drops, own[5], own[6])
}

func (q codelQdisc) become(to leaf) error {
	if _, ok := to.(codelQdisc); !ok {
		return another(q, to)
	}
	return nil
}

// CoDel keeps times in units of 1024 ns (CODEL_SHIFT in include/net/codel.h), so that what it tells of a time
// is up to 2 µs less than what it was told.

// asCoDel is what the kernel tells of a time, in µs, that it was told.
func asCoDel(told uint32) uint32 {
	return uint32(uint64(told) * 1000 >> 10 << 10 / 1000)
}

// fromCoDel is the least time that the kernel, told of it, tells as this one.
func fromCoDel(tells uint32) uint32 {
	kept := (uint64(tells)*1000 + 1023) >> 10
	return uint32(min((kept<<10+999)/1000, math.MaxUint32))
}

// inMicroseconds is a time as AQMs are told of it, at least 1 µs. CoDel's clock turns over after 73
// minutes, and pie tells its target in 32 bits of ns.
func inMicroseconds(d, most time.Duration) (uint32, error) {
	if d > most {
		return 0, fmt.Errorf("the kernel's queue disciplines know no target or interval of %v: give one up to %v", d, most)
	}
	return uint32(max(1, math.Round(float64(d)/float64(time.Microsecond)))), nil
}

func microseconds(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }

func flag(set bool) uint32 {
	if set {
		return 1
	}
	return 0
}
