package netem

import (
	"errors"
	"math"

	"github.com/tcplab/tcplab/agent/link"
)

// chainOf is a loss with states as netem has it. A chance of 1 becomes one of 1 - 2⁻³², the greatest
// that netem's comparison (rnd < p in loss_4state and loss_gilb_ell) can have.
func chainOf(l link.Loss) chain {
	switch {
	case l.GilbertElliott != nil:
		g := l.GilbertElliott
		return chain{lossGilbertElliott, [5]uint32{share(g.ToBad), share(g.ToGood), ^share(g.BadLoss), share(g.GoodLoss)}}
	case l.FourState != nil:
		f := l.FourState
		p14, p32 := share(f.P14), share(f.P32)
		// Of two ways out of a state netem adds the chances, in 32 bits.
		return chain{lossFourState, [5]uint32{min(share(f.P13), ^p14), min(share(f.P31), ^p32), p32, p14, share(f.P23)}}
	}
	return chain{}
}

// set gives a loss the states, the inverse of chainOf to within 2⁻³².
func (c chain) set(l *link.Loss) {
	switch c.kind {
	case lossGilbertElliott:
		l.GilbertElliott = &link.GilbertElliott{ToBad: part(c.p[0]), ToGood: part(c.p[1]), BadLoss: part(^c.p[2]), GoodLoss: part(c.p[3])}
	case lossFourState:
		l.FourState = &link.FourState{P13: part(c.p[0]), P31: part(c.p[1]), P32: part(c.p[2]), P23: part(c.p[4]), P14: part(c.p[3])}
	}
}

// share is a probability in 2⁻³², at least 1 of them where it is above 0.
func share(p float64) uint32 {
	if p == 0 {
		return 0
	}
	return uint32(max(1, min(math.Round(p*(1<<32)), math.MaxUint32)))
}

// part is the inverse of share.
func part(of uint32) float64 {
	if of == math.MaxUint32 {
		return 1
	}
	return float64(of) / (1 << 32)
}

// checkDuplicate says why netem cannot double a shape's frames.
func checkDuplicate(s link.Shape) error {
	switch {
	case s.Duplicate.Probability == 0:
		return nil
	case len(s.Loss.Packets) > 0 || s.Loss.Every > 0:
		return errors.New("netem puts a copy in at the top of the tree, where it would be counted again: no listed loss beside duplicate; leave one out, or take the wire engine")
	case !s.Loss.IsZero():
		// netem_enqueue: a frame that is both doubled and lost still comes once, and its copy may be lost again.
		return errors.New("netem decides on the copy before the loss, so that a loss would take one of the two: no loss beside duplicate; leave one out, or take the wire engine")
	}
	return nil
}
