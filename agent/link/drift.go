package link

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Resolution is how finely an engine sets what it is asked for: what is read back may
// be off by so much and is still as asked. The zero value is exactness.
type Resolution struct {
	Rate        uint64        // bit/s
	Time        time.Duration // of delay, jitter, target and interval
	Probability float64       // of probabilities and correlations, absolute
	Bytes       int           // of burst, queue and thresholds
	Deviation   float64       // of quantiles of jitter, in units of its amount
}

// Drift is what is not in force as it was asked, in words with both figures, by the
// name of the path that it is about; empty for the direction's own shape, and for what is there that
// was not asked. A queue given as a time is as well in force as one of as many bytes, and a
// default is as good as its value. Schedule and seed are not compared.
func (d Direction) Drift(applied Direction, r Resolution) map[string][]string {
	drift := map[string][]string{}
	add := func(path string, words ...string) {
		if len(words) > 0 {
			drift[path] = append(drift[path], words...)
		}
	}
	add("", d.Shape.Drift(applied.Shape, r)...)
	add("", traceDrift(d.Trace, applied.Trace)...)
	for i, asked := range d.Paths {
		at := slices.IndexFunc(applied.Paths, func(p Path) bool { return p.Name == asked.Name })
		if at < 0 {
			add(asked.Name, "the path was asked for and is not in force")
			continue
		}
		got := applied.Paths[at]
		if at != i {
			add(asked.Name, fmt.Sprintf("place among the paths: %d was asked, %d is in force", i+1, at+1))
		}
		if got.Match != asked.Match {
			add(asked.Name, differs("match", asked.Match, got.Match))
		}
		add(asked.Name, asked.Shape.Drift(got.Shape, r)...)
	}
	for _, got := range applied.Paths {
		if d.ShapeOf(got.Name) == nil {
			add("", fmt.Sprintf("a path %s is in force and was not asked for", got.Name))
		}
	}
	return drift
}

// String is the match as people say it.
func (m Match) String() string {
	text := ""
	if m.Destination.IsValid() {
		text += " to " + m.Destination.String()
	}
	if m.Protocol != AnyProtocol {
		text += " " + string(m.Protocol)
	}
	if m.Port != 0 {
		text += fmt.Sprintf(" port %d", m.Port)
	}
	if text == "" {
		return "anything"
	}
	return text[1:]
}

func traceDrift(asked, got *Trace) []string {
	if (asked == nil) != (got == nil) {
		return []string{differs("trace", presence(asked != nil), presence(got != nil))}
	}
	if asked == nil {
		return nil
	}
	var drift []string
	if a, g := asked.BytesOrDefault(), got.BytesOrDefault(); a != g {
		drift = append(drift, differs("bytes of an opportunity of the trace", a, g))
	}
	if asked.Once != got.Once {
		drift = append(drift, differs("trace followed once", asked.Once, got.Once))
	}
	if a, g := asked.Opportunities, got.Opportunities; len(a) != len(g) {
		drift = append(drift, differs("opportunities of the trace", len(a), len(g)))
	} else if !slices.Equal(a, g) {
		for i := range a {
			if a[i] != g[i] {
				drift = append(drift, differs(fmt.Sprintf("opportunity %d of the trace", i+1), a[i], g[i]))
				break
			}
		}
	}
	return drift
}

// Drift is what of the shape is not in force as it was asked, in words with both figures.
func (s Shape) Drift(applied Shape, r Resolution) []string {
	c := comparison{Resolution: r}
	if apart(s.Rate, applied.Rate) > r.Rate || (s.Rate == 0) != (applied.Rate == 0) {
		c.add("rate", rate(s.Rate), rate(applied.Rate))
	}
	exactly(&c, "overhead in bytes", s.Overhead.Bytes, applied.Overhead.Bytes)
	exactly(&c, "least cost of a packet in bytes", s.Overhead.MinBytes, applied.Overhead.MinBytes)
	exactly(&c, "ATM cells", s.Overhead.ATM, applied.Overhead.ATM)
	c.bytes("burst", s.Burst, applied.Burst)
	c.time("delay", s.Delay, applied.Delay)
	c.jitter(s.Jitter, applied.Jitter)
	c.chance("reorder", s.Reorder.Chance, applied.Reorder.Chance)
	exactly(&c, "reorder gap", max(1, s.Reorder.Gap), max(1, applied.Reorder.Gap))
	c.loss(s.Loss, applied.Loss)
	c.chance("duplicate", s.Duplicate, applied.Duplicate)
	c.chance("corrupt", s.Corrupt, applied.Corrupt)
	exactly(&c, "down", s.Down, applied.Down)
	c.queue(s, applied)
	return c.drift
}

// comparison gathers what differs.
type comparison struct {
	Resolution
	drift []string
}

func (c *comparison) add(what string, asked, got any) {
	c.drift = append(c.drift, differs(what, asked, got))
}

func differs(what string, asked, got any) string {
	return fmt.Sprintf("%s: %v was asked, %v is in force", what, asked, got)
}

func exactly[T comparable](c *comparison, what string, asked, got T) {
	if asked != got {
		c.add(what, asked, got)
	}
}

func (c *comparison) time(what string, asked, got time.Duration) {
	if (asked - got).Abs() > c.Time {
		c.add(what, asked, got)
	}
}

