package labs

import (
	"fmt"
	"math"
	"slices"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Bounds of a shape, those of agent/link.
const (
	minRate                  = 1e3 // bit/s
	minOverhead, maxOverhead = -64, 256
	maxBurst                 = math.MaxInt32 // bytes
)

// isPlain reports whether the shape passes everything at once.
func isPlain(s *tcplabv1.Shape) bool {
	return s.GetRateBps() == 0 && s.GetDelay().AsDuration() == 0 && s.GetLoss() == 0 && s.GetLossPattern() == nil &&
		s.GetJitter().GetAmount().AsDuration() == 0 && s.GetReorder().GetChance().GetProbability() == 0 &&
		s.GetDuplicate().GetProbability() == 0 && s.GetCorrupt().GetProbability() == 0 && !s.GetDown()
}

// shapeCheck collects what contradicts what in one shape. A violation's field
// is that of the shape: "queue.ecn".
type shapeCheck struct {
	shape *tcplabv1.Shape
	found []Violation
}

func (c *shapeCheck) add(field, hint, format string, args ...any) {
	c.found = append(c.found, Violation{Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// shapeProblems are what is wrong with a shape, whose bottleneck may be a
// trace, for frames of at most so many bytes.
func shapeProblems(s *tcplabv1.Shape, traced bool, frame float64) []Violation {
	c := &shapeCheck{shape: s}
	rate := s.GetRateBps()
	switch {
	case math.IsNaN(rate) || math.IsInf(rate, 0) || rate < 0:
		c.add("rate_bps", "", "%v is not a rate", rate)
	case rate != 0 && rate < minRate:
		c.add("rate_bps", "the least is 1kbit", "a rate of %v bit/s is too low", rate)
	}
	if s.GetDelay().AsDuration() < 0 {
		c.add("delay", "", "the delay is negative")
	}
	if rate == 0 && s.GetBurstBytes() > 0 {
		c.add("burst_bytes", "give the link a rate", "a burst without a rate has nothing to exceed")
	}
	if s.GetBurstBytes() > maxBurst {
		c.add("burst_bytes", "", "a burst of %d bytes is more than %d", s.GetBurstBytes(), maxBurst)
	}
	if o := s.GetOverhead(); rate == 0 && (o.GetBytes() != 0 || o.GetMinBytes() != 0 || o.GetAtm()) {
		c.add("overhead", "give the link a rate", "an overhead without a rate costs nothing")
	}
	c.jitter(s.GetJitter())
	c.loss()
	c.chance("duplicate", s.GetDuplicate())
	c.chance("corrupt", s.GetCorrupt())
	c.reorder(s.GetReorder())
	c.queue(s.GetQueue(), traced, frame)
	return c.found
}

// probability reports whether p is one.
func (c *shapeCheck) probability(field string, p float64) bool {
	if p >= 0 && p <= 1 {
		return true
	}
	c.add(field, "", "%v is not a probability", p)
	return false
}

// correlation checks the memory of something that is drawn or not.
func (c *shapeCheck) correlation(field string, correlation float64, drawn bool, what string) {
	switch {
	case !(correlation >= 0 && correlation < 1):
		c.add(field, "it is below 100%", "a correlation of %v%% leaves nothing to chance", correlation*100)
	case correlation > 0 && !drawn:
		c.add(field, "", "the correlation has %s to correlate", what)
	}
}

func (c *shapeCheck) chance(field string, chance *tcplabv1.Chance) {
	if c.probability(field+".probability", chance.GetProbability()) {
		c.correlation(field+".correlation", chance.GetCorrelation(), chance.GetProbability() > 0, "no probability")
	}
}

func (c *shapeCheck) reorder(r *tcplabv1.Reorder) {
	if r == nil {
		return
	}
	c.chance("reorder.chance", r.GetChance())
	switch {
	case r.GetChance().GetProbability() > 0 && c.shape.GetDelay().AsDuration() == 0:
		c.add("reorder", "give the link a delay", "reorder without a delay changes nothing: a packet overtakes by not being delayed")
	case r.GetChance().GetProbability() == 0 && r.GetGap() != 0:
		c.add("reorder.gap", "", "a gap without a probability does nothing")
	}
}

func (c *shapeCheck) jitter(j *tcplabv1.Jitter) {
	if j == nil {
		return
	}
	amount := j.GetAmount().AsDuration()
	table := j.GetDistribution() == tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_TABLE
	if amount <= 0 {
		c.add("jitter.amount", "", "the jitter has no amount")
	}
	c.correlation("jitter.correlation", j.GetCorrelation(), amount > 0, "no jitter")
	quantiles := j.GetQuantiles()
	switch {
	case table && len(quantiles) < 2:
		c.add("jitter.quantiles", "at least two", "the distribution is a table, and has no quantiles")
	case !table && len(quantiles) > 0:
		c.add("jitter.distribution", "leave one of them out", "the jitter has quantiles, and its distribution is no table")
	}
	for i, q := range quantiles {
		field := fmt.Sprintf("jitter.quantiles[%d]", i)
		if !(q >= -maxDeviation && q <= maxDeviation) {
			c.add(field, "", "the quantile %v is not between -%d and %d times the amount", q, maxDeviation, maxDeviation)
			return
		}
		if i > 0 && q < quantiles[i-1] {
			c.add(field, "sort them", "the quantiles fall: %v comes after %v", q, quantiles[i-1])
			return
		}
	}
}

func (c *shapeCheck) loss() {
	s := c.shape
	if c.probability("loss", s.GetLoss()) {
		c.correlation("loss_correlation", s.GetLossCorrelation(), s.GetLoss() > 0, "no probability")
	}
	pattern := s.GetLossPattern()
	if pattern != nil && s.GetLoss() > 0 {
		c.add("loss", "give one of them", "the loss has a probability and a pattern")
	}
	switch kind := pattern.GetKind().(type) {
	case *tcplabv1.LossPattern_GilbertElliott:
		g := kind.GilbertElliott
		const field = "loss_pattern.gilbert_elliott."
		c.probability(field+"to_bad", g.GetToBad())
		c.probability(field+"to_good", g.GetToGood())
		c.probability(field+"bad_loss", g.GetBadLoss())
		c.probability(field+"good_loss", g.GetGoodLoss())
	case *tcplabv1.LossPattern_FourState:
		f := kind.FourState
		const field = "loss_pattern.four_state"
		fine := c.probability(field+".p13", f.GetP13())
		fine = c.probability(field+".p31", f.GetP31()) && fine
		fine = c.probability(field+".p32", f.GetP32()) && fine
		fine = c.probability(field+".p23", f.GetP23()) && fine
		fine = c.probability(field+".p14", f.GetP14()) && fine
		if fine && (f.GetP13()+f.GetP14() > 1 || f.GetP31()+f.GetP32() > 1) {
			c.add(field, "p13 + p14 and p31 + p32 are at most 100%", "what leaves a state is more than certain")
		}
	case *tcplabv1.LossPattern_Packets:
		numbers := kind.Packets.GetNumbers()
		if len(numbers) == 0 {
			c.add("loss_pattern.packets", "leave the key out for no loss", "no packet is listed")
		}
		for i, n := range numbers {
			if n == 0 || i > 0 && n <= numbers[i-1] {
				c.add(fmt.Sprintf("loss_pattern.packets.numbers[%d]", i), "the first packet has the number 1", "listed packets rise: %d does not", n)
				return
			}
		}
	case *tcplabv1.LossPattern_Every:
		if kind.Every == 0 {
			c.add("loss_pattern.every", "", "every 0th packet is none")
		}
	}
}

// marks are the disciplines that can mark instead of dropping.
func marks() []tcplabv1.QueueDiscipline {
	return []tcplabv1.QueueDiscipline{
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_RED, tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CODEL,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_FQ_CODEL, tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_PIE,
	}
}

// queue checks that the limit can be reached, and lets a packet through, and
// that the discipline knows what it is given.
func (c *shapeCheck) queue(q *tcplabv1.Queue, traced bool, frame float64) {
	if q == nil {
		return
	}
	rate := c.shape.GetRateBps()
	if rate == 0 && !traced {
		c.add("queue", "give the link a rate", "a queue without a rate never fills")
		return
	}
	bytes := math.Inf(1)
	switch limit := q.GetLimit().(type) {
	case *tcplabv1.Queue_Bytes:
		bytes = float64(limit.Bytes)
	case *tcplabv1.Queue_Time:
		bytes = rate / 8 * limit.Time.AsDuration().Seconds()
		if rate == 0 {
			c.add("queue", "give packets or bytes", "a queue limited by time needs a rate, and a trace has none")
			bytes = frame
		}
	case nil:
		if q.GetDiscipline() != tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CAKE {
			c.add("queue", "packets, bytes or time", "the queue has no limit")
		}
	}
	if bytes < frame {
		c.add("queue", "", "a queue of %.0f bytes does not hold one frame of %.0f", bytes, frame)
	}
	d := q.GetDiscipline()
	name := "fifo"
	if names := disciplineChoices(); d > 0 && int(d) <= len(names) {
		name = names[d-1]
	}
	codel := d == tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CODEL || d == tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_FQ_CODEL
	switch cake := d == tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CAKE; {
	case q.GetEcn() && cake:
		c.add("queue.ecn", "leave ecn out", "cake always marks")
	case q.GetEcn() && !slices.Contains(marks(), d):
		c.add("queue.ecn", "take red, codel, fq_codel or pie", "%s drops when it is full, and has no choice of marking", name)
	}
	if t := q.GetTarget().AsDuration(); t < 0 || t > 0 && !codel && d != tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_PIE {
		c.add("queue.target", "codel, fq_codel and pie have one", "%s has no target", name)
	}
	if t := q.GetInterval().AsDuration(); t < 0 || t > 0 && !codel && d != tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CAKE {
		c.add("queue.interval", "codel, fq_codel and cake have one", "%s has no interval", name)
	}
	r := q.GetRed()
	if r == nil {
		return
	}
	c.probability("queue.red.probability", r.GetProbability())
	switch {
	case d != tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_RED:
		c.add("queue.red", "write discipline: red", "%s has no thresholds of red", name)
	case r.GetMaxBytes() > 0 && r.GetMaxBytes() <= r.GetMinBytes():
		c.add("queue.red.max_bytes", "", "red's thresholds rise: max is not above min")
	case r.GetMinBytes() > maxBurst || r.GetMaxBytes() > maxBurst:
		c.add("queue.red", "", "red's thresholds are at most %d bytes", maxBurst)
	}
}
