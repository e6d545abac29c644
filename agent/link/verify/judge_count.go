package verify

import (
	"fmt"
	"math"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// chances is how many quantities of a stream chance decides, among which half the chance of
// a false alarm is shared out; and each may be looked at three times.
const chances = 2 * 4 * 3

// conviction is how much more probable what was seen must be under the pattern that was asked than under
// independent losses, to prove the pattern: a thousandfold.
const conviction = 1000

// judgeLoss judges how many packets were lost, and which.
func (j *judge) judgeLoss(seen observation, void string, m *Measured) Finding {
	asked := "asked " + lossText(j.shape)
	if void != "" && (len(j.frames) == 0 || !anyKnown(j.frames)) {
		return Finding{Verdict: Unproven, Detail: asked + ", " + void, again: true}
	}
	outcomes := make([]outcome, len(j.frames))
	lost := 0
	m.Sent = 0
	for i, f := range j.frames {
		if !f.known {
			continue
		}
		m.Sent++
		outcomes[i] = spared
		if f.copies == 0 {
			outcomes[i] = struck
			lost++
		}
	}
	m.Received = m.Sent - lost
	m.Loss = share(lost, m.Sent)
	f := Finding{Detail: fmt.Sprintf("%s, lost %d of %d probes (%s)", asked, lost, m.Sent, percent(m.Loss))}
	l := j.shape.Loss
	switch {
	case j.shape.Down:
		if m.Received > 0 {
			f.Verdict = Failed
		}
		return f
	case len(l.Packets) > 0 || l.Every > 0:
		return j.judgeNumbers(seen, outcomes, f)
	}
	return j.judgeChance(f, l.Mean(), l.Random(), !l.Random() && !independentAnyway(l), func() model { return lossModel(l, seen.armed == 0) }, outcomes)
}

func anyKnown(all []counted) bool {
	for _, f := range all {
		if f.known {
			return true
		}
	}
	return false
}

// judgeNumbers judges losses of packets by their number, each.
func (j *judge) judgeNumbers(seen observation, outcomes []outcome, f Finding) Finding {
	if seen.armed == 0 {
		f.Verdict, f.Detail = Unproven, f.Detail+": it is not known which packet was the first"
		return f
	}
	asked := lossModel(j.shape.Loss, false)
	wrong, expected := "", 0
	last := uint64(0)
	for i, o := range outcomes {
		should := asked.strikes() == 1
		asked.saw(o)
		if o == unknown {
			continue
		}
		last = uint64(i + 1)
		if should {
			expected++
		}
		if is := o == struck; is != should && wrong == "" {
			wrong = fmt.Sprintf(": packet %d was to arrive and did not", i+1)
			if should {
				wrong = fmt.Sprintf(": packet %d was to be lost and arrived", i+1)
			}
		}
	}
	f.Detail += wrong
	switch list := j.shape.Loss.Packets; {
	case wrong != "" && seen.foreign:
		f.again = true
		f.Verdict, f.Detail = Unproven, f.Detail+", but other traffic crossed the link and was counted too"
	case wrong != "":
		f.Verdict = Failed
	case len(list) > 0 && list[len(list)-1] > last:
		f.Verdict, f.Detail = Unproven, f.Detail+fmt.Sprintf(": there was no time to send packet %d", list[len(list)-1])
	case expected == 0:
		f.Verdict, f.Detail = Unproven, f.Detail+": too few to come to one that is to be lost"
	}
	return f
}

// judgeDuplicates judges how many of the packets that arrived came twice.
func (j *judge) judgeDuplicates(m *Measured) Finding {
	var outcomes []outcome
	twice, arrived := 0, 0
	for _, f := range j.frames {
		if !f.known || f.copies == 0 {
			continue
		}
		arrived++
		o := spared
		if f.copies > 1 {
			o = struck
			twice++
		}
		outcomes = append(outcomes, o)
	}
	m.Duplicated = share(twice, arrived)
	return j.judgeArrived("duplicate", j.shape.Duplicate, twice, arrived, outcomes)
}

// judgeDamage judges how many of the packets that arrived were damaged.
func (j *judge) judgeDamage(m *Measured) Finding {
	var outcomes []outcome
	damaged, arrived := 0, 0
	for _, f := range j.frames {
		if !f.known {
			continue
		}
		for i := range f.copies {
			o := spared
			if i < f.damaged {
				o = struck
			}
			outcomes = append(outcomes, o)
		}
		damaged += f.damaged
		arrived += f.copies
	}
	m.Corrupted = share(damaged, arrived)
	return j.judgeArrived("corrupt", j.shape.Corrupt, damaged, arrived, outcomes)
}

func (j *judge) judgeArrived(what string, c link.Chance, number, of int, outcomes []outcome) Finding {
	if c.Probability == 0 && number == 0 {
		return Finding{}
	}
	f := Finding{Detail: fmt.Sprintf("asked to %s %s, did %d of %d probes (%s)", what, chanceText(c), number, of, percent(share(number, of)))}
	if of == 0 {
		f.Verdict = Unproven
		return f
	}
	return j.judgeChance(f, c.Probability, c.Correlation == 0, c.Correlation > 0, func() model { return chanceModel(c) }, outcomes)
}

// judgeReorder judges how many packets got no delay: those that overtook packets that were sent shortly before
// them. That the host was late tells nothing against it, for all wait alike.
func (j *judge) judgeReorder() Finding {
	r, shape := j.shape.Reorder, j.shape
	if r.IsZero() {
		return Finding{}
	}
	asked := fmt.Sprintf("asked to let %s of packets past others", chanceText(r.Chance))
	if r.Gap > 1 {
		asked += fmt.Sprintf(", with a gap of %d", r.Gap)
	}
	const longestGap = 64
	switch {
	case shape.Delay < 2*slackOf(shape):
		return Finding{Verdict: Unproven, Detail: asked + fmt.Sprintf(": at a delay of %v it cannot be told which of them did", shape.Delay)}
	case r.Gap > longestGap:
		return Finding{Verdict: Unproven, Detail: asked + ": a gap this long is not judged"}
	case shape.Jitter.Reorder:
		return Finding{Verdict: Unproven, Detail: asked + ": jitter that reorders does too, and hides which of them did"}
	}
	outcomes := j.overtakes()
	early, told := 0, 0
	for _, o := range outcomes {
		if o == struck {
			early++
		}
		if o != unknown {
			told++
		}
	}
	f := Finding{Detail: asked + fmt.Sprintf(", did so with %d of %d probes (%s)", early, told, percent(share(early, told)))}
	if r.Gap <= 1 {
		return j.judgeChance(f, r.Probability, r.Correlation == 0, r.Correlation > 0, func() model { return chanceModel(r.Chance) }, outcomes)
	}
	if r.Correlation > 0 {
		f.Verdict, f.Detail = Unproven, f.Detail+": a gap together with a correlation is not judged"
		return f
	}
	mean := r.Probability / (1 + float64(r.Gap-1)*r.Probability)
	f = j.judgeChance(f, mean, false, true, func() model { return gapped(r.Probability, r.Gap, true) }, outcomes)
	// Where every gap-th is struck for certain, one frame of another among the probes shifts the count for all that
	// follow, and changes their share by nothing.
	if r.Probability == 1 && f.Verdict == Failed && binomialTest(early, told, mean) >= j.falseAlarm/chances {
		f.Verdict, f.Detail = Unproven, f.Detail+", or a frame of another was counted among them"
	}
	return f
}

// overtakes says which packets were let past others. One with nobody before it, less than half a
// delay ago, could overtake none, and tells nothing.
func (j *judge) overtakes() []outcome {
	outcomes := make([]outcome, 0, len(j.frames))
	last := 0              // the highest rank so far in the attempt
	var slow time.Duration // when the last that overtook none was sent
	for i, f := range j.frames {
		if i == 0 || f.first {
			last, slow = 0, 0
		}
		switch {
		case !f.known && f.copies == 0: // it may have been lost or not
			outcomes = append(outcomes, unknown)
		case f.copies == 0: // lost, and no packet of the delay
		case f.rank < last:
			outcomes = append(outcomes, told(f.known, struck))
		case slow == 0 || f.sent-slow > j.shape.Delay/2:
			outcomes = append(outcomes, unknown)
			last, slow = f.rank, f.sent
		default:
			outcomes = append(outcomes, told(f.known, spared))
			last, slow = f.rank, f.sent
		}
	}
	return outcomes
}

// told is the outcome where it counts.
func told(known bool, o outcome) outcome {
	if known {
		return o
	}
	return unknown
}

// judgeChance judges packets that chance strikes. The mean of independent ones is told by their number;
// how they follow one another, by the evidence. A pattern has passed when what was seen
// speaks for it and not for independence.
func (j *judge) judgeChance(f Finding, mean float64, independently, pattern bool, asked func() model, seen []outcome) Finding {
	alarm := j.falseAlarm / chances
	number, of := 0, 0
	clean := make([]outcome, len(seen))
	for i, o := range seen {
		if o == unknown {
			continue
		}
		of++
		clean[i] = spared
		if o == struck {
			number++
		}
	}
	tells := func(seen []outcome, number int) bool {
		return independently && binomialTest(number, of, mean) < alarm || evidence(asked(), seen) > -math.Log(alarm)
	}
	switch {
	case tells(seen, number):
		f.Verdict = Failed
		if independently && binomialTest(number, of, mean) >= alarm || !independently && pattern {
			f.Detail += ": they do not follow one another as asked"
		}
	case mean > 0 && !tells(clean, 0):
		f.Verdict, f.Detail = Unproven, f.Detail+": too few to tell so rare a chance from none"
	case pattern && likelihood(asked(), seen)-independence(number, of) < math.Log(conviction):
		f.Verdict, f.Detail = Unproven, f.Detail+": too few to tell their pattern from none"
	}
	return f
}

// likelihood is the logarithm of how probable the model holds what was seen.
func likelihood(asked model, seen []outcome) float64 {
	log := 0.0
	for _, o := range seen {
		if o != unknown {
			log += logChance(asked.strikes(), o)
		}
		asked.saw(o)
	}
	return log
}

// independence is the likelihood of so many among all, each with the chance that suits them best.
func independence(number, of int) float64 {
	p, log := share(number, of), 0.0
	if number > 0 {
		log += float64(number) * math.Log(p)
	}
	if number < of {
		log += float64(of-number) * math.Log1p(-p)
	}
	return log
}

// independentAnyway reports whether a pattern is none.
func independentAnyway(l link.Loss) bool {
	if g := l.GilbertElliott; g != nil {
		return g.GoodLoss == g.BadLoss || g.ToBad+g.ToGood == 1 || g.ToBad == 0
	}
	if f := l.FourState; f != nil {
		return f.P13 == 0 && f.P14 == 0
	}
	return l.Probability == 0 || l.Probability == 1
}

// lossText says a loss for people.
func lossText(s link.Shape) string {
	l := s.Loss
	switch {
	case s.Down:
		return "to be down"
	case l.GilbertElliott != nil:
		g := l.GilbertElliott
		return fmt.Sprintf("Gilbert-Elliott loss (to bad %g, to good %g, loss %g and %g; mean %s)", g.ToBad, g.ToGood, g.BadLoss, g.GoodLoss, percent(l.Mean()))
	case l.FourState != nil:
		f := l.FourState
		return fmt.Sprintf("four-state loss (p13 %g, p31 %g, p32 %g, p23 %g, p14 %g; mean %s)", f.P13, f.P31, f.P32, f.P23, f.P14, percent(l.Mean()))
	case len(l.Packets) > 0:
		return fmt.Sprintf("to lose %d packets by their number", len(l.Packets))
	case l.Every > 0:
		return fmt.Sprintf("to lose packet %d and each as many behind it", l.Every)
	}
	return chanceText(l.Chance)
}

func chanceText(c link.Chance) string {
	text := fmt.Sprintf("%g%%", 100*c.Probability)
	if c.Correlation > 0 {
		text += fmt.Sprintf(" with correlation %g", c.Correlation)
	}
	return text
}

// slackOf is how far a delay may lie from what was asked: the path through the kernel and a timer's lateness
// on one side, clock reading on the other.
func slackOf(s link.Shape) time.Duration {
	return delaySlack + time.Duration(delayShare*float64(s.Delay))
}
