//go:build !amd64

package fleet

import (
	"errors"
	"time"
)

// SkewClock is for x86-64 alone.
func (f *Fleet) SkewClock(string, time.Duration) error {
	return errors.New("clocks are skewed on x86-64 alone")
}
