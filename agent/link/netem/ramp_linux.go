package netem

import (
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// rampExcess is what the changes of a ramp may let out beyond its rates, as a share.
const rampExcess = 0.01

// RampStep is how far apart the changes of a ramp between two shapes must be. A change
// of the rate fills the bucket of a tbf anew (tbf_change in net/sched/sch_tbf.c), and what it
// lets out at once is to be 1% of what the rate does until the next.
func (w *wire) RampStep(from, to link.Shape) time.Duration {
	if from.Rate == to.Rate || from.Rate == 0 || to.Rate == 0 {
		return 0
	}
	slowest := min(from.Rate, to.Rate)
	bucket := float64(base(slowest, w.frame)) + float64(max(from.Burst, to.Burst))
	return time.Duration(bucket * 8 / float64(slowest) / rampExcess * float64(time.Second))
}
