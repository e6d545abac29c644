package verify

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	// delaySlack and delayShare are what a delay may be off; see slackOf.
	delaySlack = 500 * time.Microsecond
	delayShare = 0.01

	// lateShare is how many packets a busy host may make late by more than the slack
	// without a jitter being taken for wider than it is.
	lateShare = 0.05

	longest = 0.999 // the level of the longest delay but for chance

	deviations = 1000 // equally probable ones stand for a distribution
)

// idle are the delays of small probes, by kind of packet, that found the link idle and arrived: all
// for delay, and the first of each burst of the counted.
func (j *judge) idle(seen observation) [][]time.Duration {
	all := make([][]time.Duration, len(j.kinds))
	for i, f := range seen.frames[:seen.singles()] {
		counted := i - j.plan.delayProbes
		if f.copies == 0 || counted > 0 && counted%j.plan.countBurst != 0 {
			continue
		}
		all[i%len(j.kinds)] = append(all[i%len(j.kinds)], f.delay())
	}
	return all
}

// judgeDelay judges the delay of each kind of packet, and how it varies.
func (j *judge) judgeDelay(seen observation, m *Measured) (delay, jitter Finding) {
	if !j.shape.Jitter.IsZero() {
		return j.judgeJitter(seen, m)
	}
	for kind, delays := range j.idle(seen) {
		if !j.shape.Reorder.IsZero() {
			// Those that were let past others are another matter.
			delays = slices.DeleteFunc(delays, func(d time.Duration) bool { return d < j.shape.Delay/2 })
		}
		if f := j.judgeDelays(delays, m); kind == 0 || f.Verdict > delay.Verdict {
			delay = f
			if len(j.kinds) > 1 && f.Verdict != Passed {
				delay.Detail += fmt.Sprintf(" (%v)", j.kinds[kind])
			}
		}
	}
	return delay, Finding{}
}

func (j *judge) judgeDelays(delays []time.Duration, m *Measured) Finding {
	shape := j.shape
	if len(delays) == 0 {
		return Finding{Verdict: Unproven, Detail: fmt.Sprintf("asked %v, no probe arrived", shape.Delay)}
	}
	least := slices.Min(delays)
	if m.Delay == 0 || least < m.Delay {
		m.Delay = least
	}
	slack := slackOf(shape)
	// An idle bottleneck may or may not take a probe's serialization time.
	from, to := shape.Delay-slack, shape.Delay+shape.Serialization(j.plan.small)+slack
	if j.trace != nil {
		to += j.longestPause()
	}
	f := Finding{Verdict: Passed, Detail: fmt.Sprintf("asked %v, measured %v (least of %d probes; permitted %v to %v)",
		shape.Delay, least.Round(time.Microsecond), len(delays), max(0, from), to)}
	switch quarter := slices.Sorted(slices.Values(delays))[len(delays)/4]; {
	case least < from:
		f.Verdict, f.again = Failed, true
	case least <= to && quarter > to:
		f.Verdict, f.again = Unproven, true
		f.Detail += fmt.Sprintf(": a quarter took more than %v, the delay varies or this host is too busy to tell", quarter.Round(time.Microsecond))
	case least > to && quarter > least+slack:
		// A link that is too long is so for most probes, a busy host for each otherwise.
		f.Verdict, f.again = Unproven, true
		f.Detail += fmt.Sprintf(": a quarter took more than %v, this host is too busy to tell", quarter.Round(time.Microsecond))
	case least > to:
		f.Verdict, f.again = Failed, true
	}
	return f
}

// String names a kind of packet for people.
func (p packet) String() string {
	if !p.to.IsValid() {
		return "no IP packet"
	}
	text := "to " + p.to.String()
	if p.protocol != link.AnyProtocol {
		text = string(p.protocol) + " " + text
	}
	if p.source != 0 {
		text += fmt.Sprintf(", ports %d and %d", p.source, p.dest)
	}
	return text
}

// judgeOrder judges whether packets keep their order, or overtake one another where jitter asks for it.
func (j *judge) judgeOrder(seen observation, m *Measured) Finding {
	overtaken, arrived := 0, 0
	for _, f := range seen.frames[:seen.singles()] {
		if f.copies == 0 {
			continue
		}
		arrived++
		if f.overtaken {
			overtaken++
		}
	}
	m.Reordered = share(overtaken, arrived)
	detail := fmt.Sprintf("%d of %d probes were overtaken", overtaken, arrived)
	jitter := j.shape.Jitter
	switch {
	case inOrder(j.shape) && overtaken > 0:
		return Finding{Verdict: Failed, Detail: "asked to keep order, " + detail, again: true}
	case jitter.Reorder && overtaken == 0 && j.shape.Reorder.IsZero():
		// Of two packets sent at once, each is as likely to be the first; of bursts none in order by chance.
		pairs := arrived / 2
		if j.plan.countBurst < 2 || jitter.Amount < j.plan.countSpacing || math.Pow(0.5, float64(pairs)) > j.falseAlarm {
			return Finding{Verdict: Unproven, Detail: "asked for jitter that reorders, " + detail + ": too few to tell"}
		}
		return Finding{Verdict: Failed, Detail: "asked for jitter that reorders, " + detail, again: true}
	case jitter.Reorder:
		return Finding{Detail: "asked for jitter that reorders, " + detail}
	}
	return Finding{}
}

