package link

import (
	"errors"
	"fmt"
	"slices"
)

// Loss says which packets are lost: by chance, or by at most one pattern
// instead. The zero value loses none.
type Loss struct {
	Chance                         // independently where Correlation is 0
	GilbertElliott *GilbertElliott // two states
	FourState      *FourState      // four states
	Packets        []uint64        // by number from 1 since the link was re-armed; rising
	Every          uint64          // every nth: the nth, the 2nth, …; 0: none
}

// RandomLoss is an independent loss of probability p in [0,1].
func RandomLoss(p float64) Loss { return Loss{Chance: Chance{Probability: p}} }

// GilbertElliott is a loss of two states (E. O. Elliott, "Estimates of Error
// Rates for Codes on Burst-Noise Channels", 1963). It starts in the good state; with each
// packet it may change its state, and then loses the packet with the state's
// probability. All fields are probabilities in [0,1].
type GilbertElliott struct {
	ToBad    float64 // from good to bad
	ToGood   float64 // from bad to good
	BadLoss  float64 // in the bad state; 1 is the simple Gilbert model
	GoodLoss float64 // in the good state
}

// FourState is a loss of four states (S. Salsano and others, "Definition of a
// general and intuitive loss model for packet networks", 2009): 1 received in
// a gap, 2 received in a burst, 3 lost in a burst, 4 lost alone in a gap. It
// starts in state 1. Fields are probabilities of a change in [0,1]; state 4 always goes back to 1.
type FourState struct {
	P13, P31, P32, P23, P14 float64
}

// IsZero reports whether no packet is ever lost.
func (l Loss) IsZero() bool {
	return l.Probability == 0 && l.GilbertElliott == nil && l.FourState == nil && len(l.Packets) == 0 && l.Every == 0
}

// Random reports whether the loss is independent from packet to packet, so that
// a count of packets tells all about it.
func (l Loss) Random() bool {
	return l.Correlation == 0 && l.GilbertElliott == nil && l.FourState == nil && len(l.Packets) == 0 && l.Every == 0
}

// Mean is the share of packets that are lost in the long run; 0 for listed
// packets.
func (l Loss) Mean() float64 {
	switch {
	case l.GilbertElliott != nil:
		return l.GilbertElliott.Mean()
	case l.FourState != nil:
		return l.FourState.Mean()
	case l.Every > 0:
		return 1 / float64(l.Every)
	}
	return l.Probability
}

// Mean is the stationary loss of the chain.
func (g GilbertElliott) Mean() float64 {
	if g.ToBad == 0 {
		return g.GoodLoss
	}
	bad := g.ToBad / (g.ToBad + g.ToGood)
	return bad*g.BadLoss + (1-bad)*g.GoodLoss
}

// Mean is the stationary share of states 3 and 4.
func (f FourState) Mean() float64 {
	// Balance, with state 1 as the unit: 1·P14 = s4, s2·P23 = s3·P32, 1·P13 = s3·P31.
	if f.P13 == 0 {
		return f.P14 / (1 + f.P14)
	}
	if f.P31 == 0 { // the burst never ends
		if f.P23+f.P32 == 0 {
			return 1
		}
		return f.P23 / (f.P23 + f.P32)
	}
	s3 := f.P13 / f.P31
	s2 := 0.0
	if f.P32 > 0 {
		if f.P23 == 0 { // never back from 2
			return 0
		}
		s2 = s3 * f.P32 / f.P23
	}
	return (s3 + f.P14) / (1 + s2 + s3 + f.P14)
}

func (l Loss) validate() error {
	var errs []error
	if err := l.Chance.validate(); err != nil {
		errs = append(errs, fmt.Errorf("loss: %w", err))
	}
	kinds := 0
	for _, isSet := range []bool{l.Probability > 0, l.GilbertElliott != nil, l.FourState != nil, len(l.Packets) > 0, l.Every > 0} {
		if isSet {
			kinds++
		}
	}
	if kinds > 1 {
		errs = append(errs, errors.New("the loss has more than one kind: give a probability or one pattern"))
	}
	if g := l.GilbertElliott; g != nil {
		errs = append(errs, probabilities("Gilbert-Elliott loss", g.ToBad, g.ToGood, g.BadLoss, g.GoodLoss))
	}
	if f := l.FourState; f != nil {
		errs = append(errs, probabilities("four-state loss", f.P13, f.P31, f.P32, f.P23, f.P14))
		if f.P13+f.P14 > 1 || f.P31+f.P32 > 1 {
			errs = append(errs, errors.New("four-state loss: what leaves a state is more than certain: p13 + p14 and p31 + p32 are at most 1"))
		}
	}
	for i, n := range l.Packets {
		if n == 0 || i > 0 && n <= l.Packets[i-1] {
			errs = append(errs, fmt.Errorf("listed packets are numbered from 1 and rise: %d does not", n))
			break
		}
	}
	return errors.Join(errs...)
}

// probabilities says whether one of them is none.
func probabilities(of string, all ...float64) error {
	if i := slices.IndexFunc(all, func(p float64) bool { return !isProbability(p) }); i >= 0 {
		return fmt.Errorf("%s: %v is not a probability between 0 and 1", of, all[i])
	}
	return nil
}
