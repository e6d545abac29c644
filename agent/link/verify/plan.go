package verify

import (
	"math"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

const (
	smallFrame = 60 // bytes of a probe for delay and loss: Ethernet's shortest, without its FCS

	maxDelayProbes = 20
	minDelayProbes = 5
	delayTime      = 40 * time.Millisecond // for all delay probes, at least minDelayProbes

	minLossProbes = 400
	maxLossProbes = 8192
	lossTime      = 150 * time.Millisecond // for all loss probes
	lossBurst     = 32                     // probes sent at once
	// lossPace is the least time for a burst: it keeps verification of several
	// links below what one processor's backlog takes (net.core.netdev_max_backlog, 1000).
	lossPace = 300 * time.Microsecond
	// stall is how long an engine in user space may stand still on a busy host
	// without its queue overflowing with the loss probes that came meanwhile.
	stall = 40 * time.Millisecond

	trains        = 3
	trainTime     = 20 * time.Millisecond // that a train is to last behind the bottleneck
	maxTrainTime  = 150 * time.Millisecond
	maxTrain      = 256 // frames; see lossPace
	minTrain      = 8
	freeTrain     = 32 // frames, where no rate was asked
	minTrainFrame = 128

	// burst is what an engine's bottleneck may let through at once after an
	// idle time, beside one frame; see package netem.
	burst = time.Millisecond

	// grace is how much later than asked a probe may be on a busy host before it is
	// counted as lost: short where losses are expected, and waited for, anyway.
	grace       = 250 * time.Millisecond
	lossyGrace  = 40 * time.Millisecond
	trainPause  = time.Millisecond
	minExpected = 500 * time.Microsecond // a train that lasts less tells nothing
)

// schedule is what is sent into one direction, in this order.
type schedule struct {
	delayProbes  int
	delaySpacing time.Duration

	lossProbes  int
	lossBurst   int           // probes at once
	lossSpacing time.Duration // between bursts

	trains     int
	train      int           // frames
	trainFrame int           // bytes of each
	trainLasts time.Duration // behind a bottleneck of the asked rate

	drain time.Duration // from the last frame sent until all have arrived, if the link is right
	grace time.Duration // how much longer to wait for what is missing
}

// newSchedule fits the probes to the shape that was asked: never more than its
// queue holds, and no faster than its rate but in the trains that measure it.
func newSchedule(shape link.Shape, mtu int, falseAlarm float64) schedule {
	s := schedule{trains: trains, grace: grace}
	if shape.Loss.Mean() > 0 {
		s.grace = lossyGrace
	}
	room := queueRoom(shape, smallFrame)

	s.delaySpacing = max(time.Millisecond, 2*shape.Serialization(smallFrame))
	s.delayProbes = min(max(int(delayTime/s.delaySpacing), minDelayProbes), maxDelayProbes)

	s.lossBurst = min(lossBurst, max(1, room/2))
	s.lossSpacing = max(lossPace, 2*shape.Serialization(smallFrame*s.lossBurst), stall*time.Duration(s.lossBurst)/time.Duration(room))
	bursts := max(1, int(lossTime/s.lossSpacing))
	s.lossProbes = min(lossProbes(shape.Loss.Mean(), falseAlarm), bursts*s.lossBurst)

	frame := mtu + link.FrameOverhead
	if shape.Rate == 0 {
		s.train, s.trainFrame = freeTrain, frame
	} else {
		// At a low rate a few full frames would take too long: then shorter ones.
		fits := int(float64(shape.Rate) / 8 * (maxTrainTime / minTrain).Seconds())
		s.trainFrame = min(frame, max(minTrainFrame, fits))
		want := int(math.Ceil(float64(trainTime+burst) / float64(shape.Serialization(s.trainFrame))))
		s.train = min(max(want, minTrain), maxTrain, queueRoom(shape, s.trainFrame))
		s.trainLasts = shape.Serialization(s.train * s.trainFrame)
	}
	s.drain = shape.Delay + s.trainLasts
	return s
}

// lasts is how long it all takes on a link that is right.
func (s schedule) lasts() time.Duration {
	bursts := (s.lossProbes + s.lossBurst - 1) / s.lossBurst
	return time.Duration(s.delayProbes)*s.delaySpacing +
		time.Duration(bursts)*s.lossSpacing +
		time.Duration(s.trains)*(s.trainLasts+trainPause) +
		s.drain
}

// fit leaves out what does not end within the limit, the trains first: what is not
// measured is unproven.
func (s schedule) fit(limit time.Duration) schedule {
	for s.lasts() > limit && s.trains > 0 {
		s.trains--
		if s.trains == 0 {
			s.drain -= s.trainLasts
		}
	}
	for s.lasts() > limit && s.lossProbes > 0 {
		s.lossProbes /= 2
	}
	for s.lasts() > limit && s.delayProbes > 0 {
		s.delayProbes--
	}
	return s
}

// frames is how many frames are sent.
func (s schedule) frames() int { return s.delayProbes + s.lossProbes + s.trains*s.train }

// queueRoom is how many frames of a length a shape's queue holds.
func queueRoom(shape link.Shape, frame int) int {
	switch bytes := shape.QueueBytes(); {
	case bytes > 0:
		return max(1, bytes/frame)
	case shape.Queue.Packets > 0:
		return shape.Queue.Packets
	default:
		return math.MaxInt
	}
}

// lossProbes is how many probes tell a loss of p from none with the given chance of error:
// (1-p)^n ≤ falseAlarm, and half as many again.
func lossProbes(p, falseAlarm float64) int {
	if p <= 0 || p >= 1 {
		return minLossProbes
	}
	n := 1.5 * math.Log(falseAlarm) / math.Log1p(-p)
	return int(min(max(n, minLossProbes), maxLossProbes))
}
