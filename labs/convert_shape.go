package labs

import (
	"maps"
	"reflect"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// shapeKeys is a shape as it adds up key by key: what a direction or a step
// says replaces what was said before it.
type shapeKeys struct {
	shapeSpec
	at map[string]*node // where each key's value stands
}

// with is k, but for the keys that s gives; at is the mapping that they stand
// in. A rate that is unlimited takes with it what only goes with a rate.
func (k shapeKeys) with(s *shapeSpec, at *node) shapeKeys {
	if s.Rate != nil && *s.Rate == 0 {
		k = k.without("rate", "overhead", "burst", "queue")
	}
	out := shapeKeys{shapeSpec: k.shapeSpec, at: maps.Clone(k.at)}
	if out.at == nil {
		out.at = make(map[string]*node)
	}
	from, to := reflect.ValueOf(s).Elem(), reflect.ValueOf(&out.shapeSpec).Elem()
	for i := range from.NumField() {
		if from.Field(i).IsNil() {
			continue
		}
		to.Field(i).Set(from.Field(i))
		key := from.Type().Field(i).Tag.Get("yaml")
		out.at[key] = at.get(key)
	}
	return out
}

// without is k less some of its keys.
func (k shapeKeys) without(keys ...string) shapeKeys {
	k.at = maps.Clone(k.at)
	v := reflect.ValueOf(&k.shapeSpec).Elem()
	fields := keysOf(v.Type())
	for _, key := range keys {
		v.FieldByIndex(fields.index[key]).SetZero()
		delete(k.at, key)
	}
	return k
}

// shape is the contract's shape of the keys.
func (c *converter) shape(k shapeKeys, path string) *tcplabv1.Shape {
	s := &tcplabv1.Shape{Delay: k.Delay.proto(), Down: k.Down != nil && bool(*k.Down)}
	for key, field := range map[string]string{
		"rate": "rate_bps", "overhead": "overhead", "burst": "burst_bytes", "queue": "queue", "delay": "delay",
		"jitter": "jitter", "loss": "loss", "reorder": "reorder", "duplicate": "duplicate", "corrupt": "corrupt", "down": "down",
	} {
		c.from(k.at[key], "%s.%s", path, field)
	}
	if k.Rate != nil {
		s.RateBps = float64(*k.Rate)
	}
	if k.Burst != nil {
		s.BurstBytes = uint64(*k.Burst)
	}
	if k.Overhead != nil {
		s.Overhead = c.overhead(&k.Overhead.spec, path+".overhead")
	}
	if k.Queue != nil {
		s.Queue = c.queue(&k.Queue.spec, path+".queue")
	}
	if k.Jitter != nil {
		s.Jitter = c.jitter(&k.Jitter.spec, path+".jitter")
	}
	if k.Loss != nil {
		c.from(k.at["loss"], "%s.loss_correlation", path)
		c.from(k.at["loss"], "%s.loss_pattern", path)
		c.loss(&k.Loss.spec, s, path)
	}
	if k.Reorder != nil {
		s.Reorder = c.reorder(&k.Reorder.spec, path+".reorder")
	}
	if k.Duplicate != nil {
		s.Duplicate = c.chance(&k.Duplicate.spec, path+".duplicate")
	}
	if k.Corrupt != nil {
		s.Corrupt = c.chance(&k.Corrupt.spec, path+".corrupt")
	}
	return s
}

// fields notes where the fields of a message came from, by key and field.
func (c *converter) fields(at *node, path string, keysAndFields ...string) {
	for i := 0; i < len(keysAndFields); i += 2 {
		c.from(at.get(keysAndFields[i]), "%s.%s", path, keysAndFields[i+1])
	}
}

func (c *converter) overhead(s *overheadSpec, path string) *tcplabv1.Overhead {
	c.fields(s.At, path, "bytes", "bytes", "min", "min_bytes")
	o := &tcplabv1.Overhead{MinBytes: c.uint32(s.At.get("min"), s.Min), Atm: s.ATM != nil && bool(*s.ATM)}
	if s.Bytes != nil {
		if *s.Bytes < minOverhead || *s.Bytes > maxOverhead {
			at, found := c.places[path+".bytes"]
			if !found {
				at = c.places[path]
			}
			c.add(at.at, "", "an overhead of %d bytes is not between %d and %d", *s.Bytes, minOverhead, maxOverhead)
		} else {
			o.Bytes = int32(*s.Bytes)
		}
	}
	if o.GetBytes() == 0 && o.GetMinBytes() == 0 && !o.GetAtm() {
		return nil
	}
	return o
}

func (c *converter) queue(s *queueSpec, path string) *tcplabv1.Queue {
	c.fields(s.At, path, "discipline", "discipline", "ecn", "ecn", "target", "target", "interval", "interval", "red", "red")
	q := &tcplabv1.Queue{Ecn: s.ECN != nil && bool(*s.ECN), Target: s.Target.proto(), Interval: s.Interval.proto()}
	if s.Discipline != nil {
		q.Discipline = tcplabv1.QueueDiscipline(*s.Discipline)
	}
	if l := s.Limit; l != nil {
		switch {
		case l.Packets > 0:
			q.Limit = &tcplabv1.Queue_Packets{Packets: l.Packets}
		case l.Bytes > 0:
			q.Limit = &tcplabv1.Queue_Bytes{Bytes: l.Bytes}
		case l.Time > 0:
			q.Limit = &tcplabv1.Queue_Time{Time: durationpb.New(l.Time)}
		}
	}
	if r := s.RED; r != nil {
		c.fields(r.At, path+".red", "min", "min_bytes", "max", "max_bytes", "probability", "probability")
		q.Red = &tcplabv1.RandomEarlyDetection{Probability: r.Probability.value()}
		if r.Min != nil {
			q.Red.MinBytes = uint64(*r.Min)
		}
		if r.Max != nil {
			q.Red.MaxBytes = uint64(*r.Max)
		}
	}
	return q
}

// jitter is nil where the amount is 0: the delay does not vary.
func (c *converter) jitter(s *jitterSpec, path string) *tcplabv1.Jitter {
	if s.Amount == nil || *s.Amount == 0 {
		return nil
	}
	c.fields(s.At, path, "amount", "amount", "distribution", "distribution", "correlation", "correlation", "quantiles", "quantiles", "table", "quantiles")
	j := &tcplabv1.Jitter{Amount: s.Amount.proto(), Correlation: s.Correlation.value(), Reorder: s.Reorder != nil && bool(*s.Reorder)}
	if s.Distribution != nil {
		j.Distribution = tcplabv1.JitterDistribution(*s.Distribution)
	}
	for i, q := range s.Quantiles {
		j.Quantiles = append(j.Quantiles, float64(q))
		c.from(s.At.get("quantiles").item(i), "%s.quantiles[%d]", path, i)
	}
	if s.Table != nil {
		if s.Quantiles != nil {
			c.add(s.Table.at.at, "", "give quantiles or a table, not both")
		}
		j.Quantiles = c.files.quantiles(c.report, s.Table)
	}
	if (s.Quantiles != nil || s.Table != nil) && j.Distribution == tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_UNSPECIFIED {
		j.Distribution = tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_TABLE
	}
	return j
}

func (c *converter) loss(s *lossSpec, to *tcplabv1.Shape, path string) {
	c.fields(s.At, path, "probability", "loss", "correlation", "loss_correlation")
	to.Loss, to.LossCorrelation = s.Probability.value(), s.Correlation.value()
	path += ".loss_pattern"
	kinds := 0
	for _, isSet := range []bool{s.Probability != nil, s.Packets != nil, s.Every != nil, s.Gilbert != nil, s.States != nil} {
		if isSet {
			kinds++
		}
	}
	if s.At != nil && kinds != 1 {
		c.add(s.At.at, "give probability, packets, every, gilbert or states", "a loss is of one kind, not of %d", kinds)
		return
	}
	switch {
	case s.Packets != nil:
		list := &tcplabv1.PacketList{}
		for i, n := range s.Packets {
			list.Numbers = append(list.Numbers, uint64(n))
			c.from(s.At.get("packets").item(i), "%s.packets.numbers[%d]", path, i)
		}
		c.fields(s.At, path, "packets", "packets")
		to.LossPattern = &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_Packets{Packets: list}}
	case s.Every != nil:
		c.fields(s.At, path, "every", "every")
		to.LossPattern = &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_Every{Every: uint64(*s.Every)}}
	case s.Gilbert != nil:
		c.fields(s.At, path, "gilbert", "gilbert_elliott")
		c.fields(s.Gilbert.At, path+".gilbert_elliott", "to_bad", "to_bad", "to_good", "to_good", "bad", "bad_loss", "good", "good_loss")
		g := &tcplabv1.GilbertElliott{ToBad: s.Gilbert.ToBad.value(), ToGood: s.Gilbert.ToGood.value(), GoodLoss: s.Gilbert.Good.value()}
		if s.Gilbert.Bad != nil {
			g.BadLoss = new(s.Gilbert.Bad.value())
		}
		to.LossPattern = &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_GilbertElliott{GilbertElliott: g}}
	case s.States != nil:
		c.fields(s.At, path, "states", "four_state")
		c.fields(s.States.At, path+".four_state", "p13", "p13", "p31", "p31", "p32", "p32", "p23", "p23", "p14", "p14")
		to.LossPattern = &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_FourState{FourState: &tcplabv1.FourState{
			P13: s.States.P13.value(), P31: s.States.P31.value(), P32: s.States.P32.value(), P23: s.States.P23.value(), P14: s.States.P14.value(),
		}}}
	}
}

