package labs

import (
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/tcplab/tcplab/labs/unit"
)

// shapeSpec are the keys of a shape, wherever a lab file gives one: for a link, one
// of its directions, a path, or a step of a schedule.
type shapeSpec struct {
	Rate      *rate     `yaml:"rate" jsonschema_description:"Bottleneck rate, 1kbit to 1Tbit, of Ethernet frames with their 14-byte header; or unlimited. Default: unlimited."`
	Overhead  *overhead `yaml:"overhead" jsonschema_description:"What a packet costs at the bottleneck beside its frame: ethernet (preamble, FCS, gap, and 84 bytes at least), atm (cells of 53 bytes for each 48), bytes (24B), or a mapping. Only with a rate. Default: nothing."`
	Burst     *size     `yaml:"burst" jsonschema_description:"Bytes that an idle bottleneck sends at once beyond its rate. Only with a rate. Default: one frame."`
	Queue     *queue    `yaml:"queue" jsonschema_description:"What may wait for the bottleneck: packets (100), bytes (64KiB) or time (50ms), or a mapping with the discipline. Default: one bandwidth-delay product, at least 100 packets, first in first out."`
	Delay     *duration `yaml:"delay" jsonschema_description:"One-way delay, 0 to 1h. Default 0."`
	Jitter    *jitter   `yaml:"jitter" jsonschema_description:"How far the delay varies from packet to packet: an amount (2ms, uniformly), or a mapping with its distribution. Default: not at all."`
	Loss      *loss     `yaml:"loss" jsonschema_description:"Which packets are lost: a probability (1%), or a mapping: with correlation, packets by number, every nth, or a Markov chain. Default: none."`
	Reorder   *reorder  `yaml:"reorder" jsonschema_description:"Probability that a packet gets no delay and so overtakes others, or a mapping. Only with a delay. Default 0."`
	Duplicate *chance   `yaml:"duplicate" jsonschema_description:"Probability that a packet comes twice, or a mapping. Default 0."`
	Corrupt   *chance   `yaml:"corrupt" jsonschema_description:"Probability that one bit of a packet is turned over, or a mapping. Default 0."`
	Down      *toggle   `yaml:"down" jsonschema_description:"Whether every packet is lost, as on a link that is cut. Default false."`
}

// The values of a shape that are one scalar or a mapping with more; a mapping is read
// into the spec, and a scalar into that field of it that it means.
type (
	overhead struct{ spec overheadSpec }
	queue    struct{ spec queueSpec }
	jitter   struct{ spec jitterSpec }
	loss     struct{ spec lossSpec }
	reorder  struct{ spec reorderSpec }
	chance   struct{ spec chanceSpec }
)

type overheadSpec struct {
	At    *node       `yaml:"-"`
	Bytes *signedSize `yaml:"bytes" jsonschema_description:"Added to each frame with its 14-byte header, -64B to 256B; 24B for Ethernet's preamble, FCS and gap. Default 0."`
	Min   *size       `yaml:"min" jsonschema_description:"Least that a frame costs, bytes included, up to 256B; 84B on Ethernet. Default 0."`
	ATM   *toggle     `yaml:"atm" jsonschema_description:"Whether frames travel in cells of 53 bytes for each 48 begun. Default false."`
}

type queueSpec struct {
	At         *node       `yaml:"-"`
	Limit      *limit      `yaml:"limit" jsonschema_description:"Packets (100), bytes (64KiB) or time (50ms); at least one frame. Default: one bandwidth-delay product, at least 100 packets."`
	Discipline *discipline `yaml:"discipline" jsonschema_description:"fifo (default), head-drop, red, codel, fq_codel, cake or pie."`
	ECN        *toggle     `yaml:"ecn" jsonschema_description:"Whether ECN-capable packets are marked where the discipline would drop them early. With red, codel, fq_codel, pie. Default false."`
	Target     *duration   `yaml:"target" jsonschema_description:"Waiting time that codel, fq_codel and pie hold, up to 10s. Default 5ms; pie: 15ms."`
	Interval   *duration   `yaml:"interval" jsonschema_description:"How long codel and fq_codel watch before they act, and cake's round trip, up to 10s. Default 100ms."`
	RED        *redSpec    `yaml:"red" jsonschema_description:"Thresholds of red."`
}

