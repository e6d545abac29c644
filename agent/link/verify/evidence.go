package verify

import (
	"math"
	"slices"

	"github.com/tcplab/tcplab/agent/link"
)

// Packets that are struck one after another (lost, duplicated, damaged) are judged as
// a whole: how probable is what was seen, if the link is as asked?
//
// A bettor who sees the packets pass predicts each from those before, and knows nothing of what
// was asked. If what was asked is right, the ratio of the bettor's probability of the whole
// sequence to the asked one's exceeds 1/α with a chance of at most α, whenever one looks
// (J. Ville, "Étude critique de la notion de collectif", 1939). So it is a test with an exact bound on
// false alarms, of any model that predicts: of its mean, and of how losses follow one another.

// outcome is what became of a packet.
type outcome uint8

const (
	unknown outcome = iota
	spared
	struck
)

// model predicts what becomes of packets, one after another.
type model interface {
	// strikes is the chance that the next packet is struck.
	strikes() float64
	// saw tells what became of it.
	saw(outcome)
}

// evidence is the logarithm of the ratio by which the bettor is better than the model;
// +Inf where the model holds what was seen for impossible.
func evidence(asked model, seen []outcome) float64 {
	var ratios []float64 // of bettors, each
	if chain, ok := asked.(*hidden); ok {
		ratios = chain.tilted(seen)
	}
	askedLog, bettors := 0.0, newBettors()
	for _, o := range seen {
		if o != unknown {
			askedLog += logChance(asked.strikes(), o)
		}
		asked.saw(o)
		bettors.saw(o)
	}
	if math.IsInf(askedLog, -1) {
		return math.Inf(1)
	}
	ratio := bettors.log() - askedLog
	if len(ratios) > 0 {
		ratio = meanOfLogs([]float64{ratio, meanOfLogs(ratios)})
	}
	return ratio
}

// meanOfLogs is the logarithm of the mean of what the logarithms are of.
func meanOfLogs(logs []float64) float64 {
	most := slices.Max(logs)
	sum := 0.0
	for _, l := range logs {
		sum += math.Exp(l - most)
	}
	return most + math.Log(sum/float64(len(logs)))
}

func logChance(strikes float64, o outcome) float64 {
	if o == struck {
		return math.Log(strikes)
	}
	return math.Log1p(-strikes)
}

// bettors predict by what followed the last 0, 1 or 2 packets so far (the estimator of Krichevsky and
// Trofimov, 1981); together they are as good as the best of them less ln 3.
type bettors struct {
	logs    [3]float64
	counts  [3][4][2]float64 // by bettor, what came last, and what followed
	history uint8
}

func newBettors() *bettors { return &bettors{} }

func (b *bettors) saw(o outcome) {
	if o == unknown {
		return
	}
	bit := uint8(o - spared)
	for i := range b.logs {
		c := &b.counts[i][b.history&(1<<i-1)]
		b.logs[i] += math.Log((c[bit] + 0.5) / (c[0] + c[1] + 1))
		c[bit]++
	}
	b.history = b.history<<1 | bit
}

func (b *bettors) log() float64 {
	return meanOfLogs(b.logs[:])
}

// independent strikes each packet with the same chance.
type independent float64

func (p independent) strikes() float64 { return float64(p) }
func (independent) saw(outcome)        {}

// numbered strikes the packets that it says.
type numbered struct {
	strike func(number uint64) bool
	number uint64 // of the packet before
}

func (n *numbered) strikes() float64 {
	if n.strike(n.number + 1) {
		return 1
	}
	return 0
}

func (n *numbered) saw(outcome) { n.number++ }

// hidden is a Markov chain whose state strikes with a chance of its own after
// each change.
type hidden struct {
	change [][]float64 // from, to
	strike []float64
	belief []float64 // of the state before the next change
	moved  []float64 // after it
}

// newHidden begins in state 0, or after so many packets that the beginning is forgotten.
func newHidden(change [][]float64, strike []float64, forgotten bool) *hidden {
	h := &hidden{change: change, strike: strike, belief: make([]float64, len(strike)), moved: make([]float64, len(strike))}
	h.belief[0] = 1
	h.move()
	if forgotten {
		for range 10_000 {
			h.saw(unknown)
		}
	}
	return h
}

