package netem

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of cake's options and statistics (include/uapi/linux/pkt_sched.h).
const (
	cakeRTT    = 7  // TCA_CAKE_RTT, µs
	cakeTarget = 8  // TCA_CAKE_TARGET, µs
	cakeMemory = 10 // TCA_CAKE_MEMORY, bytes of memory; 0: the kernel's choice

	cakeTins   = 10 // TCA_CAKE_STATS_TIN_STATS
	cakeMarked = 8  // TCA_CAKE_TIN_STATS_ECN_MARKED_PACKETS
)

// cakeQdisc is sch_cake without its shaper, behind the tree's own. Its only limit is memory, of which the
// kernel chooses 10240 frames' worth.
type cakeQdisc struct {
	interval uint32 // µs: the round trip that it expects; its target is a twentieth
	memory   uint32 // bytes; 0: the kernel's choice
}

func (cakeQdisc) kind() string { return "cake" }

func (q cakeQdisc) options() *nl.RtAttr {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(cakeRTT, nl.Uint32Attr(q.interval))
	options.AddRtAttr(cakeTarget, nl.Uint32Attr(max(1, q.interval/20))) // as iproute2's q_cake.c
	options.AddRtAttr(cakeMemory, nl.Uint32Attr(q.memory))
	return options
}

func decodeCAKE(_ string, options []byte) (leaf, error) {
	values, err := values32("cake", options, cakeRTT, cakeMemory)
	if err != nil {
		return nil, err
	}
	return cakeQdisc{interval: values[0], memory: values[1]}, nil
}

func (q cakeQdisc) queue(int) link.Queue {
	return link.Queue{Discipline: link.CAKE, Interval: microseconds(q.interval)}
}

func (cakeQdisc) limits() uint32 { return 0 }

// counts: cake does not tell the drops of a full memory from the others, and that seldom is
// full before it has acted.
func (q cakeQdisc) counts(s state) outcome {
	o := outcome{early: s.drops}
	attrs, err := attributes(s.own)
	if err != nil {
		return o
	}
	tins, err := attributes(attrs[cakeTins])
	if err != nil {
		return o
	}
	for _, tin := range tins {
		if stats, err := attributes(tin); err == nil && len(stats[cakeMarked]) >= 4 {
			o.marked += uint64(binary.NativeEndian.Uint32(stats[cakeMarked]))
		}
	}
	return o
}

func (q cakeQdisc) become(to leaf) error {
	if _, ok := to.(cakeQdisc); !ok {
		return another(q, to)
	}
	return nil
}
