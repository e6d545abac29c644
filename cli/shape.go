package cli

import (
	"fmt"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// unshaped is what a shape that does nothing is called.
const unshaped = "as it is"

// directionText says what one way across a link does: a line for its shape,
// and one for each path and for what changes.
func directionText(d *tcplabv1.Direction) []string {
	first := shapeText(d.GetShape())
	if t := d.GetTrace(); t != nil {
		first = strings.TrimPrefix(first+", follows "+traceText(t), unshaped+", ")
	}
	lines := []string{first}
	for _, p := range d.GetPaths() {
		lines = append(lines, fmt.Sprintf("path %s (%s): %s", p.GetName(), matchText(p.GetMatch()), shapeText(p.GetShape())))
	}
	if text := scheduleText(d); text != "" {
		lines = append(lines, text)
	}
	return lines
}

func traceText(t *tcplabv1.Trace) string {
	text := fmt.Sprintf("%s (%d packets)", t.GetName(), len(t.GetOpportunitiesMs()))
	if t.GetOnce() {
		text += " once"
	}
	return text
}

// scheduleText says how often and for how long a direction changes, and how
// where that is said shortly.
func scheduleText(d *tcplabv1.Direction) string {
	const shown = 3
	steps := d.GetSchedule()
	if len(steps) == 0 {
		return ""
	}
	var parts []string
	for _, s := range steps[:min(shown, len(steps))] {
		text := "at " + seconds(s.GetAt())
		if s.GetPath() != "" {
			text += " path " + s.GetPath()
		}
		if s.GetRamp().AsDuration() > 0 {
			text += " within " + seconds(s.GetRamp())
		}
		parts = append(parts, text+": "+shapeText(s.GetShape()))
	}
	if more := len(steps) - shown; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more until %s", more, seconds(steps[len(steps)-1].GetAt())))
	}
	if d.GetSchedulePeriod().AsDuration() > 0 {
		parts = append(parts, "again after "+seconds(d.GetSchedulePeriod()))
	}
	return "changes " + strings.Join(parts, "; ")
}

func matchText(m *tcplabv1.Match) string {
	var parts []string
	if m.GetDestination() != "" {
		parts = append(parts, "to "+m.GetDestination())
	}
	if m.GetProtocol() != tcplabv1.IpProtocol_IP_PROTOCOL_UNSPECIFIED {
		parts = append(parts, word(m.GetProtocol().String(), "IP_PROTOCOL_"))
	}
	if m.GetPort() != 0 {
		parts = append(parts, fmt.Sprintf("port %d", m.GetPort()))
	}
	return strings.Join(parts, " ")
}

// word is an enum's value as people say it.
func word(value, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value, prefix))
}

// shapeText says what a shape does in a line.
func shapeText(s *tcplabv1.Shape) string {
	var parts []string
	if s.GetRateBps() > 0 {
		parts = append(parts, quantity(s.GetRateBps(), "bit/s"))
	}
	if s.GetDelay().AsDuration() > 0 || s.GetJitter() != nil {
		parts = append(parts, "delay "+delayText(s))
	}
	if s.GetLoss() > 0 || s.GetLossPattern() != nil {
		parts = append(parts, "loss "+lossText(s))
	}
	parts = append(parts, otherTexts(s)...)
	if q := s.GetQueue(); q.GetLimit() != nil {
		parts = append(parts, "queue "+limitText(q))
	}
	if len(parts) == 0 {
		return unshaped
	}
	return strings.Join(parts, ", ")
}

func limitText(q *tcplabv1.Queue) string {
	switch limit := q.GetLimit().(type) {
	case *tcplabv1.Queue_Packets:
		return plural(int(limit.Packets), "packet")
	case *tcplabv1.Queue_Bytes:
		return quantity(float64(limit.Bytes), "B")
	case *tcplabv1.Queue_Time:
		return seconds(limit.Time)
	}
	return ""
}

// delayText is the delay with its jitter: "20 ms ± 2 ms normal".
func delayText(s *tcplabv1.Shape) string {
	text := seconds(s.GetDelay())
	j := s.GetJitter()
	if j == nil {
		return text
	}
	text += " ± " + seconds(j.GetAmount())
	switch j.GetDistribution() {
	case tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_UNSPECIFIED, tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_UNIFORM:
	default:
		text += " " + strings.ReplaceAll(word(j.GetDistribution().String(), "JITTER_DISTRIBUTION_"), "_", "")
	}
	if j.GetReorder() {
		text += " reordering"
	}
	return text + correlationText(j.GetCorrelation())
}