func (h *hidden) move() {
	clear(h.moved)
	for from, b := range h.belief {
		for to, c := range h.change[from] {
			h.moved[to] += b * c
		}
	}
}

func (h *hidden) strikes() float64 {
	p := 0.0
	for state, b := range h.moved {
		p += b * h.strike[state]
	}
	return min(1, p)
}

func (h *hidden) saw(o outcome) {
	total := 0.0
	for state := range h.belief {
		h.belief[state] = h.moved[state]
		switch o {
		case struck:
			h.belief[state] *= h.strike[state]
		case spared:
			h.belief[state] *= 1 - h.strike[state]
		}
		total += h.belief[state]
	}
	for state := range h.belief {
		if total > 0 {
			h.belief[state] /= total
		} else {
			h.belief[state] = h.moved[state] // impossible, and told so
		}
	}
	h.move()
}

// tilted are the logarithms of other ratios whose mean is 1 if the chain is right: of how many were struck,
// e^(s·number) to what it is on average, for some s (H. Cramér, 1938). They tell a wrong mean where bursts
// are so long that the bettors, who remember two packets, take them for chance.
func (h *hidden) tilted(seen []outcome) []float64 {
	tilts := []float64{-2, -1, -0.5, -0.25, -0.12, -0.06, 0.06, 0.12, 0.25, 0.5, 1, 2}
	logs := make([]float64, len(tilts))
	for i, tilt := range tilts {
		number, mean := 0.0, 0.0 // mean is the logarithm of that of e^(tilt·number)
		chain := &hidden{change: h.change, strike: h.strike, belief: slices.Clone(h.belief), moved: slices.Clone(h.moved)}
		for _, o := range seen {
			weight := math.Exp(tilt)
			if o == unknown {
				weight = 1
			}
			if o == struck {
				number++
			}
			total := 0.0
			for state := range chain.belief {
				chain.belief[state] = chain.moved[state] * (1 + chain.strike[state]*(weight-1))
				total += chain.belief[state]
			}
			for state := range chain.belief {
				chain.belief[state] /= total
			}
			mean += math.Log(total)
			chain.move()
		}
		logs[i] = tilt*number - mean
	}
	return logs
}

func gilbertElliott(g link.GilbertElliott, forgotten bool) *hidden {
	return newHidden([][]float64{{1 - g.ToBad, g.ToBad}, {g.ToGood, 1 - g.ToGood}}, []float64{g.GoodLoss, g.BadLoss}, forgotten)
}

func fourState(f link.FourState, forgotten bool) *hidden {
	return newHidden([][]float64{
		{1 - f.P13 - f.P14, 0, f.P13, f.P14},
		{0, 1 - f.P23, f.P23, 0},
		{f.P31, f.P32, 1 - f.P31 - f.P32, 0},
		{1, 0, 0, 0},
	}, []float64{0, 0, 1, 1}, forgotten)
}

// gapped is a chance that only packets have that come gap or more behind the one struck before.
func gapped(p float64, gap int, forgotten bool) *hidden {
	// States: struck, and 1 to gap-1 packets behind it; one that is gap-1 or more behind may be followed by
	// a strike. A chain begins as after a strike (kernel: counter = 0 in netem_init).
	change := make([][]float64, gap+1)
	strike := make([]float64, gap+1)
	strike[gap] = 1 // the last state is struck; state i: i packets since
	for i := range change {
		change[i] = make([]float64, gap+1)
	}
	for i := range gap {
		if i < gap-1 {
			change[i][i+1] = 1
		} else {
			change[i][gap] = p
			change[i][i] = 1 - p
		}
	}
	copy(change[gap], change[0])
	return newHidden(change, strike, forgotten)
}

// correlated is a chance of which each draw remembers the one before:
// draw = (1-c)·random + c·draw before, and strikes below the threshold. It keeps how probable
// each draw is, in cells whose borders the threshold is among.
type correlated struct {
	c         float64
	threshold float64
	next      []float64 // probabilities of the next draw, by cell
}

