package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	// delaySlack and delayShare are how far the least delay may lie from what was
	// asked: the path through the kernel and a timer's lateness on one side, clock
	// reading on the other.
	delaySlack = 500 * time.Microsecond
	delayShare = 0.01

	// rateShare is how far the median rate may lie from what was asked. Engines
	// keep within 1%; a short train sees a late timer at its ends.
	rateShare = 0.05

	// enough steady trains (or all, where there was time for fewer) prove something.
	enough = 2

	// steadyShare is how far each train may lie from their median, as a share of
	// it, to prove a link wrong: a link that is wrong is so each time and alike, a
	// busy host is not. Trains that are all farShare off to the same side need not
	// be alike.
	steadyShare = 0.03
	// Within one train the middle half of its readings must lie as close together, or
	// within jitter: otherwise the host stood still meanwhile, and a bottleneck in the kernel
	// lost rate by that or one in user space made it up in a burst.
	jitter   = 200 * time.Microsecond
	farShare = 0.5

	// fill is how much faster than the asked rate a train must be sent to fill
	// the bottleneck.
	fill = 1.25

	// freeSlack is how much longer than its sending, twice, a train may take on a link without a rate.
	freeSlack = 2 * time.Millisecond
)

// observation is what probing one direction saw.
type observation struct {
	delays         []time.Duration // of the small probes that were sent into an idle link and arrived
	sent, received int             // loss probes
	trains         []train         // those sent whole
	overrun        bool            // the receiver itself lost frames: counts and trains are void
	cut            bool            // time was up while something that is missing might still have come
	overflow       bool            // the link's queue dropped frames, or its engine did
}

// void says why the loss probes cannot be counted; "" if they can.
func (o observation) void() string {
	switch {
	case o.sent == 0:
		return "no probe was sent"
	case o.received == o.sent:
		return ""
	case o.overrun:
		return "this host was too busy to receive all probes"
	case o.overflow:
		return "this host stood still and probes overflowed the queue"
	case o.cut:
		return "time was up before all probes could arrive"
	default:
		return ""
	}
}

// train is a row of frames sent at once.
type train struct {
	frames   int           // sent
	bytes    int           // of each
	sending  time.Duration // from before the first to after the last was sent
	arrivals []time.Duration
	waited   time.Duration // from the first frame's sending to the end of listening
}

// judge compares what was seen with what was asked.
func judge(shape link.Shape, plan schedule, seen observation, falseAlarm float64) Direction {
	d := Direction{Asked: shape}
	d.Delay = judgeDelay(shape, seen, &d.Measured)
	d.Loss = judgeLoss(shape, seen, falseAlarm, &d.Measured)
	if shape.Rate == 0 {
		d.Rate = judgeFree(seen, &d.Measured)
	} else {
		d.Rate = judgeRate(shape, plan, seen, &d.Measured)
	}
	return d
}

func judgeDelay(shape link.Shape, seen observation, m *Measured) Finding {
	if len(seen.delays) == 0 {
		return Finding{Verdict: Unproven, Detail: fmt.Sprintf("asked %v, no probe arrived", shape.Delay)}
	}
	m.Delay = slices.Min(seen.delays)
	slack := delaySlack + time.Duration(delayShare*float64(shape.Delay))
	// An idle bottleneck may or may not take a probe's serialization time.
	least, most := shape.Delay-slack, shape.Delay+shape.Serialization(smallFrame)+slack
	f := Finding{Verdict: Passed, Detail: fmt.Sprintf("asked %v, measured %v (least of %d probes; permitted %v to %v)",
		shape.Delay, m.Delay.Round(time.Microsecond), len(seen.delays), max(0, least), most)}
	switch quarter := slices.Sorted(slices.Values(seen.delays))[len(seen.delays)/4]; {
	case m.Delay < least:
		f.Verdict, f.again = Failed, true
	case m.Delay > most && quarter > m.Delay+slack:
		// A link that is too long is so for most probes, a busy host for each otherwise.
		f.Verdict, f.again = Unproven, true
		f.Detail += fmt.Sprintf(": a quarter took more than %v, this host is too busy to tell", quarter.Round(time.Microsecond))
	case m.Delay > most:
		f.Verdict, f.again = Failed, true
	}
	return f
}