func (c *comparison) bytes(what string, asked, got int) {
	if max(asked-got, got-asked) > c.Bytes {
		c.add(what+" in bytes", asked, got)
	}
}

// probability is not in force where it is 0 and was not to be, however small.
func (c *comparison) probability(what string, asked, got float64) {
	if !(math.Abs(asked-got) <= c.Probability) || (asked == 0) != (got == 0) {
		c.add(what, asked, got)
	}
}

func (c *comparison) chance(what string, asked, got Chance) {
	c.probability(what+" probability", asked.Probability, got.Probability)
	c.probability(what+" correlation", asked.Correlation, got.Correlation)
}

func (c *comparison) jitter(asked, got Jitter) {
	c.time("jitter", asked.Amount, got.Amount)
	if asked.Distribution != got.Distribution {
		c.add("distribution of jitter", asked.Distribution, got.Distribution)
	} else if len(asked.Quantiles) != len(got.Quantiles) {
		c.add("quantiles of jitter", len(asked.Quantiles), len(got.Quantiles))
	} else {
		for i, q := range asked.Quantiles {
			if math.Abs(q-got.Quantiles[i]) > c.Deviation {
				c.add(fmt.Sprintf("quantile %d of jitter", i+1), q, got.Quantiles[i])
				break
			}
		}
	}
	c.probability("correlation of jitter", asked.Correlation, got.Correlation)
	exactly(c, "reordering by jitter", asked.Reorder, got.Reorder)
}

// String is the distribution's name; "uniform" for the zero value.
func (d Distribution) String() string {
	if d == Uniform {
		return "uniform"
	}
	return string(d)
}

func (c *comparison) loss(asked, got Loss) {
	c.chance("loss", asked.Chance, got.Chance)
	if a, g := asked.GilbertElliott, got.GilbertElliott; (a == nil) != (g == nil) {
		c.add("Gilbert-Elliott loss", presence(a != nil), presence(g != nil))
	} else if a != nil {
		c.probability("Gilbert-Elliott loss, to bad", a.ToBad, g.ToBad)
		c.probability("Gilbert-Elliott loss, to good", a.ToGood, g.ToGood)
		c.probability("Gilbert-Elliott loss, bad loss", a.BadLoss, g.BadLoss)
		c.probability("Gilbert-Elliott loss, good loss", a.GoodLoss, g.GoodLoss)
	}
	if a, g := asked.FourState, got.FourState; (a == nil) != (g == nil) {
		c.add("four-state loss", presence(a != nil), presence(g != nil))
	} else if a != nil {
		c.probability("four-state loss, p13", a.P13, g.P13)
		c.probability("four-state loss, p31", a.P31, g.P31)
		c.probability("four-state loss, p32", a.P32, g.P32)
		c.probability("four-state loss, p23", a.P23, g.P23)
		c.probability("four-state loss, p14", a.P14, g.P14)
	}
	if !slices.Equal(asked.Packets, got.Packets) {
		c.add("lost packets", few(asked.Packets), few(got.Packets))
	}
	exactly(c, "every nth packet lost", asked.Every, got.Every)
}

func (c *comparison) queue(s, applied Shape) {
	asked, got := s.Queue, applied.Queue
	exactly(c, "queue in packets", asked.Packets, got.Packets)
	if a, g := s.QueueBytes(), applied.QueueBytes(); max(a-g, g-a) > c.Bytes {
		c.add("queue", limit(asked, a), limit(got, g))
	}
	if asked.Discipline != got.Discipline {
		c.add("queue discipline", asked.Discipline, got.Discipline)
		return // what follows is of the discipline
	}
	exactly(c, "marking", asked.ECN, got.ECN)
	switch asked.Discipline {
	case CoDel, FQCoDel:
		c.time("target", asked.TargetOrDefault(), got.TargetOrDefault())
		c.time("interval", asked.IntervalOrDefault(), got.IntervalOrDefault())
	case PIE:
		c.time("target", asked.TargetOrDefault(), got.TargetOrDefault())
	case CAKE:
		c.time("round trip of cake", asked.IntervalOrDefault(), got.IntervalOrDefault())
	case RED:
		// A default depends on the limit, which may be of packets: it is the engine's then.
		if asked.RED.MinBytes > 0 {
			c.bytes("least threshold of red", asked.RED.MinBytes, got.RED.MinBytes)
		}
		if asked.RED.MaxBytes > 0 {
			c.bytes("greatest threshold of red", asked.RED.MaxBytes, got.RED.MaxBytes)
		}
		if asked.RED.Probability > 0 {
			c.probability("probability of red", asked.RED.Probability, got.RED.Probability)
		}
	}
}

// limit is a queue's limit of bytes as it was given.
func limit(q Queue, bytes int) string {
	if q.Time > 0 {
		return fmt.Sprintf("%v (%d bytes)", q.Time, bytes)
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func rate(bps uint64) string {
	if bps == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%d bit/s", bps)
}

func presence(is bool) string {
	if is {
		return "one"
	}
	return "none"
}

// few is a list that people can read.
func few(numbers []uint64) string {
	if len(numbers) > 5 {
		return fmt.Sprintf("%v and %d more", numbers[:5], len(numbers)-5)
	}
	return fmt.Sprint(numbers)
}

func apart(a, b uint64) uint64 { return max(a, b) - min(a, b) }
