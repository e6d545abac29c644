package link

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Distribution says how a jittered delay is distributed around the delay.
type Distribution string

// The distributions. Amount is half the width of a uniform one and the standard
// deviation of the others.
const (
	Uniform      Distribution = "" // the zero value
	Normal       Distribution = "normal"
	Pareto       Distribution = "pareto"       // shape 3: seldom very late
	ParetoNormal Distribution = "paretonormal" // a quarter normal, three quarters Pareto
	Table        Distribution = "table"        // as Quantiles say
)

// Jitter makes the delay vary from packet to packet. The zero value does not.
type Jitter struct {
	Amount       time.Duration // ≥ 0; 0: no jitter
	Distribution Distribution
	Correlation  float64   // in [0,1), as in [Chance]
	Quantiles    []float64 // of Table: deviations in units of Amount at equally spaced probabilities, not falling, in [-4,4]
	Reorder      bool      // a packet may overtake those before it; else it waits behind them
}

// Spread is how far from the delay a packet's may be, in units of Amount:
// distributions are cut off there (netem's tables hold 16-bit numbers of 1/8192).
const Spread = 4

// IsZero reports whether there is no jitter.
func (j Jitter) IsZero() bool { return j.Amount == 0 }

func (j Jitter) validate() error {
	if j.Amount < 0 {
		return fmt.Errorf("jitter %v is negative", j.Amount)
	}
	var errs []error
	if err := validCorrelation(j.Correlation, j.Amount > 0); err != nil {
		errs = append(errs, fmt.Errorf("jitter: %w", err))
	}
	switch j.Distribution {
	case Uniform, Normal, Pareto, ParetoNormal:
		if len(j.Quantiles) > 0 {
			errs = append(errs, fmt.Errorf("jitter has quantiles, and its distribution is not %s", Table))
		}
	case Table:
		if len(j.Quantiles) < 2 {
			errs = append(errs, errors.New("a table of jitter has at least two quantiles"))
		}
	default:
		errs = append(errs, fmt.Errorf("no distribution of jitter is called %q", j.Distribution))
	}
	if j.Amount == 0 && (j.Distribution != Uniform || j.Reorder) {
		errs = append(errs, errors.New("jitter has no amount"))
	}
	for i, q := range j.Quantiles {
		if math.IsNaN(q) || math.Abs(q) > Spread || i > 0 && q < j.Quantiles[i-1] {
			errs = append(errs, fmt.Errorf("quantiles of jitter do not fall and are between -%d and %d: %v is not", Spread, Spread, q))
			break
		}
	}
	return errors.Join(errs...)
}
