package labs

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tcplab/tcplab/labs/unit"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The scalars of a lab file, each with its unit.
type (
	duration time.Duration // "20ms"; 0 needs no unit
	rate     float64       // "10Mbit", in bit/s; 0 is "unlimited"
	size     uint64        // "64KiB", or a plain number of bytes
	share    float64       // "1%", or a plain number below 1
	count    uint64        // "40"
	toggle   bool          // true or false

	// frequency is how often a second: "100", above 0.
	frequency float64

	// expression is CEL; a quantity is turned into a CEL number in SI units.
	expression string
)

// quantity reads a number with a unit that must have one of the dimensions,
// and is not negative.
func (d *decoder) quantity(n *node, want string, dimensions ...unit.Dimension) (unit.Quantity, bool) {
	s, ok := d.scalar(n, want)
	if !ok {
		return unit.Quantity{}, false
	}
	q, err := unit.Parse(s)
	var ue *unit.Error
	switch {
	case errors.As(err, &ue) && strings.HasPrefix(ue.Reason, "is not a number"):
		d.add(n.at, "such as "+dimensions[0].Example(), "want %s, not %s", want, n.describe())
		return q, false
	case errors.As(err, &ue):
		d.add(n.at, ue.Hint, "%s %s", n.describe(), ue.Reason)
		return q, false
	}
	fits := false
	for _, dim := range dimensions {
		fits = fits || q.Dimension == dim
	}
	switch {
	case !fits && q.Value == 0 && q.Dimension == unit.Scalar: // 0 is 0 in any unit
		q.Dimension = dimensions[0]
	case !fits && q.Dimension == unit.Scalar:
		d.add(n.at, "such as "+dimensions[0].Example(), "%s has no unit; want %s", s, want)
		return q, false
	case !fits:
		d.add(n.at, "such as "+dimensions[0].Example(), "%s is %s; want %s", s, q.Dimension, want)
		return q, false
	}
	if q.Value < 0 {
		d.add(n.at, "", "%s is negative", s)
		return q, false
	}
	return q, true
}

// whole reads a quantity that has no fraction and is below 2^53, where every
// whole number is exact.
func (d *decoder) whole(n *node, want string, dimensions ...unit.Dimension) (unit.Quantity, bool) {
	q, ok := d.quantity(n, want, dimensions...)
	if !ok {
		return q, false
	}
	if q.Value != math.Trunc(q.Value) {
		d.add(n.at, "", "%s is not a whole number%s", n.text, ofBytes(q.Dimension))
		return q, false
	}
	if q.Value >= 1<<53 {
		d.add(n.at, "", "%s is too large", n.text)
		return q, false
	}
	return q, true
}

func ofBytes(dim unit.Dimension) string {
	if dim == unit.Size {
		return " of bytes"
	}
	return ""
}

// maxDuration keeps durations inside time.Duration, by far: 100 days.
const maxDuration = 100 * 24 * time.Hour

func (d *decoder) seconds(n *node, q unit.Quantity) time.Duration {
	if q.Value > maxDuration.Seconds() {
		d.add(n.at, "", "%s is too long", n.text)
		return 0
	}
	return time.Duration(math.Round(q.Value * 1e9))
}

func (v *duration) read(d *decoder, n *node) {
	if q, ok := d.quantity(n, "a duration", unit.Duration); ok {
		*v = duration(d.seconds(n, q))
	}
}

func (v *rate) read(d *decoder, n *node) {
	if n.text == "unlimited" && n.kind == text {
		return
	}
	q, ok := d.quantity(n, "a rate", unit.Rate)
	if !ok {
		return
	}
	if q.Value == 0 {
		d.add(n.at, "write unlimited, or leave the key out; for a link that is cut write down: true", "a rate of 0 sends nothing")
		return
	}
	*v = rate(q.Value)
}

func (v *size) read(d *decoder, n *node) {
	if q, ok := d.whole(n, "a size in bytes", unit.Size, unit.Scalar); ok {
		*v = size(q.Value)
	}
}

func (v *share) read(d *decoder, n *node) {
	q, ok := d.quantity(n, "a ratio", unit.Ratio, unit.Scalar)
	switch {
	case !ok:
	case q.Dimension == unit.Scalar && q.Value >= 1:
		d.add(n.at, "with a % sign it is a percentage; without, it is below 1", "%s is not a ratio", n.text)
	case q.Value > 1:
		d.add(n.at, "", "%s is more than 100%%", n.text)
	default:
		*v = share(q.Value)
	}
}

func (v *count) read(d *decoder, n *node) {
	if q, ok := d.whole(n, "a plain number", unit.Scalar); ok {
		*v = count(q.Value)
	}
}

func (v *frequency) read(d *decoder, n *node) {
	q, ok := d.quantity(n, "how often a second", unit.Scalar)
	switch {
	case !ok:
	case q.Value == 0:
		d.add(n.at, "leave the key out to begin each when the one before has ended", "0 a second is never")
	default:
		*v = frequency(q.Value)
	}
}

