package verify

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
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
	// within unsteady: otherwise the host stood still meanwhile, and a bottleneck in the kernel
	// lost rate by that or one in user space made it up in a burst.
	unsteady = 200 * time.Microsecond
	farShare = 0.5

	// fill is how much faster than the asked rate a train must be sent to fill
	// the bottleneck.
	fill = 1.25

	// freeSlack is how much longer than its sending, twice, a train may take on a link without a rate.
	freeSlack = 2 * time.Millisecond

	// traceSlack is how early or late a host may make the moments of a trace seem.
	traceSlack = 2 * time.Millisecond
	// traceShare is how far apart the bounds of a trace's rate may be to tell anything, as a share of it.
	traceShare = 0.2
)

// train is a row of frames sent at once.
type train struct {
	tells    Quantity
	frames   int           // sent
	bytes    int           // of each
	lasts    time.Duration // behind a bottleneck of the asked rate
	begin    time.Duration // of sending, since the epoch
	sending  time.Duration // from before the first to after the last was sent
	arrivals []time.Duration
	waited   time.Duration // from the first frame's sending to the end of listening
}

// frameRate is the rate in bit/s of frames of a length, when each costs what it does at the
// bottleneck.
func frameRate(shape link.Shape, frame int) float64 {
	return float64(shape.Rate) * float64(frame) / float64(shape.Overhead.Cost(frame))
}

// planned is the train of the plan that tells the quantity, and how many there are of it.
func (j *judge) planned(tells Quantity) (t trainPlan, n int) {
	for _, p := range j.plan.trains {
		if p.tells == tells {
			t = p
			n++
		}
	}
	return t, n
}

// of are the trains that tell the quantity.
func (j *judge) of(tells Quantity) (all []train) {
	for _, t := range j.trains {
		if t.tells == tells {
			all = append(all, t)
		}
	}
	return all
}

func (j *judge) judgeRate(seen observation, m *Measured) Finding {
	asked := "asked " + bitRate(float64(j.shape.Rate))
	if t, _ := j.planned(Rate); j.shape.Overhead != (link.Overhead{}) {
		asked += fmt.Sprintf(", with its overhead %s in frames of %d bytes", bitRate(frameRate(j.shape, t.size)), t.size)
	}
	f, rate := j.judgeTrains(seen, Rate, asked)
	m.RateBps = rate
	return f
}

// judgeOverhead judges what short frames cost.
func (j *judge) judgeOverhead(seen observation) Finding {
	if j.shape.Overhead == (link.Overhead{}) {
		return Finding{}
	}
	o := j.shape.Overhead
	asked := fmt.Sprintf("asked an overhead of %d bytes", o.Bytes)
	if o.MinBytes > 0 {
		asked += fmt.Sprintf(", at least %d in all", o.MinBytes)
	}
	if o.ATM {
		asked += ", in ATM cells"
	}
	t, n := j.planned(Overhead)
	if n == 0 {
		return Finding{Verdict: Unproven, Detail: asked + ": there was no time for short frames"}
	}
	if cost := float64(o.Cost(t.size))/float64(t.size) - 1; math.Abs(cost) < 2*rateShare {
		return Finding{Verdict: Unproven, Detail: asked + fmt.Sprintf(": on frames of %d bytes, the shortest that this host sends fast enough, it makes no difference that can be told", t.size)}
	}
	f, _ := j.judgeTrains(seen, Overhead, fmt.Sprintf("%s, %s in frames of %d bytes", asked, bitRate(frameRate(j.shape, t.size)), t.size))
	return f
}

// skip is how many bytes of a train an idle bottleneck may let through at once.
func (j *judge) skip() int {
	return int(float64(j.shape.Rate)/8*burst.Seconds()) + j.shape.Burst + j.mtu + link.FrameOverhead
}

