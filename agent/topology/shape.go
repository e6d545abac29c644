package topology

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// shapeOf reads a shape as it travels. What contradicts itself is
// [link.Shape.Validate]'s matter.
func shapeOf(s *tcplabv1.Shape) (link.Shape, error) {
	if rate := s.GetRateBps(); !(rate >= 0 && rate <= maxRate) {
		return link.Shape{}, fmt.Errorf("a rate of %v bit/s is not between 0 and %v", rate, float64(maxRate))
	}
	distribution, ok := distributions()[s.GetJitter().GetDistribution()]
	if !ok {
		return link.Shape{}, fmt.Errorf("jitter: no distribution %v", s.GetJitter().GetDistribution())
	}
	queue, err := queueOf(s.GetQueue())
	if err != nil {
		return link.Shape{}, err
	}
	o, j := s.GetOverhead(), s.GetJitter()
	return link.Shape{
		Rate:     uint64(math.Round(s.GetRateBps())),
		Overhead: link.Overhead{Bytes: int(o.GetBytes()), MinBytes: int(o.GetMinBytes()), ATM: o.GetAtm()},
		Burst:    int(min(s.GetBurstBytes(), math.MaxInt)),
		Delay:    s.GetDelay().AsDuration(),
		Jitter: link.Jitter{
			Amount: j.GetAmount().AsDuration(), Distribution: distribution, Correlation: j.GetCorrelation(),
			Quantiles: j.GetQuantiles(), Reorder: j.GetReorder(),
		},
		Reorder:   link.Reorder{Chance: chanceOf(s.GetReorder().GetChance()), Gap: int(s.GetReorder().GetGap())},
		Loss:      lossOf(s),
		Duplicate: chanceOf(s.GetDuplicate()),
		Corrupt:   chanceOf(s.GetCorrupt()),
		Down:      s.GetDown(),
		Queue:     queue,
	}, nil
}

func chanceOf(c *tcplabv1.Chance) link.Chance {
	return link.Chance{Probability: c.GetProbability(), Correlation: c.GetCorrelation()}
}

func lossOf(s *tcplabv1.Shape) link.Loss {
	loss := link.Loss{Chance: link.Chance{Probability: s.GetLoss(), Correlation: s.GetLossCorrelation()}}
	switch kind := s.GetLossPattern().GetKind().(type) {
	case *tcplabv1.LossPattern_GilbertElliott:
		g := kind.GilbertElliott
		loss.GilbertElliott = &link.GilbertElliott{ToBad: g.GetToBad(), ToGood: g.GetToGood(), BadLoss: 1, GoodLoss: g.GetGoodLoss()}
		if g.BadLoss != nil {
			loss.GilbertElliott.BadLoss = g.GetBadLoss()
		}
	case *tcplabv1.LossPattern_FourState:
		f := kind.FourState
		loss.FourState = &link.FourState{P13: f.GetP13(), P31: f.GetP31(), P32: f.GetP32(), P23: f.GetP23(), P14: f.GetP14()}
	case *tcplabv1.LossPattern_Packets:
		loss.Packets = kind.Packets.GetNumbers()
	case *tcplabv1.LossPattern_Every:
		loss.Every = kind.Every
	}
	return loss
}

func queueOf(q *tcplabv1.Queue) (link.Queue, error) {
	discipline, ok := disciplines()[q.GetDiscipline()]
	if !ok {
		return link.Queue{}, fmt.Errorf("no queue discipline %v", q.GetDiscipline())
	}
	queue := link.Queue{
		Discipline: discipline, ECN: q.GetEcn(), Target: q.GetTarget().AsDuration(), Interval: q.GetInterval().AsDuration(),
		RED: link.REDThresholds{
			MinBytes: int(min(q.GetRed().GetMinBytes(), math.MaxInt)), MaxBytes: int(min(q.GetRed().GetMaxBytes(), math.MaxInt)),
			Probability: q.GetRed().GetProbability(),
		},
	}
	switch limit := q.GetLimit().(type) {
	case *tcplabv1.Queue_Packets:
		queue.Packets = int(limit.Packets)
	case *tcplabv1.Queue_Bytes:
		queue.Bytes = int(min(limit.Bytes, math.MaxInt))
	case *tcplabv1.Queue_Time:
		queue.Time = limit.Time.AsDuration()
	}
	return queue, nil
}