type redSpec struct {
	At          *node  `yaml:"-"`
	Min         *size  `yaml:"min" jsonschema_description:"Mean queue from which on packets are struck. Default: a twelfth of the limit."`
	Max         *size  `yaml:"max" jsonschema_description:"Mean queue at which probability is reached, and above which all are struck. Default: a quarter of the limit."`
	Probability *share `yaml:"probability" jsonschema_description:"Probability at max. Default 2%."`
}

type jitterSpec struct {
	At           *node         `yaml:"-"`
	Amount       *duration     `yaml:"amount" jsonschema:"required" jsonschema_description:"Half the width of a uniform distribution, the standard deviation of the others, the unit of quantiles; up to 1h."`
	Distribution *distribution `yaml:"distribution" jsonschema_description:"uniform (default), normal, pareto, paretonormal, or table."`
	Correlation  *share        `yaml:"correlation" jsonschema_description:"How much each draw depends on the one before, below 100%. Default 0."`
	Quantiles    []deviation   `yaml:"quantiles" jsonschema_description:"Deviations in units of amount at equally spaced probabilities from 0 to 1, not falling, each -4 to 4. With table."`
	Table        *fileName     `yaml:"table" jsonschema_description:"A file of quantiles beside the lab file; one that ends in .dist has them in 1/8192, as those of iproute2."`
	Reorder      *toggle       `yaml:"reorder" jsonschema_description:"Whether a packet with a shorter delay may overtake those before it. Default false."`
}

type lossSpec struct {
	At          *node        `yaml:"-"`
	Probability *share       `yaml:"probability" jsonschema_description:"That a packet is lost."`
	Correlation *share       `yaml:"correlation" jsonschema_description:"How much each draw depends on the one before, below 100%. With probability. Default 0."`
	Packets     []count      `yaml:"packets" jsonschema_description:"Numbers, rising from 1, of the packets of a trial that are lost."`
	Every       *count       `yaml:"every" jsonschema_description:"Every nth packet is lost: the nth, the 2nth, and so on."`
	Gilbert     *gilbertSpec `yaml:"gilbert" jsonschema_description:"Two states, good and bad, each with a loss of its own (Gilbert-Elliott)."`
	States      *statesSpec  `yaml:"states" jsonschema_description:"Four states (Salsano, Ludovici, Ordine): 1 received in a gap, 2 received in a burst, 3 lost in a burst, 4 lost alone."`
}

type gilbertSpec struct {
	At     *node  `yaml:"-"`
	ToBad  *share `yaml:"to_bad" jsonschema:"required" jsonschema_description:"Probability, with each packet, to go from good to bad."`
	ToGood *share `yaml:"to_good" jsonschema:"required" jsonschema_description:"Probability, with each packet, to go from bad to good."`
	Bad    *share `yaml:"bad" jsonschema_description:"Loss in the bad state. Default 100%."`
	Good   *share `yaml:"good" jsonschema_description:"Loss in the good state. Default 0."`
}

type statesSpec struct {
	At  *node  `yaml:"-"`
	P13 *share `yaml:"p13" jsonschema_description:"From 1 to 3: a burst begins. Default 0."`
	P31 *share `yaml:"p31" jsonschema_description:"From 3 to 1: a burst ends. Default 0."`
	P32 *share `yaml:"p32" jsonschema_description:"From 3 to 2: received within a burst. Default 0."`
	P23 *share `yaml:"p23" jsonschema_description:"From 2 to 3. Default 0."`
	P14 *share `yaml:"p14" jsonschema_description:"From 1 to 4: one is lost alone. Default 0."`
}

type reorderSpec struct {
	At          *node  `yaml:"-"`
	Probability *share `yaml:"probability" jsonschema:"required" jsonschema_description:"That a packet gets no delay."`
	Correlation *share `yaml:"correlation" jsonschema_description:"How much each draw depends on the one before, below 100%. Default 0."`
	Gap         *count `yaml:"gap" jsonschema_description:"Only every gap-th packet may be struck, 1 to 1000000. Default 1: any."`
}

type chanceSpec struct {
	At          *node  `yaml:"-"`
	Probability *share `yaml:"probability" jsonschema:"required" jsonschema_description:"How often, 0 to 100%."`
	Correlation *share `yaml:"correlation" jsonschema_description:"How much each draw depends on the one before, below 100%. Default 0."`
}