func percent(p float64) string { return quantity(p*100, "%") }

func correlationText(c float64) string {
	if c == 0 {
		return ""
	}
	return " correlated " + percent(c)
}

// lossText says which packets are lost: "1 %", "packets 3 and 5".
func lossText(s *tcplabv1.Shape) string {
	switch kind := s.GetLossPattern().GetKind().(type) {
	case *tcplabv1.LossPattern_GilbertElliott:
		g := kind.GilbertElliott
		bad := 1.0
		if g.BadLoss != nil {
			bad = g.GetBadLoss()
		}
		return fmt.Sprintf("%s in bursts (%s begin, %s end), %s between", percent(bad), percent(g.GetToBad()), percent(g.GetToGood()), percent(g.GetGoodLoss()))
	case *tcplabv1.LossPattern_FourState:
		f := kind.FourState
		return fmt.Sprintf("of four states (p13 %s, p31 %s, p32 %s, p23 %s, p14 %s)",
			percent(f.GetP13()), percent(f.GetP31()), percent(f.GetP32()), percent(f.GetP23()), percent(f.GetP14()))
	case *tcplabv1.LossPattern_Packets:
		return "of " + numbersText(kind.Packets.GetNumbers())
	case *tcplabv1.LossPattern_Every:
		return fmt.Sprintf("of every packet of %d", kind.Every)
	}
	return percent(s.GetLoss()) + correlationText(s.GetLossCorrelation())
}

func numbersText(numbers []uint64) string {
	const shown = 5
	parts := make([]string, 0, shown)
	for _, n := range numbers[:min(shown, len(numbers))] {
		parts = append(parts, fmt.Sprint(n))
	}
	text := "packet " + strings.Join(parts, ", ")
	if len(numbers) != 1 {
		text = "packets " + strings.Join(parts, ", ")
	}
	if more := len(numbers) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// otherTexts are what a shape does beside rate, delay, loss and the queue's limit.
func otherTexts(s *tcplabv1.Shape) []string {
	var parts []string
	if s.GetDown() {
		parts = append(parts, "down")
	}
	if c := s.GetReorder().GetChance(); c.GetProbability() > 0 {
		text := "reorder " + percent(c.GetProbability()) + correlationText(c.GetCorrelation())
		if gap := s.GetReorder().GetGap(); gap > 1 {
			text += fmt.Sprintf(" gap %d", gap)
		}
		parts = append(parts, text)
	}
	for _, chance := range []struct {
		name string
		of   *tcplabv1.Chance
	}{{"duplicate", s.GetDuplicate()}, {"corrupt", s.GetCorrupt()}} {
		if chance.of.GetProbability() > 0 {
			parts = append(parts, chance.name+" "+percent(chance.of.GetProbability())+correlationText(chance.of.GetCorrelation()))
		}
	}
	if s.GetBurstBytes() > 0 {
		parts = append(parts, "burst "+quantity(float64(s.GetBurstBytes()), "B"))
	}
	if o := s.GetOverhead(); o != nil {
		text := "overhead"
		if o.GetAtm() {
			text += " ATM"
		}
		if o.GetBytes() != 0 || !o.GetAtm() {
			text += fmt.Sprintf(" %d B", o.GetBytes())
		}
		if o.GetMinBytes() > 0 {
			text += fmt.Sprintf(" least %d B", o.GetMinBytes())
		}
		parts = append(parts, text)
	}
	if text := disciplineText(s.GetQueue()); text != "" {
		parts = append(parts, text)
	}
	return parts
}

// disciplineText names a queue's discipline where it is not first in, first out.
func disciplineText(q *tcplabv1.Queue) string {
	switch q.GetDiscipline() {
	case tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_UNSPECIFIED, tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_FIFO:
		return ""
	case tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_HEAD_DROP:
		return "head-drop"
	}
	text := word(q.GetDiscipline().String(), "QUEUE_DISCIPLINE_")
	if q.GetEcn() {
		text += " marking"
	}
	if q.GetTarget() != nil {
		text += " target " + seconds(q.GetTarget())
	}
	if q.GetInterval() != nil {
		text += " interval " + seconds(q.GetInterval())
	}
	return text
}
