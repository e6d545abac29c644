package verify

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// impaired are shapes with one impairment each, and the same with another value or none of it.
func impaired(mbit uint64) map[string]struct{ asked, wrong link.Direction } {
	base := link.Shape{Delay: 10 * ms}
	type pair = struct{ asked, wrong link.Direction }
	of := func(asked, wrong func(*link.Shape)) pair {
		a, w := base, base
		asked(&a)
		if wrong != nil {
			wrong(&w)
		}
		return pair{link.Direction{Shape: a}, link.Direction{Shape: w}}
	}
	chance := func(p, c float64) link.Chance { return link.Chance{Probability: p, Correlation: c} }
	loss := func(l link.Loss) func(*link.Shape) { return func(s *link.Shape) { s.Loss = l } }
	ge := func(bad, good float64) link.Loss {
		return link.Loss{GilbertElliott: &link.GilbertElliott{ToBad: bad, ToGood: good, BadLoss: 1}}
	}
	four := func(p13, p31 float64) link.Loss {
		return link.Loss{FourState: &link.FourState{P13: p13, P31: p31, P32: 0.2, P23: 0.5, P14: 0.01}}
	}
	jitter := func(j link.Jitter) func(*link.Shape) { return func(s *link.Shape) { s.Jitter = j } }
	rate := func(change func(*link.Shape)) func(*link.Shape) {
		return func(s *link.Shape) {
			s.Rate, s.Queue = 10*mbit, link.Queue{Packets: 200}
			if change != nil {
				change(s)
			}
		}
	}
	short := 3 * mbit // is filled with short frames too
	slow, fast := trace(2*ms), trace(1*ms)
	if mbit < 1e6 {
		slow, fast = trace(8*ms), trace(4*ms)
	}
	web := func(d time.Duration, port uint16) link.Direction {
		return link.Direction{Shape: base, Paths: []link.Path{{Name: "web", Match: link.Match{Protocol: link.TCP, Port: port}, Shape: link.Shape{Delay: d}}}}
	}
	far := func(to string, d time.Duration) link.Direction {
		return link.Direction{Shape: base, Paths: []link.Path{{Name: "far", Match: link.Match{Destination: netip.MustParsePrefix(to)}, Shape: link.Shape{Delay: d}}}}
	}
	return map[string]pair{
		"10% loss":                        of(loss(link.RandomLoss(0.1)), nil),
		"10% loss for 5%":                 of(loss(link.RandomLoss(0.05)), loss(link.RandomLoss(0.1))),
		"loss in crowds":                  of(loss(link.Loss{Chance: chance(0.1, 0.5)}), loss(link.RandomLoss(0.1))),
		"loss where crowds were":          of(loss(link.RandomLoss(0.1)), loss(link.Loss{Chance: chance(0.1, 0.5)})),
		"Gilbert-Elliott":                 of(loss(ge(0.02, 0.18)), loss(link.RandomLoss(0.1))),
		"Gilbert-Elliott, shorter bursts": of(loss(ge(0.02, 0.18)), loss(ge(0.06, 0.54))),
		"four states":                     of(loss(four(0.05, 0.3)), loss(link.RandomLoss(0.12))),
		"four states, other values":       of(loss(four(0.05, 0.3)), loss(four(0.15, 0.3))),
		"the 3rd":                         of(loss(link.Loss{Packets: []uint64{3}}), nil),
		"the 3rd for the 4th":             of(loss(link.Loss{Packets: []uint64{3, 90}}), loss(link.Loss{Packets: []uint64{4, 90}})),
		"every 10th":                      of(loss(link.Loss{Every: 10}), loss(link.Loss{Every: 11})),
		"duplicate":                       of(func(s *link.Shape) { s.Duplicate = chance(0.1, 0) }, nil),
		"duplicate for twice as many":     of(func(s *link.Shape) { s.Duplicate = chance(0.1, 0) }, func(s *link.Shape) { s.Duplicate = chance(0.2, 0) }),
		"corrupt":                         of(func(s *link.Shape) { s.Corrupt = chance(0.1, 0) }, nil),
		"corrupt for half as many":        of(func(s *link.Shape) { s.Corrupt = chance(0.1, 0) }, func(s *link.Shape) { s.Corrupt = chance(0.05, 0) }),
		"reorder":                         of(func(s *link.Shape) { s.Reorder.Chance = chance(0.1, 0) }, nil),
		"reorder for half as many":        of(func(s *link.Shape) { s.Reorder.Chance = chance(0.2, 0) }, func(s *link.Shape) { s.Reorder.Chance = chance(0.1, 0) }),
		"reorder with a gap": of(func(s *link.Shape) { s.Reorder = link.Reorder{Chance: chance(0.5, 0), Gap: 5} },
			func(s *link.Shape) { s.Reorder.Chance = chance(1.0/6, 0) }),
		"jitter":                     of(jitter(link.Jitter{Amount: 6 * ms}), nil),
		"jitter for a third":         of(jitter(link.Jitter{Amount: 6 * ms, Reorder: true}), jitter(link.Jitter{Amount: 2 * ms, Reorder: true})),
		"normal jitter":              of(jitter(link.Jitter{Amount: 3 * ms, Distribution: link.Normal}), nil),
		"jitter that reorders":       of(jitter(link.Jitter{Amount: 5 * ms, Reorder: true}), jitter(link.Jitter{Amount: 5 * ms})),
		"jitter that keeps order":    of(jitter(link.Jitter{Amount: 5 * ms}), jitter(link.Jitter{Amount: 5 * ms, Reorder: true})),
		"jitter where none was":      of(jitter(link.Jitter{}), jitter(link.Jitter{Amount: 5 * ms})),
		"overhead":                   of(rate(func(s *link.Shape) { s.Rate, s.Overhead = short, link.Overhead{Bytes: 24, MinBytes: 84} }), rate(func(s *link.Shape) { s.Rate = short })),
		"ATM":                        of(rate(func(s *link.Shape) { s.Rate, s.Overhead = short, link.Overhead{ATM: true} }), rate(func(s *link.Shape) { s.Rate = short })),
		"burst":                      of(rate(func(s *link.Shape) { s.Burst = 64 << 10 }), rate(nil)),
		"burst for half":             of(rate(func(s *link.Shape) { s.Burst = 64 << 10 }), rate(func(s *link.Shape) { s.Burst = 32 << 10 })),
		"burst where none was":       of(rate(nil), rate(func(s *link.Shape) { s.Burst = 64 << 10 })),
		"down":                       of(func(s *link.Shape) { s.Down = true }, nil),
		"down where it was to be up": of(func(*link.Shape) {}, func(s *link.Shape) { s.Down = true }),
		"a trace":                    {link.Direction{Shape: base, Trace: slow}, link.Direction{Shape: base, Trace: fast}},
		"a path's delay":             {web(30*ms, 443), web(20*ms, 443)},
		"a path's port":              {web(30*ms, 443), web(30*ms, 80)},
		"a path to IPv4":             {far("10.1.0.0/16", 30*ms), far("10.2.0.0/16", 30*ms)},
		"a path to IPv6":             {far("fd01::/16", 30*ms), far("fd02::/16", 30*ms)},
	}
}

