package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of netem's options that the netlink library lacks
// (include/uapi/linux/pkt_sched.h).
const (
	attrCorr         = 1  // TCA_NETEM_CORR: struct tc_netem_corr
	attrDistribution = 2  // TCA_NETEM_DELAY_DIST
	attrReorder      = 3  // TCA_NETEM_REORDER: struct tc_netem_reorder
	attrCorrupt      = 4  // TCA_NETEM_CORRUPT: struct tc_netem_corrupt
	attrLoss         = 5  // TCA_NETEM_LOSS
	attrRate         = 6  // TCA_NETEM_RATE: struct tc_netem_rate
	attrRate64       = 8  // TCA_NETEM_RATE64
	attrLatency64    = 10 // TCA_NETEM_LATENCY64, kernel 4.16
	attrJitter64     = 11 // TCA_NETEM_JITTER64, kernel 4.16
	attrSeed         = 14 // TCA_NETEM_PRNG_SEED, kernel 6.6

	lossFourState      = 1 // NETEM_LOSS_GI: struct tc_netem_gimodel
	lossGilbertElliott = 2 // NETEM_LOSS_GE: struct tc_netem_gemodel

	delayOptions = 24 // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter

	// maxDelay is the greatest that netem adds to its clock without overflow, and far beyond use.
	maxDelay = 365 * 24 * time.Hour
)

// draw is a chance as netem has it (see [link.Chance.Draw32]).
type draw struct{ threshold, correlation uint32 }

func drawOf(c link.Chance) draw {
	threshold, correlation := c.Draw32()
	return draw{threshold, correlation}
}

func (d draw) chance() link.Chance { return link.ChanceOf32(d.threshold, d.correlation) }

// chain is a loss with states, as netem has it: probabilities in 2⁻³².
type chain struct {
	kind uint16 // lossFourState or lossGilbertElliott; 0: none
	// p13, p31, p32, p14, p23 of four states; of two the chance to become bad, that to become good, that
	// a bad one loses nothing, that a good one loses.
	p [5]uint32
}

// delayQdisc is sch_netem with a child: it loses a frame, doubles, damages or holds it for the delay.
//
// Unless jitter may reorder, it is given the highest rate there is, at which every frame takes 0 ns. With a
// rate, netem lets no frame out before the one that came earlier, so that a
// shorter delay reorders nothing; and it takes the frame from its socket even where the delay is 0. A limit of 0
// has it lose every frame that comes, and keep those that it has: so a link is down.
type delayQdisc struct {
	delay, jitter time.Duration
	reorders      bool // jitter may reorder
	loss          draw
	chain         chain // in the place of loss
	duplicate     draw
	corrupt       draw
	overtake      draw // reorder: by no delay
	gap           uint32
	limit         uint32 // frames in flight and in the child
	seed          uint64 // of the random generator; ignored, and chosen by the kernel, before 6.6

	// distribution is netem's table of jitter in 2⁻¹³ of it, each as probable as any other; nil:
	// uniform, or as it is. The kernel does not tell it, nor take it back.
	distribution []int16
	// telling leaves out what would restart a generator's memory without need.
	telling *delayQdisc // what is in force; nil: nothing yet
}

func (delayQdisc) kind() string { return "netem" }