// ShapeMessage is the shape as it travels.
func ShapeMessage(s link.Shape) *tcplabv1.Shape {
	m := &tcplabv1.Shape{
		RateBps: float64(s.Rate), Delay: durationpb.New(s.Delay), Loss: s.Loss.Probability, LossCorrelation: s.Loss.Correlation,
		LossPattern: patternMessage(s.Loss), BurstBytes: uint64(s.Burst), Down: s.Down,
		Duplicate: chanceMessage(s.Duplicate), Corrupt: chanceMessage(s.Corrupt), Queue: queueMessage(s.Queue),
	}
	if s.Overhead != (link.Overhead{}) {
		m.Overhead = &tcplabv1.Overhead{Bytes: int32(s.Overhead.Bytes), MinBytes: uint32(s.Overhead.MinBytes), Atm: s.Overhead.ATM}
	}
	if j := s.Jitter; !j.IsZero() {
		m.Jitter = &tcplabv1.Jitter{
			Amount: durationpb.New(j.Amount), Distribution: keyOf(distributions(), j.Distribution),
			Correlation: j.Correlation, Quantiles: j.Quantiles, Reorder: j.Reorder,
		}
	}
	if !s.Reorder.IsZero() {
		m.Reorder = &tcplabv1.Reorder{Chance: chanceMessage(s.Reorder.Chance), Gap: uint32(s.Reorder.Gap)}
	}
	return m
}

func chanceMessage(c link.Chance) *tcplabv1.Chance {
	if c == (link.Chance{}) {
		return nil
	}
	return &tcplabv1.Chance{Probability: c.Probability, Correlation: c.Correlation}
}

func patternMessage(l link.Loss) *tcplabv1.LossPattern {
	switch {
	case l.GilbertElliott != nil:
		g := l.GilbertElliott
		return &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_GilbertElliott{GilbertElliott: &tcplabv1.GilbertElliott{
			ToBad: g.ToBad, ToGood: g.ToGood, BadLoss: new(g.BadLoss), GoodLoss: g.GoodLoss,
		}}}
	case l.FourState != nil:
		f := l.FourState
		return &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_FourState{FourState: &tcplabv1.FourState{
			P13: f.P13, P31: f.P31, P32: f.P32, P23: f.P23, P14: f.P14,
		}}}
	case len(l.Packets) > 0:
		return &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_Packets{Packets: &tcplabv1.PacketList{Numbers: l.Packets}}}
	case l.Every > 0:
		return &tcplabv1.LossPattern{Kind: &tcplabv1.LossPattern_Every{Every: l.Every}}
	}
	return nil
}

func queueMessage(q link.Queue) *tcplabv1.Queue {
	if q.IsZero() {
		return nil
	}
	m := &tcplabv1.Queue{Ecn: q.ECN}
	if q.Discipline != link.FIFO {
		m.Discipline = keyOf(disciplines(), q.Discipline)
	}
	if q.Target > 0 {
		m.Target = durationpb.New(q.Target)
	}
	if q.Interval > 0 {
		m.Interval = durationpb.New(q.Interval)
	}
	if q.RED != (link.REDThresholds{}) {
		m.Red = &tcplabv1.RandomEarlyDetection{MinBytes: uint64(q.RED.MinBytes), MaxBytes: uint64(q.RED.MaxBytes), Probability: q.RED.Probability}
	}
	switch {
	case q.Packets > 0:
		m.Limit = &tcplabv1.Queue_Packets{Packets: uint32(min(q.Packets, math.MaxUint32))}
	case q.Bytes > 0:
		m.Limit = &tcplabv1.Queue_Bytes{Bytes: uint64(q.Bytes)}
	case q.Time > 0:
		m.Limit = &tcplabv1.Queue_Time{Time: durationpb.New(q.Time)}
	}
	return m
}

// The contract's words and link's.

func distributions() map[tcplabv1.JitterDistribution]link.Distribution {
	return map[tcplabv1.JitterDistribution]link.Distribution{
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_UNSPECIFIED:   link.Uniform,
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_UNIFORM:       link.Uniform,
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_NORMAL:        link.Normal,
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_PARETO:        link.Pareto,
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_PARETO_NORMAL: link.ParetoNormal,
		tcplabv1.JitterDistribution_JITTER_DISTRIBUTION_TABLE:         link.Table,
	}
}

func disciplines() map[tcplabv1.QueueDiscipline]link.Discipline {
	return map[tcplabv1.QueueDiscipline]link.Discipline{
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_UNSPECIFIED: link.FIFO,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_FIFO:        link.FIFO,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_HEAD_DROP:   link.HeadDrop,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_RED:         link.RED,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CODEL:       link.CoDel,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_FQ_CODEL:    link.FQCoDel,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CAKE:        link.CAKE,
		tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_PIE:         link.PIE,
	}
}

func protocols() map[tcplabv1.IpProtocol]link.Protocol {
	return map[tcplabv1.IpProtocol]link.Protocol{
		tcplabv1.IpProtocol_IP_PROTOCOL_UNSPECIFIED: link.AnyProtocol,
		tcplabv1.IpProtocol_IP_PROTOCOL_TCP:         link.TCP,
		tcplabv1.IpProtocol_IP_PROTOCOL_UDP:         link.UDP,
		tcplabv1.IpProtocol_IP_PROTOCOL_ICMP:        link.ICMP,
	}
}

// keyOf is the greatest key of a value: never the unspecified one.
func keyOf[K ~int32, V comparable](all map[K]V, value V) K {
	var key K
	for k, v := range all {
		if v == value {
			key = max(key, k)
		}
	}
	return key
}