func (j *judge) judgeTrains(seen observation, tells Quantity, asked string) (Finding, float64) {
	shape := j.shape
	row, planned := j.planned(tells)
	skip := j.skip()
	countedFrames := row.frames - skip/max(1, row.size)
	if row.frames < 4 || time.Duration(countedFrames)*shape.Serialization(row.size) < minExpected {
		detail := asked + fmt.Sprintf(": a train of %d frames, which its queue and this host take, is too short to tell", row.frames)
		if planned == 0 {
			detail = asked + ", there was no time for a train"
		}
		return Finding{Verdict: Unproven, Detail: detail}, 0
	}
	if seen.overrun {
		return Finding{Verdict: Unproven, Detail: asked + ", this host was too busy to receive all probes"}, 0
	}
	should := frameRate(shape, row.size)
	var rates, inputs []float64
	for _, t := range j.of(tells) {
		input := 8 * float64(t.frames*t.bytes) / t.sending.Seconds()
		inputs = append(inputs, input)
		if input < fill*should {
			continue
		}
		if rate, ok := t.rate(skip, shape); ok {
			rates = append(rates, rate)
		}
	}
	switch {
	case len(rates) > 0:
	case len(inputs) == 0:
		return Finding{Verdict: Unproven, Detail: asked + ", there was no time for a train"}, 0
	case seen.cut:
		return Finding{Verdict: Unproven, Detail: asked + ", time was up before a train could arrive"}, 0
	case median(inputs) >= fill*should:
		return Finding{Verdict: Unproven, again: true, Detail: asked + ", this host is too busy for a steady train"}, 0
	default:
		return Finding{Verdict: Unproven, again: true, Detail: asked + fmt.Sprintf(", this host sent only %s, too little to fill the link", bitRate(median(inputs)))}, 0
	}
	measured := median(rates)
	f := Finding{Verdict: Passed, Detail: fmt.Sprintf("%s, measured %s (median of %d trains; permitted ±%g%%)", asked, bitRate(measured), len(rates), 100*rateShare)}
	off := measured/should - 1
	switch {
	case off < 0 && spreadOf(shape.Jitter)*4 > row.lasts && off < -rateShare:
		f.Verdict, f.Detail = Unproven, f.Detail+": the jitter tears trains apart"
	case off < -rateShare || off > rateShare:
		f.Verdict, f.again = Failed, true
		if len(rates) < min(enough, planned) || !agree(rates, should) {
			f.Verdict = Unproven
			f.Detail += ": the trains disagree or are too few, this host is too busy to tell"
		}
	case len(rates) < min(enough, planned):
		f.Verdict, f.again = Unproven, true
		f.Detail += ": one steady train proves little"
	}
	return f, measured
}

// agree reports whether all rates are wrong alike; see steadyShare.
func agree(rates []float64, asked float64) bool {
	least, most, middle := slices.Min(rates), slices.Max(rates), median(rates)
	return most-middle <= steadyShare*middle && middle-least <= steadyShare*middle ||
		least > (1+farShare)*asked || most < (1-farShare)*asked
}

// judgeBurst judges what an idle bottleneck lets through at once: where the line that the later frames
// of a train arrive on, at the rate, meets the arrival of the first.
func (j *judge) judgeBurst() Finding {
	shape := j.shape
	row, _ := j.planned(Rate)
	tolerance := float64(2*row.size) + 1.5*burst.Seconds()*float64(shape.Rate)/8 + rateShare*float64(shape.Burst)
	asked := fmt.Sprintf("asked a burst of %d bytes", shape.Burst)
	var bursts []float64
	for _, t := range j.of(Rate) {
		n := len(t.arrivals)
		if n < t.frames/2 || (n-1)*t.bytes < j.skip()+2*t.bytes {
			continue
		}
		if _, steady := t.rate(j.skip(), shape); !steady {
			continue
		}
		var meets []float64
		for i := n * 3 / 4; i < n; i++ {
			through := frameRate(shape, t.bytes) / 8 * (t.arrivals[i] - t.arrivals[0]).Seconds()
			meets = append(meets, float64(i*t.bytes)-through)
		}
		bursts = append(bursts, median(meets))
	}
	if len(bursts) == 0 {
		if shape.Burst == 0 {
			return Finding{}
		}
		return Finding{Verdict: Unproven, Detail: asked + ": no train was long enough to tell"}
	}
	measured := median(bursts)
	f := Finding{Detail: fmt.Sprintf("%s, measured %.0f (median of %d trains; permitted ±%.0f)", asked, measured, len(bursts), tolerance)}
	low, high := float64(shape.Burst)-tolerance, float64(shape.Burst)+tolerance
	if shape.Burst == 0 {
		low = math.Inf(-1) // less than none is a late host
	}
	switch {
	case slices.Max(bursts) < low || slices.Min(bursts) > high:
		f.Verdict, f.again = Failed, true
	case measured < low || measured > high:
		f.Verdict, f.again = Unproven, true
		f.Detail += ": the trains disagree, this host is too busy to tell"
	case shape.Burst > 0 && low <= tolerance:
		f.Verdict, f.Detail = Unproven, f.Detail+": so small a burst cannot be told from none"
	case shape.Burst == 0:
		f.Detail = ""
	}
	return f
}

