package verify

import (
	"math"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	smallFrame = 60 // bytes of a probe for delay and counts: Ethernet's shortest, without its FCS

	maxDelayProbes = 20
	minDelayProbes = 5                      // of each kind of packet
	delayTime      = 40 * time.Millisecond  // for all delay probes, at least minDelayProbes
	jitterTime     = 500 * time.Millisecond // for all delay probes, where they tell a distribution
	jitterProbes   = 400

	minCount    = 400
	maxCount    = 16384
	chanceCount = 8192                   // probes that tell one chance or pattern from another
	countTime   = 150 * time.Millisecond // for all counted probes
	countBurst  = 32                     // probes sent at once
	// countPace is the least time for a burst: it keeps verification of several
	// links below what one processor's backlog takes (net.core.netdev_max_backlog, 1000).
	countPace = 300 * time.Microsecond
	// stall is how long an engine in user space may stand still on a busy host
	// without its queue overflowing with the probes that came meanwhile.
	stall = 40 * time.Millisecond

	trains        = 3
	trainTime     = 20 * time.Millisecond // that a train is to last behind the bottleneck
	maxTrainTime  = 150 * time.Millisecond
	maxTrain      = 256 // frames; see countPace
	minTrain      = 8
	freeTrain     = 32 // frames, where no rate was asked
	minTrainFrame = 128
	// shortPace is how many short frames in a second a busy host still sends: what tells an overhead.
	shortPace = 60_000

	// burst is what an engine's bottleneck may let through at once after an
	// idle time, beside one frame; see package netem.
	burst = time.Millisecond

	// What is enough where nothing disturbs (Options.Still).
	stillCount     = 64
	stillTrains    = 1
	stillTrainTime = 5 * time.Millisecond

	// grace is how much later than asked a probe may be on a busy host before it is
	// counted as lost: short where losses are expected, and waited for, anyway.
	grace       = 250 * time.Millisecond
	lossyGrace  = 40 * time.Millisecond
	trainPause  = time.Millisecond
	minExpected = 500 * time.Microsecond // a train that lasts less tells nothing
)

// plan is what is sent into one stream, in this order.
type plan struct {
	small        int // bytes of a probe that is in no train
	delayProbes  int
	delaySpacing time.Duration

	counted      int           // probes
	countBurst   int           // probes at once
	countSpacing time.Duration // between bursts

	trains []trainPlan
	pause  time.Duration // behind a train, beside the time that it lasts

	drain time.Duration // from the last frame sent until all have arrived, if the link is right
	grace time.Duration // how much longer to wait for what is missing
}

// trainPlan is a row of frames to be sent at once.
type trainPlan struct {
	tells  Quantity // Rate or Overhead
	frames int
	size   int           // bytes of each
	lasts  time.Duration // behind a bottleneck of the asked rate
}

// subject is a stream as it is to be measured.
type subject struct {
	path   string
	shape  link.Shape
	trace  *link.Trace
	kinds  []packet
	hidden error // why no packet can come to it
	mtu    int
	others int // streams that are measured beside it
	still  bool
}

// subjects are a direction's streams: its own, then its paths.
func subjects(d link.Direction, mtu int, still bool) []subject {
	var all []subject
	for i := -1; i < len(d.Paths); i++ {
		s := subject{shape: d.Shape, trace: d.Trace, mtu: mtu, others: len(d.Paths), still: still}
		if i >= 0 {
			s.path, s.shape, s.trace = d.Paths[i].Name, d.Paths[i].Shape, nil
		}
		s.kinds, s.hidden = packetsOf(d, i)
		all = append(all, s)
	}
	return all
}

// newPlan fits the probes to what was asked: never more than the
// queue holds, and no faster than the rate but in the trains that measure it.
// A limit above a second leaves more time for what needs it.
func newPlan(s subject, limit time.Duration, falseAlarm float64) plan {
	shape := s.shape
	p := plan{small: smallFrame, countBurst: 1, grace: grace, pause: trainPause}
	if s.hidden != nil {
		return p
	}
	for _, k := range s.kinds {
		p.small = max(p.small, k.smallest())
	}
	more := max(1, limit.Seconds()*0.7)
	times := func(d time.Duration) time.Duration { return time.Duration(more * float64(d)) }
	if shape.Loss.Mean() > 0 || len(shape.Loss.Packets) > 0 {
		p.grace = lossyGrace
	}
	room := queueRoom(shape, p.small)
	serial := shape.Serialization(p.small)
	if s.trace != nil {
		serial = time.Duration(8e9 * float64(p.small) / s.trace.Rate())
	}

	kinds := max(1, len(s.kinds))
	p.delaySpacing = max(time.Millisecond, 2*serial)
	if shape.Jitter.IsZero() {
		p.delayProbes = max(min(max(int(delayTime/p.delaySpacing), minDelayProbes), maxDelayProbes), minDelayProbes*kinds)
		if s.still {
			p.delayProbes = minDelayProbes * kinds
		}
	} else {
		if !shape.Jitter.Reorder {
			// Where packets wait behind one another, only spaced ones tell the distribution.
			p.delaySpacing = max(p.delaySpacing, min(shape.Jitter.Amount/2, times(5*time.Millisecond)))
		}
		p.delayProbes = max(minDelayProbes*kinds, min(int(times(jitterTime)/p.delaySpacing), int(more*jitterProbes)))
	}

	p.countBurst = min(countBurst, max(1, room/2))
	p.countSpacing = max(countPace*time.Duration(1+s.others), 2*serial*time.Duration(p.countBurst), stall*time.Duration(p.countBurst)/time.Duration(room))
	bursts := max(1, int(times(countTime)/p.countSpacing))
	p.counted = min(needed(shape, falseAlarm, int(more*maxCount)), bursts*p.countBurst)
	if s.still && p.counted <= minCount {
		p.counted = min(p.counted, stillCount) // chance decides nothing
	}

	p.trains, p.pause = newTrains(s, more, p.small)
	spread := spreadOf(shape.Jitter)
	p.drain = shape.Delay + spread
	for _, t := range p.trains {
		p.drain = max(p.drain, shape.Delay+spread+t.lasts)
	}
	return p
}