func judgeLoss(shape link.Shape, seen observation, falseAlarm float64, m *Measured) Finding {
	asked := fmt.Sprintf("asked %g%%", 100*shape.Loss.Mean())
	if void := seen.void(); void != "" {
		return Finding{Verdict: Unproven, Detail: asked + ", " + void, again: true}
	}
	lost := seen.sent - seen.received
	m.Sent, m.Received = seen.sent, seen.received
	m.Loss = float64(lost) / float64(seen.sent)
	f := Finding{Verdict: Passed, Detail: fmt.Sprintf("%s, lost %d of %d probes (%.3g%%)", asked, lost, seen.sent, 100*m.Loss)}
	switch {
	case binomialTest(lost, seen.sent, shape.Loss.Mean()) < falseAlarm:
		f.Verdict = Failed
	case shape.Loss.Mean() > 0 && binomialTest(0, seen.sent, shape.Loss.Mean()) >= falseAlarm:
		f.Verdict = Unproven
		f.Detail += ": too few to tell so rare a loss from none"
	}
	return f
}

func judgeRate(shape link.Shape, plan schedule, seen observation, m *Measured) Finding {
	asked := fmt.Sprintf("asked %s", bitRate(float64(shape.Rate)))
	skip := int(float64(shape.Rate)/8*burst.Seconds()) + plan.trainFrame
	counted := plan.train*plan.trainFrame - skip
	if plan.train < 4 || shape.Serialization(counted) < minExpected {
		return Finding{Verdict: Unproven, Detail: asked + fmt.Sprintf(": a train of %d frames, which its queue and this host take, is too short to tell", plan.train)}
	}
	if seen.overrun {
		return Finding{Verdict: Unproven, Detail: asked + ", this host was too busy to receive all probes"}
	}
	var rates, inputs []float64
	for _, t := range seen.trains {
		input := 8 * float64(t.frames*t.bytes) / t.sending.Seconds()
		inputs = append(inputs, input)
		if input < fill*float64(shape.Rate) {
			continue
		}
		if rate, ok := t.rate(skip, shape, plan); ok {
			rates = append(rates, rate)
		}
	}
	switch {
	case len(rates) > 0:
	case len(inputs) == 0:
		return Finding{Verdict: Unproven, Detail: asked + ", there was no time for a train"}
	case seen.cut:
		return Finding{Verdict: Unproven, Detail: asked + ", time was up before a train could arrive"}
	case median(inputs) >= fill*float64(shape.Rate):
		return Finding{Verdict: Unproven, again: true, Detail: asked + ", this host is too busy for a steady train"}
	default:
		return Finding{Verdict: Unproven, again: true, Detail: asked + fmt.Sprintf(", this host sent only %s, too little to fill the link", bitRate(median(inputs)))}
	}
	m.RateBps = median(rates)
	f := Finding{Verdict: Passed, Detail: fmt.Sprintf("%s, measured %s (median of %d trains; permitted ±%g%%)", asked, bitRate(m.RateBps), len(rates), 100*rateShare)}
	off := m.RateBps/float64(shape.Rate) - 1
	switch {
	case off < -rateShare || off > rateShare:
		f.Verdict, f.again = Failed, true
		if len(rates) < min(enough, plan.trains) || !agree(rates, float64(shape.Rate)) {
			f.Verdict = Unproven
			f.Detail += ": the trains disagree or are too few, this host is too busy to tell"
		}
	case len(rates) < min(enough, plan.trains):
		f.Verdict, f.again = Unproven, true
		f.Detail += ": one steady train proves little"
	}
	return f
}

// agree reports whether all rates are wrong alike; see steadyShare.
func agree(rates []float64, asked float64) bool {
	least, most, middle := slices.Min(rates), slices.Max(rates), median(rates)
	return most-middle <= steadyShare*middle && middle-least <= steadyShare*middle ||
		least > (1+farShare)*asked || most < (1-farShare)*asked
}