func (q delayQdisc) options() *nl.RtAttr {
	fixed := make([]byte, delayOptions)
	binary.NativeEndian.PutUint32(fixed[4:], q.limit)
	binary.NativeEndian.PutUint32(fixed[8:], q.loss.threshold)
	binary.NativeEndian.PutUint32(fixed[12:], q.gap)
	binary.NativeEndian.PutUint32(fixed[16:], q.duplicate.threshold)
	options := nl.NewRtAttr(nl.TCA_OPTIONS, fixed)
	options.AddRtAttr(attrLatency64, nl.Uint64Attr(uint64(q.delay)))
	options.AddRtAttr(attrJitter64, nl.Uint64Attr(uint64(q.jitter)))
	options.AddRtAttr(attrSeed, nl.Uint64Attr(q.seed))
	rate, rate64 := uint32(math.MaxUint32), uint64(math.MaxUint64)
	if q.reorders {
		rate, rate64 = 0, 0
	}
	options.AddRtAttr(attrRate64, nl.Uint64Attr(rate64))
	options.AddRtAttr(attrRate, numbers(rate, 0, 0, 0)) // rate, packet_overhead, cell_size, cell_overhead
	if len(q.distribution) > 0 {
		table := make([]byte, 0, 2*len(q.distribution))
		for _, v := range q.distribution {
			table = binary.NativeEndian.AppendUint16(table, uint16(v))
		}
		options.AddRtAttr(attrDistribution, table)
	}
	if q.chain.kind != 0 {
		n := 4
		if q.chain.kind == lossFourState {
			n = 5
		}
		options.AddRtAttr(attrLoss, nil).AddRtAttr(int(q.chain.kind), numbers(q.chain.p[:n]...))
	}
	// Each of these makes netem draw the number before anew.
	old := q.telling
	if old == nil || old.loss.correlation != q.loss.correlation || old.duplicate.correlation != q.duplicate.correlation {
		options.AddRtAttr(attrCorr, numbers(0, q.loss.correlation, q.duplicate.correlation)) // delay_corr, loss_corr, dup_corr
	}
	if old == nil || old.corrupt != q.corrupt {
		options.AddRtAttr(attrCorrupt, numbers(q.corrupt.threshold, q.corrupt.correlation))
	}
	if old == nil || old.overtake != q.overtake || q.gap > 0 { // a gap alone would mean certainty
		options.AddRtAttr(attrReorder, numbers(q.overtake.threshold, q.overtake.correlation))
	}
	return options
}

func numbers(all ...uint32) []byte {
	b := make([]byte, 0, 4*len(all))
	for _, n := range all {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

func (q *delayQdisc) decode(options []byte) error {
	fixed, err := fixed32("netem's options", options, delayOptions/4)
	if err != nil {
		return err
	}
	attrs, err := attributes(options[delayOptions:])
	if err != nil {
		return fmt.Errorf("netem's options: %w", err)
	}
	if len(attrs[attrLatency64]) < 8 || len(attrs[attrJitter64]) < 8 {
		return fmt.Errorf("netem does not tell its delay in nanoseconds: kernel 4.16 or later is needed")
	}
	corr, err := fixed32("netem's correlations", attrs[attrCorr], 3)
	if err != nil {
		return err
	}
	corrupt, err := fixed32("netem's corruption", attrs[attrCorrupt], 2)
	if err != nil {
		return err
	}
	overtake, err := fixed32("netem's reordering", attrs[attrReorder], 2)
	if err != nil {
		return err
	}
	rate, err := fixed32("netem's rate", attrs[attrRate], 1)
	if err != nil {
		return err
	}
	*q = delayQdisc{
		delay:     time.Duration(binary.NativeEndian.Uint64(attrs[attrLatency64])),
		jitter:    time.Duration(binary.NativeEndian.Uint64(attrs[attrJitter64])),
		reorders:  rate[0] == 0,
		limit:     fixed[1],
		loss:      draw{fixed[2], corr[1]},
		gap:       fixed[3],
		duplicate: draw{fixed[4], corr[2]},
		corrupt:   draw{corrupt[0], corrupt[1]},
		overtake:  draw{overtake[0], overtake[1]},
	}
	if seed := attrs[attrSeed]; len(seed) >= 8 {
		q.seed = binary.NativeEndian.Uint64(seed)
	}
	models, err := attributes(attrs[attrLoss])
	if err != nil {
		return fmt.Errorf("netem's loss: %w", err)
	}
	for kind, n := range map[uint16]int{lossFourState: 5, lossGilbertElliott: 4} {
		if models[kind] == nil {
			continue
		}
		p, err := fixed32("netem's loss", models[kind], n)
		if err != nil {
			return err
		}
		q.chain.kind = kind
		copy(q.chain.p[:n], p)
	}
	return nil
}

// same reports whether both are told to the kernel alike; one that was read has no table.
func (q delayQdisc) same(read delayQdisc) bool {
	return q.delay == read.delay && q.jitter == read.jitter && q.reorders == read.reorders && q.loss == read.loss && q.chain == read.chain &&
		q.duplicate == read.duplicate && q.corrupt == read.corrupt && q.overtake == read.overtake && q.gap == read.gap && q.limit == read.limit
}
