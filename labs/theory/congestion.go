package theory

import (
	"math"
	"time"
)

// RenoRate is what one flow of reno gets in bit/s where each packet is lost with the
// probability p, independently:
//
//	8·MSS/R · √(3/2)/√p
//
// √(3/2) is 1.22: an ACK for each segment (Linux counts bytes, so delayed ACKs do not halve it). Valid for small p, up to some
// percent, without timeouts, and below the bottleneck's rate. Mathis, Semke, Mahdavi, Ott: The macroscopic
// behavior of the TCP congestion avoidance algorithm, 1997.
func RenoRate(mss int, rtt time.Duration, p float64) float64 {
	return RenoWindow(p) * segmentRate(mss, rtt)
}

// RenoWindow is the average congestion window of [RenoRate] in segments: √(3/2)/√p.
func RenoWindow(p float64) float64 { return math.Sqrt(1.5 / p) }

// segmentRate is one segment each round trip, in bit/s.
func segmentRate(mss int, rtt time.Duration) float64 { return 8 * float64(mss) / rtt.Seconds() }

// Constants of cubic (RFC 9438, 4.6 and 4.1.1).
const (
	cubicBeta = 0.7
	cubicC    = 0.4 // segments per second³
)

// CubicWindow is the average congestion window of one flow of cubic in segments, as [RenoRate]
// has its losses:
//
//	(C·(3+β)/(4·(1−β)))^(1/4) · R^(3/4)/p^(3/4) = 1.054·(R/p)^(3/4)
//
// and at least that of reno, whose friend it is: √(3/2)/√p. RFC 9438, 5.1 (figure 5) and 4.3.
func CubicWindow(rtt time.Duration, p float64) float64 {
	factor := math.Pow(cubicC*(3+cubicBeta)/(4*(1-cubicBeta)), 0.25)
	return max(factor*math.Pow(rtt.Seconds()/p, 0.75), RenoWindow(p))
}

// CubicRate is what a flow of cubic gets in bit/s: [CubicWindow] segments each round trip.
func CubicRate(mss int, rtt time.Duration, p float64) float64 {
	return CubicWindow(rtt, p) * segmentRate(mss, rtt)
}

// BBRRate is what a flow of bbr gets in bit/s: the bottleneck's rate less what is lost,
//
//	C·(1−p)
//
// since bbr does not take a loss for congestion. Valid for p well below 20%. Cardwell et al.: BBR, 2016.
func BBRRate(rate, p float64) float64 { return rate * (1 - p) }

// QueueDelay is what a packet waits behind a full first-in-first-out queue of so many bytes:
//
//	8·B/C
//
// A flow that only stops growing at a loss keeps such a queue full, or nearly. Gettys and
// Nichols: Bufferbloat, 2011.
func QueueDelay(size int, rate float64) time.Duration { return Serialization(size, rate) }