// judgeFree judges a link without a rate: it must keep up with what is sent.
func judgeFree(seen observation, m *Measured) Finding {
	const asked = "asked no limit"
	if seen.overrun {
		return Finding{Verdict: Unproven, Detail: asked + ", this host was too busy to receive all probes"}
	}
	var rates []float64
	kept := 0
	for _, t := range seen.trains {
		if len(t.arrivals) < 2 {
			continue
		}
		took := max(t.arrivals[len(t.arrivals)-1]-t.arrivals[0], time.Nanosecond)
		rates = append(rates, 8*float64((len(t.arrivals)-1)*t.bytes)/took.Seconds())
		if took <= 2*t.sending+freeSlack {
			kept++
		}
	}
	if len(rates) == 0 {
		return Finding{Verdict: Unproven, Detail: asked + ", no train arrived"}
	}
	m.RateBps = median(rates)
	if 2*kept <= len(rates) {
		return Finding{Verdict: Failed, again: true, Detail: fmt.Sprintf("%s, but something limits it to %s", asked, bitRate(m.RateBps))}
	}
	return Finding{Verdict: Passed, Detail: fmt.Sprintf("%s, kept up with %s", asked, bitRate(m.RateBps))}
}

// rate is what came out of the bottleneck in bit/s, once the first skip bytes are
// through: the median over all pairs of frames half a train apart, so that a frame which
// a busy host made late spoils the two pairs that it is in, and no more. ok is false
// where too little has arrived to tell, or too unsteadily.
func (t train) rate(skip int, shape link.Shape, plan schedule) (bps float64, ok bool) {
	if float64(len(t.arrivals)) < float64(t.frames)*(1-shape.Loss.Mean())/2 {
		// Most of it was still under way when listening ended: that is slow, if
		// listening was long.
		return 8 * float64(len(t.arrivals)*t.bytes) / t.waited.Seconds(),
			t.waited > shape.Delay+2*plan.trainLasts+grace/2
	}
	counted := t.arrivals[min(skip/t.bytes, max(0, len(t.arrivals)-2)):]
	half := len(counted) / 2
	if half == 0 {
		return 0, false
	}
	var took []time.Duration
	for i, arrival := range counted[:len(counted)-half] {
		took = append(took, max(counted[i+half]-arrival, time.Nanosecond))
	}
	slices.Sort(took)
	middle := took[len(took)/2]
	spread := took[len(took)*3/4] - took[len(took)/4]
	steady := spread <= max(jitter, time.Duration(2*steadyShare*float64(middle)))
	return 8 * float64(half*t.bytes) / middle.Seconds(), steady
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// bitRate writes a rate for people.
func bitRate(bps float64) string {
	switch {
	case bps >= 1e9:
		return fmt.Sprintf("%.4g Gbit/s", bps/1e9)
	case bps >= 1e6:
		return fmt.Sprintf("%.4g Mbit/s", bps/1e6)
	default:
		return fmt.Sprintf("%.4g kbit/s", bps/1e3)
	}
}

// merge joins an earlier judgement with that of a later attempt. What passed once
// has passed, for it takes more than a host's lateness to make a wrong link look
// right in steady trains or by its least delay; what failed
// stays failed where the later attempt proved nothing. Losses are counted over
// all attempts, so that the later finding is the right one unless it proved nothing.
func merge(earlier, later Direction) Direction {
	stands := func(earlier, later Verdict) bool {
		return later != Passed && (earlier == Passed || earlier == Failed && later == Unproven)
	}
	if stands(earlier.Delay.Verdict, later.Delay.Verdict) {
		later.Delay, later.Measured.Delay = earlier.Delay, earlier.Measured.Delay
	}
	if stands(earlier.Rate.Verdict, later.Rate.Verdict) {
		later.Rate, later.Measured.RateBps = earlier.Rate, earlier.Measured.RateBps
	}
	if later.Loss.Verdict == Unproven && earlier.Loss.Verdict != Unproven {
		later.Loss = earlier.Loss
		m := earlier.Measured
		later.Measured.Loss, later.Measured.Sent, later.Measured.Received = m.Loss, m.Sent, m.Received
	}
	return later
}
