package flow

import (
	"context"
	"math"
	"sync"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultWindows are looked at where the lab does not say how many (Steady.windows).
const defaultWindows = 5

// steadiness finds at the server when the goodput of all streams together is steady, by the kernel's
// count of bytes, and then has the server say that it has enough.
type steadiness struct {
	window  time.Duration
	within  float64
	windows int
	streams int

	mu     sync.Mutex
	joined []*stream
	all    chan struct{} // closed when every stream has joined

	// Of watch, once it has returned.
	found     bool
	at        time.Duration // since every stream had joined
	rate      float64       // mean of the last windows, in bit/s
	variation float64       // theirs
}

func newSteadiness(spec *tcplabv1.Steady, streams int) *steadiness {
	s := &steadiness{
		window: spec.GetWindow().AsDuration(), within: spec.GetWithin(), windows: int(spec.GetWindows()),
		streams: streams, all: make(chan struct{}),
	}
	if s.windows == 0 {
		s.windows = defaultWindows
	}
	return s
}

// join adds the server's end of a stream.
func (s *steadiness) join(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joined = append(s.joined, c); len(s.joined) == s.streams {
		close(s.all)
	}
}

// watch looks at the streams from when all have joined until their goodput is steady, one of them has
// ended, or ctx has.
func (s *steadiness) watch(ctx context.Context) {
	select {
	case <-s.all:
	case <-ctx.Done():
		return
	}
	begin := time.Now()
	last, lastBytes := begin, s.received()
	ticker := time.NewTicker(max(1, s.window))
	defer ticker.Stop()
	var rates []float64
	for lastBytes >= 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now, bytes := time.Now(), s.received()
		if bytes < 0 {
			return
		}
		rates = append(rates, float64(bytes-lastBytes)*8/now.Sub(last).Seconds())
		last, lastBytes = now, bytes
		if len(rates) < s.windows {
			continue
		}
		rates = rates[len(rates)-s.windows:]
		mean, variation := meanAndVariation(rates)
		if math.IsInf(variation, 0) {
			continue
		}
		if s.rate, s.variation = mean, variation; variation <= s.within {
			s.found, s.at = true, now.Sub(begin)
			for _, c := range s.joined {
				// An error says that the connection has ended already.
				_ = c.FinishWriting()
			}
			return
		}
	}
}

// received is what all streams have received, as the kernel has counted it; -1 once one has ended.
func (s *steadiness) received() int64 {
	var sum int64
	for _, c := range s.joined {
		info, err := c.Info()
		if err != nil {
			return -1
		}
		sum += int64(info.BytesReceived)
	}
	return sum
}

// meanAndVariation are the mean and the coefficient of variation of a sample: its standard
// deviation, with n-1 degrees of freedom, by its mean; infinite where the mean is 0.
func meanAndVariation(values []float64) (mean, variation float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	var squares float64
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	if mean == 0 {
		return 0, math.Inf(1)
	}
	return mean, math.Sqrt(squares/float64(len(values)-1)) / mean
}