func (v *toggle) read(d *decoder, n *node) {
	s, ok := d.scalar(n, "true or false")
	if !ok {
		return
	}
	if n.kind == boolean {
		*v = toggle(strings.EqualFold(s, "true"))
		return
	}
	hint := ""
	switch strings.ToLower(s) {
	case "yes", "on", "1", "true":
		hint = "did you mean true?"
	case "no", "off", "0", "false":
		hint = "did you mean false?"
	}
	d.add(n.at, hint, "want true or false, not %s", n.describe())
}

// read takes a lone quantity for its value in SI units, and anything else for
// CEL, which labs/expect type-checks. A ratio is no number of any unit that is
// measured, so it is refused.
func (v *expression) read(d *decoder, n *node) {
	s, ok := d.scalar(n, "a CEL expression or a quantity")
	if !ok {
		return
	}
	q, err := unit.Parse(s)
	var ue *unit.Error
	switch {
	case err == nil && q.Dimension == unit.Ratio:
		d.add(n.at, "a share of predicted goes to within.ratio", "%s is a ratio; want a number in the measured unit", s)
	case err == nil:
		*v = expression(celNumber(q.Value))
	case errors.As(err, &ue) && strings.HasPrefix(ue.Reason, "has the unknown unit") && !strings.ContainsAny(s, " +-*/()<>=!?:"):
		d.add(n.at, ue.Hint, "%s %s", n.describe(), ue.Reason)
	default:
		*v = expression(s)
	}
}

// celNumber writes a float64 as a CEL double, which needs a point or exponent.
func celNumber(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// The choices of a lab file: the contract's enums, by the last part of their
// values' names in lower case, but for those that are called otherwise elsewhere.
type (
	nodeKind     tcplabv1.NodeKind
	engine       tcplabv1.Engine
	ipFamily     tcplabv1.IpFamily
	over         tcplabv1.Over
	discipline   tcplabv1.QueueDiscipline
	distribution tcplabv1.JitterDistribution
	protocol     tcplabv1.IpProtocol
)

func (v *nodeKind) read(d *decoder, n *node)   { *v = nodeKind(d.choice(n, nodeKindChoices())) }
func (v *engine) read(d *decoder, n *node)     { *v = engine(d.choice(n, engineChoices())) }
func (v *ipFamily) read(d *decoder, n *node)   { *v = ipFamily(d.choice(n, ipFamilyChoices())) }
func (v *over) read(d *decoder, n *node)       { *v = over(d.choice(n, overChoices())) }
func (v *discipline) read(d *decoder, n *node) { *v = discipline(d.choice(n, disciplineChoices())) }
func (v *protocol) read(d *decoder, n *node)   { *v = protocol(d.choice(n, protocolChoices())) }
func (v *distribution) read(d *decoder, n *node) {
	*v = distribution(d.choice(n, distributionChoices()))
}

func nodeKindChoices() []string { return choices(tcplabv1.NodeKind(0).Descriptor(), "NODE_KIND_") }
func engineChoices() []string   { return choices(tcplabv1.Engine(0).Descriptor(), "ENGINE_") }
func ipFamilyChoices() []string { return choices(tcplabv1.IpFamily(0).Descriptor(), "IP_FAMILY_") }
func overChoices() []string     { return choices(tcplabv1.Over(0).Descriptor(), "OVER_") }
func protocolChoices() []string { return choices(tcplabv1.IpProtocol(0).Descriptor(), "IP_PROTOCOL_") }

func disciplineChoices() []string {
	return choices(tcplabv1.QueueDiscipline(0).Descriptor(), "QUEUE_DISCIPLINE_", "head_drop", "head-drop")
}

func distributionChoices() []string {
	return choices(tcplabv1.JitterDistribution(0).Descriptor(), "JITTER_DISTRIBUTION_", "pareto_normal", "paretonormal")
}

// choices are the enum's names for people, the first for number 1; renamed are
// pairs of a name that would come out and what it is called instead.
func choices(e protoreflect.EnumDescriptor, prefix string, renamed ...string) []string {
	var names []string
	for i := 1; i < e.Values().Len(); i++ {
		value := e.Values().ByNumber(protoreflect.EnumNumber(i))
		name := strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix))
		if j := slices.Index(renamed, name); j >= 0 {
			name = renamed[j+1]
		}
		names = append(names, name)
	}
	return names
}

// choice is the number of the name that the node holds, or 0.
func (d *decoder) choice(n *node, names []string) int32 {
	want := "one of " + strings.Join(names, ", ")
	s, ok := d.scalar(n, want)
	if !ok {
		return 0
	}
	for i, name := range names {
		if s == name {
			return int32(i + 1)
		}
	}
	d.add(n.at, didYouMean(s, names), "want %s, not %s", want, n.describe())
	return 0
}