const cellsEachSide = 64

// newCorrelated begins with the draws of the long run.
func newCorrelated(chance link.Chance) *correlated {
	m := &correlated{c: chance.Correlation, threshold: chance.Threshold(), next: make([]float64, 2*cellsEachSide)}
	for i := range m.next {
		from, to := m.border(i), m.border(i+1)
		m.next[i] = to - from
	}
	for range 200 {
		m.saw(unknown)
	}
	return m
}

// border is where cell i begins.
func (m *correlated) border(i int) float64 {
	if i <= cellsEachSide {
		return m.threshold * float64(i) / cellsEachSide
	}
	return m.threshold + (1-m.threshold)*float64(i-cellsEachSide)/cellsEachSide
}

func (m *correlated) strikes() float64 {
	p := 0.0
	for _, b := range m.next[:cellsEachSide] {
		p += b
	}
	return min(1, p)
}

func (m *correlated) saw(o outcome) {
	// What the draw was.
	last := m.next
	total := 0.0
	for i, b := range last {
		if o == struck && i >= cellsEachSide || o == spared && i < cellsEachSide {
			b = 0
		}
		last[i] = b
		total += b
	}
	if total == 0 {
		return
	}
	// What the next will be: the draw times c, and evenly up to 1-c more. The distribution function is
	// F'(y) = ∫ (G(y/c) - ...) over the random part; with G's integral it is a difference.
	cumulated := make([]float64, len(last)+1) // G at the borders
	integral := make([]float64, len(last)+1)  // of G
	for i, b := range last {
		cumulated[i+1] = cumulated[i] + b/total
		integral[i+1] = integral[i] + (cumulated[i]+cumulated[i+1])/2*(m.border(i+1)-m.border(i))
	}
	// at is ∫ G from 0 to x.
	at := func(x float64) float64 {
		switch {
		case x <= 0:
			return 0
		case x >= 1:
			return integral[len(last)] + (x - 1)
		}
		var i int
		if x < m.threshold {
			i = min(cellsEachSide-1, int(x/m.threshold*cellsEachSide))
		} else {
			i = cellsEachSide + min(cellsEachSide-1, int((x-m.threshold)/(1-m.threshold)*cellsEachSide))
		}
		width := m.border(i+1) - m.border(i)
		into := x - m.border(i)
		slope := (cumulated[i+1] - cumulated[i]) / width
		return integral[i] + cumulated[i]*into + slope*into*into/2
	}
	// P(next ≤ y) = (1/(1-c)) ∫ G((y-r)/c) dr for r in [0,1-c] = c/(1-c)·(at(y/c) - at((y-(1-c))/c)).
	below := func(y float64) float64 { return m.c / (1 - m.c) * (at(y/m.c) - at((y-1+m.c)/m.c)) }
	before := 0.0
	next := make([]float64, len(last))
	for i := range next {
		until := below(m.border(i + 1))
		next[i] = max(0, until-before)
		before = until
	}
	m.next = next
}

// lossModel predicts a loss. forgotten says that it is not known with which packet it began.
func lossModel(l link.Loss, forgotten bool) model {
	switch {
	case l.GilbertElliott != nil:
		return gilbertElliott(*l.GilbertElliott, forgotten)
	case l.FourState != nil:
		return fourState(*l.FourState, forgotten)
	case len(l.Packets) > 0:
		listed := make(map[uint64]bool, len(l.Packets))
		for _, n := range l.Packets {
			listed[n] = true
		}
		return &numbered{strike: func(n uint64) bool { return listed[n] }}
	case l.Every > 0:
		return &numbered{strike: func(n uint64) bool { return n%l.Every == 0 }}
	}
	return chanceModel(l.Chance)
}

func chanceModel(c link.Chance) model {
	if c.Correlation > 0 && c.Probability > 0 && c.Probability < 1 {
		return newCorrelated(c)
	}
	return independent(c.Probability)
}