// reorder is nil where nothing overtakes: `reorder: 0`.
func (c *converter) reorder(s *reorderSpec, path string) *tcplabv1.Reorder {
	c.fields(s.At, path, "probability", "chance.probability", "correlation", "chance.correlation", "gap", "gap")
	gap := c.uint32(s.At.get("gap"), s.Gap)
	if s.Gap != nil && *s.Gap == 0 {
		c.add(s.At.get("gap").at, "leave the key out for any packet", "every 0th packet is none")
	}
	if s.Probability.value() == 0 && s.Correlation == nil && s.Gap == nil {
		return nil
	}
	return &tcplabv1.Reorder{Gap: gap, Chance: &tcplabv1.Chance{Probability: s.Probability.value(), Correlation: s.Correlation.value()}}
}

// chance is nil for never: `duplicate: 0`.
func (c *converter) chance(s *chanceSpec, path string) *tcplabv1.Chance {
	c.fields(s.At, path, "probability", "probability", "correlation", "correlation")
	if s.Probability.value() == 0 && s.Correlation == nil {
		return nil
	}
	return &tcplabv1.Chance{Probability: s.Probability.value(), Correlation: s.Correlation.value()}
}

func (v *share) value() float64 {
	if v == nil {
		return 0
	}
	return float64(*v)
}