// judgeJitter judges a delay that varies by how many packets lie beyond each of several quantiles.
//
// Where order is kept, a packet whose delay has passed waits for the one before it. Such a packet tells that its
// own delay was no longer, and no more. So of each quantile those packets count whose predecessor had already arrived
// by then: whether a packet is one of them is known before its own delay is drawn, and
// those that count are as if there were no others (optional skipping: J. L. Doob, 1936).
// Their number is itself a matter of chance, so that the bound on false alarms is
// shared out among as many as there could be.
func (j *judge) judgeJitter(seen observation, m *Measured) (delay, jitter Finding) {
	shape := j.shape
	steps := shape.Jitter.Deviations(deviations)
	at := func(level float64) time.Duration {
		deviation := steps[min(deviations-1, int(level*deviations))]
		return max(0, shape.Delay+time.Duration(deviation*float64(shape.Jitter.Amount)))
	}
	slack := slackOf(shape) + 2*shape.Serialization(j.plan.small)
	frames := j.spaced(seen)
	j.measureJitter(frames, m)
	asked := fmt.Sprintf("asked %v ± %v (%v)", shape.Delay, shape.Jitter.Amount, shape.Jitter.Distribution)
	seenText := fmt.Sprintf(", measured %v ± %v of %d probes", m.Delay.Round(time.Microsecond), m.Jitter.Round(time.Microsecond), len(frames))
	delay = Finding{Detail: asked + seenText}
	jitter = delay
	levels := []float64{0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 0.95, longest}
	// Half for this, half for what is counted; what passes once has passed.
	alarm := j.falseAlarm / 2 / float64(2*len(levels))
	if !shape.Jitter.Reorder {
		alarm /= float64(max(1, len(frames)))
	}
	waiting := false // most of them waited for packets that took longer than any should
	for _, level := range levels {
		bounds := []struct {
			word   string
			limit  time.Duration
			chance float64
			beyond func(time.Duration) bool
		}{
			{"less", at(level) - slack, level + 1.0/deviations, func(d time.Duration) bool { return d <= at(level)-slack }},
			{"more", at(level) + slack, 1 - level + 1.0/deviations + lateShare, func(d time.Duration) bool { return d > at(level)+slack }},
		}
		for _, b := range bounds {
			beyond, of := 0, 0
			for _, f := range frames {
				if !shape.Jitter.Reorder && f.waited > b.limit-2*shape.Serialization(j.plan.small) {
					continue
				}
				of++
				if b.beyond(f.delay) {
					beyond++
				}
			}
			waiting = level == longest && 2*of < len(frames)
			if b.limit < 0 || b.chance >= 1 || beyond == 0 || binomialTail(beyond, of, of, b.chance) >= alarm {
				continue
			}
			wrong := Finding{Verdict: Failed, again: true, Detail: fmt.Sprintf("%s%s: %d of %d took %s than %v, at most %s should",
				asked, seenText, beyond, of, b.word, b.limit.Round(time.Microsecond), percent(b.chance))}
			if level >= 0.4 && level <= 0.6 {
				delay = wrong
			} else {
				jitter = wrong
			}
		}
	}
	if jitter.Verdict == Passed && !j.tellsJitter(at, slack, len(frames), alarm) {
		jitter.Verdict, jitter.Detail = Unproven, jitter.Detail+": too few or too little to tell it from none"
		jitter.again = len(frames) < j.plan.delayProbes/2
	}
	if jitter.Verdict == Passed && waiting {
		jitter.Verdict, jitter.again = Unproven, true
		jitter.Detail += ": most probes waited for others that took longer than any should"
	}
	if jitter.Verdict == Passed && shape.Jitter.Correlation > 0 {
		jitter.Verdict, jitter.Detail = Unproven, jitter.Detail+fmt.Sprintf(": its correlation of %g is read back and not measured", shape.Jitter.Correlation)
	}
	return delay, jitter
}

// tellsJitter reports whether so many packets without any jitter would have been found out.
func (j *judge) tellsJitter(at func(float64) time.Duration, slack time.Duration, of int, alarm float64) bool {
	for _, level := range []float64{0.6, 0.8, 0.9, 0.95} {
		if at(level)-slack >= j.shape.Delay+slack {
			return math.Pow(level+1.0/deviations, float64(of)) < alarm
		}
	}
	return false
}

// spacing is a packet's delay, and how long it had to wait for the one before it: until this time since it was
// sent, it could not arrive.
type spacing struct {
	delay, waited time.Duration
}

// spaced are the packets whose delays tell the distribution: those for delay. Of correlated jitter those that
// are so far apart that they have forgotten one another.
func (j *judge) spaced(seen observation) []spacing {
	apart := 1
	if c := j.shape.Jitter.Correlation; c > 0 {
		const forgotten = 1e-3
		apart = int(math.Ceil(math.Log(forgotten) / math.Log(c)))
	}
	var all []spacing
	latest := time.Duration(math.MinInt64 / 2)
	for i, f := range seen.frames[:min(j.plan.delayProbes, seen.singles())] {
		if f.copies == 0 {
			continue
		}
		if !j.shape.Reorder.IsZero() && f.delay() <= slackOf(j.shape) {
			continue
		}
		if i%apart == 0 {
			all = append(all, spacing{f.delay(), latest - f.sent})
		}
		latest = max(latest, f.arrived)
	}
	return all
}

// measureJitter is mean and standard deviation, of those that did not wait for another where there are such.
func (j *judge) measureJitter(frames []spacing, m *Measured) {
	sum, squares := 0.0, 0.0
	for _, f := range frames {
		sum += f.delay.Seconds()
		squares += f.delay.Seconds() * f.delay.Seconds()
	}
	if n := float64(len(frames)); n > 0 {
		mean := sum / n
		m.Delay = time.Duration(mean * 1e9)
		m.Jitter = time.Duration(math.Sqrt(max(0, squares/n-mean*mean)) * 1e9)
	}
}