// judgeFree judges a link without a rate: it must keep up with what is sent.
func (j *judge) judgeFree(seen observation, m *Measured) Finding {
	const asked = "asked no limit"
	if seen.overrun {
		return Finding{Verdict: Unproven, Detail: asked + ", this host was too busy to receive all probes"}
	}
	var rates []float64
	kept := 0
	for _, t := range j.trains {
		if len(t.arrivals) < 2 {
			continue
		}
		took := max(t.arrivals[len(t.arrivals)-1]-t.arrivals[0], time.Nanosecond)
		rates = append(rates, 8*float64((len(t.arrivals)-1)*t.bytes)/took.Seconds())
		varies := 2 * spreadOf(j.shape.Jitter)
		if !j.shape.Reorder.IsZero() {
			varies += j.shape.Delay
		}
		if took <= 2*t.sending+freeSlack+varies {
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
func (t train) rate(skip int, shape link.Shape) (bps float64, ok bool) {
	arrivals := t.arrivals
	if !shape.Reorder.IsZero() { // those that were let past the others
		arrivals = slices.DeleteFunc(slices.Clone(arrivals), func(at time.Duration) bool { return at < t.begin+shape.Delay/2 })
	}
	if float64(len(arrivals)) < float64(t.frames)*(1-shape.Loss.Mean())*(1-shape.Reorder.Probability)/2 {
		// Most of it was still under way when listening ended: that is slow, if
		// listening was long.
		return 8 * float64(len(arrivals)*t.bytes) / t.waited.Seconds(),
			t.waited > shape.Delay+2*t.lasts+grace/2
	}
	counted := arrivals[min(skip/t.bytes, max(0, len(arrivals)-2)):]
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
	steady := spread <= max(unsteady, time.Duration(2*steadyShare*float64(middle)))
	return 8 * float64(half*t.bytes) / middle.Seconds(), steady
}

// judgeTrace judges a recorded bottleneck: what came through, between the first and the last frame of each train, is what
// the trace could send in this time.
func (j *judge) judgeTrace(seen observation, m *Measured) Finding {
	asked := fmt.Sprintf("asked a trace of %s on average", bitRate(j.trace.Rate()))
	if seen.armed == 0 {
		return Finding{Verdict: Unproven, Detail: asked + ": it is not known when it began"}
	}
	told, wrong := 0, 0
	var rates []float64
	detail := ""
	for _, t := range j.of(Rate) {
		if len(t.arrivals) < minTrain {
			continue
		}
		first, last := t.arrivals[0]-seen.armed, t.arrivals[len(t.arrivals)-1]-seen.armed
		came := (len(t.arrivals) - 1) * t.bytes
		rates = append(rates, 8*float64(came)/max(last-first, time.Nanosecond).Seconds())
		least := opportunities(j.trace, first+traceSlack, last-traceSlack) - t.bytes
		most := opportunities(j.trace, first-traceSlack, last+traceSlack) + t.bytes
		if float64(most-least) > 2*traceShare*float64(came) {
			continue
		}
		told++
		if came < int((1-rateShare)*float64(least)) || came > int((1+rateShare)*float64(most)) {
			wrong++
			detail = fmt.Sprintf(": a train of %d bytes came through where the trace had room for %d to %d", came, least, most)
		}
	}
	if len(rates) > 0 {
		m.RateBps = median(rates)
	}
	f := Finding{Detail: fmt.Sprintf("%s, measured %s in %d trains", asked, bitRate(m.RateBps), told)}
	switch {
	case told == 0:
		f.Verdict, f.Detail = Unproven, asked+": too few frames come through in the time to tell it"
	case wrong > told/2:
		f.Verdict, f.again = Failed, true
		f.Detail += detail
	}
	return f
}

// opportunities are the bytes that a trace can send after from and until to, since it began.
func opportunities(t *link.Trace, from, to time.Duration) int {
	return (sendable(t, to) - sendable(t, from)) * t.BytesOrDefault()
}

// sendable is how many of its moments have come.
func sendable(t *link.Trace, at time.Duration) int {
	if at < 0 {
		return 0
	}
	n := len(t.Opportunities)
	period := t.Opportunities[n-1]
	rounds := 0
	if !t.Once {
		rounds = int(at / period)
		at %= period
	} else if at >= period {
		return n
	}
	// A round's last moment is the next one's beginning.
	in, _ := slices.BinarySearchFunc(t.Opportunities, at+1, func(o, at time.Duration) int { return int(o - at) })
	return rounds*n + in
}

// longestPause is the longest time in which the trace sends nothing.
func (j *judge) longestPause() time.Duration {
	longest, before := time.Duration(0), time.Duration(0)
	for _, o := range j.trace.Opportunities {
		longest = max(longest, o-before)
		before = o
	}
	return longest
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
