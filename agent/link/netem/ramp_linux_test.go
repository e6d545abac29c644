package netem

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// A bucket is a frame of 1514 bytes and what the rate does in 1 ms.
func TestRampStepsAreFarEnoughApart(t *testing.T) {
	w := &wire{frame: 1514}
	for _, test := range []struct {
		from, to link.Shape
		want     time.Duration
	}{
		{link.Shape{Rate: 10e6}, link.Shape{Rate: 100e6}, 221_120 * time.Microsecond},
		{link.Shape{Rate: 100e6}, link.Shape{Rate: 10e6}, 221_120 * time.Microsecond},
		{link.Shape{Rate: 10e6, Burst: 12500}, link.Shape{Rate: 100e6}, 1_221_120 * time.Microsecond},
		{link.Shape{Rate: 10e6}, link.Shape{Rate: 10e6, Delay: time.Second}, 0},
		{link.Shape{}, link.Shape{Rate: 10e6}, 0},
		{link.Shape{Rate: 10e6}, link.Shape{}, 0},
	} {
		if got := w.RampStep(test.from, test.to); got.Round(time.Microsecond) != test.want {
			t.Errorf("from %+v to %+v: %v apart, want %v", test.from, test.to, got, test.want)
		}
	}
}
