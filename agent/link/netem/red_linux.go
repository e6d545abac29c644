package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of red's options and values in them (include/uapi/linux/pkt_sched.h).
const (
	redParms = 1 // TCA_RED_PARMS: struct tc_red_qopt
	redStab  = 2 // TCA_RED_STAB
	redMaxP  = 3 // TCA_RED_MAX_P: probability in 2⁻³²

	redOptions = 16 // limit, qth_min, qth_max, Wlog, Plog, Scell_log, flags
	redECN     = 1  // TC_RED_ECN

	// redMost bounds a threshold and its weight together (red_check_params in include/net/red.h).
	redMost = 31
)

// redQdisc is sch_red over a fifo of its own, which holds the limit. Its limit in its own options would make
// the kernel replace that fifo, with all that waits, on each change; it is left at 0.
//
// The mean queue follows each arrival with the weight 2⁻ʷ (sch_red's Wlog), chosen as iproute2 does
// (tc_red.c, tc_red_eval_ewma) for a burst of a third of 2·min + max, in full frames.
type redQdisc struct {
	min, max    uint32 // bytes
	probability uint32 // at max, in 2⁻³²
	ecn         bool
	weight      uint8
	idle        idling // how the mean falls while nothing comes; the kernel does not tell it
	fifo        fifoQdisc
}

// idling is red's table of how an empty queue lowers the mean.
type idling struct {
	frame uint32 // bytes
	rate  uint64 // bytes a second
}

func (redQdisc) kind() string { return "red" }

func (q redQdisc) options() *nl.RtAttr {
	fixed := make([]byte, redOptions)
	binary.NativeEndian.PutUint32(fixed[4:], q.min)
	binary.NativeEndian.PutUint32(fixed[8:], q.max)
	fixed[12] = q.weight
	scale, table := q.idle.table(q.weight)
	fixed[14] = scale
	if q.ecn {
		fixed[15] = redECN
	}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(redParms, fixed)
	options.AddRtAttr(redStab, table)
	options.AddRtAttr(redMaxP, nl.Uint32Attr(q.probability))
	return options
}

// table is tc_red_eval_idle_damping of iproute2: by how many powers of two the mean
// falls in i·2^scale µs, up to 31.
func (i idling) table(weight uint8) (scale byte, table []byte) {
	table = make([]byte, 256) // RED_STAB_SIZE
	each := float64(i.frame) / float64(max(i.rate, 1)) * 1e6
	perMicrosecond := -math.Log1p(-1/float64(uint64(1)<<weight)) / each
	for scale = 0; scale < 31 && 31/perMicrosecond/float64(uint64(1)<<scale) >= 512; scale++ {
	}
	for n := 1; n < 255; n++ {
		table[n] = byte(min(31, float64(uint64(n)<<scale)*perMicrosecond))
	}
	table[255] = 31
	return scale, table
}

func decodeRED(_ string, options []byte) (leaf, error) {
	attrs, err := attributes(options)
	if err != nil {
		return nil, fmt.Errorf("red's options: %w", err)
	}
	fixed := attrs[redParms]
	if len(fixed) < redOptions || len(attrs[redMaxP]) < 4 {
		return nil, fmt.Errorf("red's options lack its thresholds or its probability")
	}
	return redQdisc{
		min:         binary.NativeEndian.Uint32(fixed[4:]),
		max:         binary.NativeEndian.Uint32(fixed[8:]),
		weight:      fixed[12],
		ecn:         fixed[15]&redECN != 0,
		probability: binary.NativeEndian.Uint32(attrs[redMaxP]),
	}, nil
}

// newRED is the red of a queue that has a limit. limit is that in bytes.
func newRED(queue link.Queue, fifo fifoQdisc, limit float64, rate uint64, frame int) (redQdisc, error) {
	q := redQdisc{fifo: fifo, ecn: queue.ECN, idle: idling{frame: uint32(frame), rate: uint64(math.Round(float64(rate) / 8))}}
	low, high, probability := float64(queue.RED.MinBytes), float64(queue.RED.MaxBytes), queue.RED.Probability
	if low == 0 {
		low = max(1, math.Round(limit/12))
	}
	if high == 0 {
		high = math.Round(limit / 4)
	}
	if probability == 0 {
		probability = 0.02
	}
	if high <= low {
		return q, fmt.Errorf("red's thresholds are %.0f and %.0f bytes, of which the second is not greater: give both, or a longer queue", low, high)
	}
	if high >= 1<<(redMost-1) {
		return q, fmt.Errorf("a threshold of %.0f bytes is beyond red's: give max_bytes below %d", high, 1<<(redMost-1))
	}
	q.min, q.max = uint32(low), uint32(high)
	q.probability = uint32(max(1, min(math.Round(probability*(1<<32)), math.MaxUint32)))
	most := redMost - bits.Len32(q.max)
	q.weight = uint8(max(1, min(weight(q.min, q.max, frame), most)))
	return q, nil
}

// weight is tc_red_eval_ewma.
func weight(low, high uint32, frame int) int {
	burst := (2*float64(low) + float64(high)) / (3 * float64(frame))
	least := burst + 1 - float64(low)/float64(frame)
	if least < 1 {
		return redMost
	}
	w := 0.5
	for log := 1; log < redMost; log++ {
		if least <= (1-math.Pow(1-w, burst))/w {
			return log
		}
		w /= 2
	}
	return redMost
}

func (q redQdisc) queue(frame int) link.Queue {
	queue := q.fifo.queue(frame)
	queue.Discipline, queue.ECN = link.RED, q.ecn
	queue.RED = link.REDThresholds{MinBytes: int(q.min), MaxBytes: int(q.max), Probability: float64(q.probability) / (1 << 32)}
	return queue
}

func (q redQdisc) limits() uint32 { return q.fifo.limit }

// counts reads struct tc_red_xstats: early, pdrop, other, marked. What its fifo
// dropped, red counts as pdrop.
func (q redQdisc) counts(s state) outcome {
	own, err := fixed32("red's statistics", s.own, 4)
	if err != nil {
		return outcome{overflow: s.drops}
	}
	return beyondLimit(s.drops, own[1], own[3])
}

func (q redQdisc) become(to leaf) error {
	next, ok := to.(redQdisc)
	if !ok {
		return another(q, to)
	}
	return q.fifo.become(next.fifo)
}

// same reports whether both are told to the kernel alike, but for the fifo.
func (q redQdisc) same(read redQdisc) bool {
	q.fifo, read.fifo = fifoQdisc{}, fifoQdisc{}
	return q == read
}