// scalarOrMapping reads a mapping into the spec, and anything else into a field of it.
func (d *decoder) scalarOrMapping(n *node, spec, scalar any) {
	if n.kind == mapping {
		d.decode(n, reflect.ValueOf(spec).Elem())
		return
	}
	d.decode(n, reflect.ValueOf(scalar).Elem())
}

func (v *queue) read(d *decoder, n *node)   { d.scalarOrMapping(n, &v.spec, &v.spec.Limit) }
func (v *jitter) read(d *decoder, n *node)  { d.scalarOrMapping(n, &v.spec, &v.spec.Amount) }
func (v *loss) read(d *decoder, n *node)    { d.scalarOrMapping(n, &v.spec, &v.spec.Probability) }
func (v *reorder) read(d *decoder, n *node) { d.scalarOrMapping(n, &v.spec, &v.spec.Probability) }
func (v *chance) read(d *decoder, n *node)  { d.scalarOrMapping(n, &v.spec, &v.spec.Probability) }

// What Ethernet adds to a frame with its header: 8 bytes of preamble, 4 of FCS
// and 12 of gap; and the least that a frame takes with them, 64 + 20 bytes
// (IEEE 802.3, clauses 3 and 4.4.2).
const ethernetOverhead, ethernetLeast = 24, 84

func (v *overhead) read(d *decoder, n *node) {
	switch {
	case n.kind == mapping:
		d.decode(n, reflect.ValueOf(&v.spec).Elem())
	case n.text == "ethernet" && n.kind == text:
		v.spec.Bytes, v.spec.Min = new(signedSize(ethernetOverhead)), new(size(ethernetLeast))
	case n.text == "atm" && n.kind == text:
		v.spec.ATM = new(toggle(true))
	default:
		d.decode(n, reflect.ValueOf(&v.spec.Bytes).Elem())
	}
}

// signedSize is a size that may be negative: "-14B".
type signedSize int64

func (v *signedSize) read(d *decoder, n *node) {
	const want = "ethernet, atm, or a size in bytes"
	if s, ok := d.scalar(n, want); ok {
		if absolute, negative := strings.CutPrefix(s, "-"); negative {
			positive := *n
			positive.text = absolute
			if q, ok := d.whole(&positive, want, unit.Size, unit.Scalar); ok {
				*v = -signedSize(q.Value)
			}
			return
		}
		if q, ok := d.whole(n, want, unit.Size, unit.Scalar); ok {
			*v = signedSize(q.Value)
		}
	}
}

// deviation is a plain number that may be negative.
type deviation float64

func (v *deviation) read(d *decoder, n *node) {
	s, ok := d.scalar(n, "a number")
	if !ok {
		return
	}
	q, err := unit.Parse(s)
	if err != nil || q.Dimension != unit.Scalar {
		d.add(n.at, "such as -0.5 or 1.25", "want a number without a unit, not %s", n.describe())
		return
	}
	*v = deviation(q.Value)
}

// limit is that of a queue: packets ("100"), bytes ("64KiB") or time ("50ms");
// exactly one field is set.
type limit struct {
	Packets uint32
	Bytes   uint64
	Time    time.Duration
}

func (v *limit) read(d *decoder, n *node) {
	const want = "packets (100), bytes (64KiB) or time (50ms)"
	q, err := unit.Parse(n.text)
	ok := err == nil && q.Dimension == unit.Duration
	if ok { // which need not be whole
		q, ok = d.quantity(n, want, unit.Duration)
	} else {
		q, ok = d.whole(n, want, unit.Size, unit.Scalar, unit.Duration)
	}
	switch {
	case !ok:
	case q.Value == 0:
		d.add(n.at, "", "a queue that holds nothing passes nothing")
	case q.Dimension == unit.Scalar && q.Value > math.MaxUint32:
		d.add(n.at, "", "%s packets are too many", n.text)
	case q.Dimension == unit.Scalar:
		v.Packets = uint32(q.Value)
	case q.Dimension == unit.Size:
		v.Bytes = uint64(q.Value)
	default:
		v.Time = d.seconds(n, q)
	}
}
