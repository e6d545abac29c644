package wire

import (
	"math/rand/v2"
	"slices"

	"github.com/tcplab/tcplab/agent/link"
)

// losses says which frames are lost, one after another.
type losses struct {
	asked     link.Loss
	byChance  bool
	alone     bool    // by chance, and each frame for itself
	threshold float64 // of that
	draw

	number uint64 // of the frame, from 1
	listed int    // how many of the listed packets have come
	state  int    // of a chain
}

// newLosses is a loss before its first restart.
func newLosses(l link.Loss) losses {
	byChance := l.GilbertElliott == nil && l.FourState == nil && len(l.Packets) == 0 && l.Every == 0
	return losses{
		asked: l, threshold: l.Threshold(),
		byChance: byChance, alone: byChance && l.Correlation == 0,
	}
}

// States of the chains.
const (
	good = iota // Gilbert-Elliott; the first of all
	bad
)

const (
	receivedInGap = iota // four states; the first of all
	receivedInBurst
	lostInBurst
	lostInGap
)

// restart begins anew: with the first frame, and chains in their first state.
func (l *losses) restart(random rand.PCG) {
	l.draw.restart(random, l.asked.Correlation)
	l.number, l.listed, l.state = 0, 0, 0
}

// adopt takes over another loss. Draws and numbers go on, and so does a chain of
// the same kind; another begins in its first state.
func (l *losses) adopt(next losses) {
	if (l.asked.GilbertElliott == nil) != (next.asked.GilbertElliott == nil) || (l.asked.FourState == nil) != (next.asked.FourState == nil) {
		l.state = 0
	}
	l.asked, l.byChance, l.alone = next.asked, next.byChance, next.alone
	l.threshold, l.correlation = next.threshold, next.asked.Correlation
	l.listed, _ = slices.BinarySearch(l.asked.Packets, l.number+1)
}

// strikes reports whether the next frame is lost.
//
// Of independent losses the i-th frame is lost where the generator's i-th Float64 is
// below the probability, whatever the loss was before: the same seed loses the same frames, and a
// greater probability loses those and more.
func (l *losses) strikes() bool {
	l.number++
	if l.alone {
		return l.uniform() < l.threshold
	}
	return l.pattern()
}

func (l *losses) pattern() bool {
	switch {
	case l.byChance:
		return l.next() < l.threshold
	case l.asked.GilbertElliott != nil:
		return l.gilbertElliott(l.asked.GilbertElliott)
	case l.asked.FourState != nil:
		return l.fourState(l.asked.FourState)
	case l.asked.Every > 0:
		return l.number%l.asked.Every == 0
	}
	if l.listed < len(l.asked.Packets) && l.asked.Packets[l.listed] == l.number {
		l.listed++
		return true
	}
	return false
}

// gilbertElliott changes the state, if it does, and then loses by the new state. It takes two
// draws for each frame.
func (l *losses) gilbertElliott(g *link.GilbertElliott) bool {
	leave, lose := g.ToBad, g.GoodLoss
	if l.state == bad {
		leave = g.ToGood
	}
	if l.uniform() < leave {
		l.state = bad - l.state
	}
	if l.state == bad {
		lose = g.BadLoss
	}
	return l.uniform() < lose
}

// fourState goes to the next state, which says whether the frame is lost.
func (l *losses) fourState(f *link.FourState) bool {
	u := l.uniform()
	switch l.state {
	case receivedInGap:
		switch {
		case u < f.P14:
			l.state = lostInGap
		case u < f.P14+f.P13:
			l.state = lostInBurst
		}
	case receivedInBurst:
		if u < f.P23 {
			l.state = lostInBurst
		}
	case lostInBurst:
		switch {
		case u < f.P32:
			l.state = receivedInBurst
		case u < f.P32+f.P31:
			l.state = receivedInGap
		}
	case lostInGap:
		l.state = receivedInGap
	}
	return l.state == lostInBurst || l.state == lostInGap
}