// spreadOf is how much longer than the delay a jittered one is at most.
func spreadOf(j link.Jitter) time.Duration {
	if j.Distribution == link.Uniform {
		return j.Amount
	}
	return link.Spread * j.Amount
}

func newTrains(s subject, more float64, small int) ([]trainPlan, time.Duration) {
	shape, frame := s.shape, s.mtu+link.FrameOverhead
	if shape.Down {
		return nil, trainPause
	}
	longest := time.Duration(more * float64(maxTrainTime))
	times, lasting := trains, trainTime
	if s.still {
		times, lasting = stillTrains, stillTrainTime
	}
	repeat := func(t trainPlan) []trainPlan { return slices.Repeat([]trainPlan{t}, times) }
	if s.trace != nil {
		t := trainPlan{tells: Rate, size: frame}
		rate := s.trace.Rate()
		want := int(rate / 8 * longest.Seconds() / float64(frame))
		t.frames = min(max(want, minTrain), maxTrain, queueRoom(shape, frame))
		t.lasts = time.Duration(8e9 * float64(t.frames*frame) / rate)
		return repeat(t), trainPause
	}
	if shape.Rate == 0 {
		return repeat(trainPlan{tells: Rate, size: frame, frames: freeTrain}), trainPause
	}
	row := func(tells Quantity, size int) trainPlan {
		t := trainPlan{tells: tells, size: size}
		serial := float64(shape.Serialization(size))
		// Jitter tears a train apart at its head.
		lasts := lasting + burst + min(8*shape.Jitter.Amount, longest)
		if tells == Overhead {
			// Of short frames more pass at once, and each late timer is a greater part of what is read.
			lasts += 2 * lasting
		}
		// An idle bottleneck lets its burst and a full frame through at once.
		want := max(minTrain, int(math.Ceil(float64(lasts)/serial))) + (shape.Burst+frame)/size
		t.frames = min(want, maxTrain, queueRoom(shape, size)+shape.Burst/size)
		t.lasts = time.Duration(float64(t.frames) * serial)
		return t
	}
	// At a low rate a few full frames would take too long: then shorter ones.
	fits := int(float64(shape.Rate) / 8 * (longest / minTrain).Seconds())
	all := repeat(row(Rate, min(frame, max(minTrainFrame, small, fits))))
	if shape.Overhead != (link.Overhead{}) {
		short := max(small, int(float64(shape.Rate)/8/shortPace))
		all = append(all, repeat(row(Overhead, min(frame, short)))...)
	}
	// The bucket fills again between trains.
	return all, trainPause + time.Duration(8e9*float64(shape.Burst)/float64(shape.Rate))
}

// lasts is how long it all takes on a link that is right.
func (p plan) lasts() time.Duration {
	bursts := (p.counted + p.countBurst - 1) / p.countBurst
	all := time.Duration(p.delayProbes)*p.delaySpacing + time.Duration(bursts)*p.countSpacing + p.drain
	for _, t := range p.trains {
		all += t.lasts + p.pause
	}
	return all
}

// fit leaves out what does not end within the limit, the trains first: what is not
// measured is unproven.
func (p plan) fit(limit time.Duration) plan {
	for p.lasts() > limit && len(p.trains) > 0 {
		last := p.trains[len(p.trains)-1]
		p.trains = p.trains[:len(p.trains)-1]
		if len(p.trains) == 0 {
			p.drain -= last.lasts
		}
	}
	for p.lasts() > limit && p.counted > 0 {
		p.counted /= 2
	}
	for p.lasts() > limit && p.delayProbes > 0 {
		p.delayProbes--
	}
	return p
}

// frames is how many frames are sent.
func (p plan) frames() int {
	n := p.delayProbes + p.counted
	for _, t := range p.trains {
		n += t.frames
	}
	return n
}

// queueRoom is how many frames of a length a shape's queue holds.
func queueRoom(shape link.Shape, frame int) int {
	switch bytes := shape.QueueBytes(); {
	case bytes > 0:
		return max(1, bytes/frame)
	case shape.Queue.Packets > 0:
		return shape.Queue.Packets
	default:
		return math.MaxInt32
	}
}

// needed is how many probes tell all that chance decides in the shape from its absence, at most so many.
func needed(shape link.Shape, falseAlarm float64, most int) int {
	n := float64(minCount)
	chance := func(p, share float64) {
		if p > 0 && p < 1 {
			// (1-p)^n ≤ falseAlarm, and half as many again.
			n = max(n, 1.5*math.Log(falseAlarm)/math.Log1p(-p)/share)
		}
	}
	l := shape.Loss
	arrives := max(0.05, 1-l.Mean())
	chance(l.Mean(), 1)
	chance(shape.Duplicate.Probability, arrives)
	chance(shape.Corrupt.Probability, arrives)
	chance(shape.Reorder.Probability/float64(max(1, shape.Reorder.Gap)), arrives)
	if !l.Random() || l.Probability+shape.Duplicate.Probability+shape.Corrupt.Probability+shape.Reorder.Probability > 0 {
		n = max(n, chanceCount)
	}
	if len(l.Packets) > 0 {
		n = max(n, float64(l.Packets[len(l.Packets)-1])+minDelayProbes)
	}
	n = max(n, 3*float64(l.Every))
	return int(min(n, float64(most)))
}