// trace sends one full frame each interval.
func trace(interval time.Duration) *link.Trace {
	return &link.Trace{Opportunities: []time.Duration{interval, 2 * interval}}
}

// Each impairment passes where it was asked, and a link that has another value of it, or none, fails. Where
// an engine does not carry one it must say so before anything is built.
func TestEachImpairment(t *testing.T) {
	engines(t, func(t *testing.T, engine func() link.Engine, mbit uint64) {
		for name, pair := range impaired(mbit) {
			t.Run(name, func(t *testing.T) {
				spec, l, err := build(t, engine(), [2]link.Direction{pair.asked, pair.wrong})
				if err != nil && pair.asked.Trace == nil {
					t.Fatal(err)
				}
				if err != nil { // netem has no such bottleneck, and has said so
					return
				}
				spec.Directions[1] = spec.Directions[0]
				options := patient
				options.Counters = func(int) ([2]link.Counters, error) { return l.Counters() }
				options.Rearm = func(int) error { return l.Rearm() }
				report, err := Link(t.Context(), spec, options)
				if err != nil {
					t.Fatal(err)
				}
				log(t, report)
				want := Passed
				if pair.asked.Shape.Down {
					want = Unproven // but for its loss, which has passed
				}
				if got := report.Directions[0].Verdict(); got != want {
					t.Errorf("the direction that is right is %v", got)
				}
				if got := report.Directions[1].Verdict(); got != Failed {
					t.Errorf("the direction that is wrong is %v", got)
				}
			})
		}
	})
}

// build makes a link of two directions between two new nodes, if the engine takes it.
func build(t *testing.T, engine link.Engine, directions [2]link.Direction) (link.Spec, link.Link, error) {
	t.Helper()
	spec := nodes(t)
	for i, d := range directions {
		d.Seed = uint64(i + 1)
		spec.Directions[i] = d.Resolve(20*ms, 1500)
	}
	if err := engine.Check(spec); err != nil {
		return spec, nil, errors.Join(err, engine.Close())
	}
	return spec, made(t, engine, spec), nil
}
