package expect

import (
	"time"

	"cel.dev/cel-go/common/types"

	"github.com/tcplab/tcplab/labs/theory"
)

// policyType is the type of theory.nagle and its like. No number can stand for
// one.
func policyType() *types.Type { return types.NewOpaqueType("policy") }

// constant is a name below theory.
type constant struct {
	typ   *types.Type
	unit  string
	value any // theory.Policy or float64
}

// theoryConstants are the names that stand below theory without arguments.
func theoryConstants() map[string]constant {
	policy := func(p theory.Policy) constant { return constant{typ: policyType(), value: p} }
	count := func(n float64) constant { return constant{typ: types.DoubleType, value: n} }
	return map[string]constant{
		"no_delay":       policy(theory.NoDelay),
		"quick_ack":      policy(theory.QuickACK),
		"nagle":          policy(theory.Nagle),
		"initial_window": count(theory.InitialWindow),
		"infinite":       count(theory.Infinite),
		"mss":            {typ: types.DoubleType, unit: "B", value: float64(theory.MSS)},
		"delayed_ack":    {typ: types.DoubleType, unit: "s", value: theory.DelayedACKMin.Seconds()},
		"time_wait":      {typ: types.DoubleType, unit: "s", value: theory.TimeWait.Seconds()},
	}
}

// theoryObject is `theory`.
func theoryObject() *object {
	constants := theoryConstants()
	return &object{typ: types.NewObjectType(theoryType), get: func(name string) (any, error) {
		c := constants[name]
		if v, ok := c.value.(float64); ok {
			return number(v, "theory."+name)
		}
		return &object{typ: c.typ, value: c.value}, nil
	}}
}

// theoryFunctions lends package theory to expressions. Durations are in
// seconds, rates in bit/s, sizes in bytes; a rate of 0 is no bottleneck.
func theoryFunctions() []function {
	return []function{
		{"theory.serialization", []string{"bytes", "rate"}, "s", func(a args) float64 {
			return theory.Serialization(a.count(0), a.num(1)).Seconds()
		}},
		{"theory.handshake", []string{"rtt", "rate"}, "s", func(a args) float64 {
			return theory.Handshake(a.duration(0), a.num(1)).Seconds()
		}},
		{"theory.request", []string{"rtt", "think", "request", "reply", "rate"}, "s", func(a args) float64 {
			return theory.Request(a.duration(0), a.duration(1), a.count(2), a.count(3), a.num(4)).Seconds()
		}},
		{"theory.first_request", []string{"rtt", "think", "request", "reply", "rate"}, "s", func(a args) float64 {
			return theory.FirstRequest(a.duration(0), a.duration(1), a.count(2), a.count(3), a.num(4)).Seconds()
		}},
		{"theory.fast_open_request", []string{"rtt", "think", "request", "reply", "rate"}, "s", func(a args) float64 {
			return theory.FastOpenRequest(a.duration(0), a.duration(1), a.count(2), a.count(3), a.num(4)).Seconds()
		}},
		{"theory.syn_delay", []string{"lost", "linear"}, "s", func(a args) float64 {
			return theory.SYNDelay(a.count(0), a.count(1)).Seconds()
		}},
		{"theory.rounds", []string{"bytes"}, "", func(a args) float64 {
			return float64(theory.Transfer{Bytes: a.count(0)}.Rounds())
		}},
		{"theory.window", []string{"round"}, "", func(a args) float64 {
			return float64(theory.Transfer{}.Window(a.count(0)))
		}},
		{"theory.slow_start", []string{"bytes", "rtt", "rate"}, "s", func(a args) float64 {
			return theory.SlowStart(a.count(0), a.duration(1), a.num(2)).Seconds()
		}},
		{"theory.write_write_read", []string{"rtt", "policy", "hz"}, "s", func(a args) float64 {
			return theory.WriteWriteRead(a.duration(0), a.policy(1), a.count(2)).Seconds()
		}},
		{"theory.segment_size", []string{"mtu", "timestamps"}, "B", func(a args) float64 {
			return float64(theory.SegmentSize(a.count(0), a.num(1) != 0))
		}},
		{"theory.segments", []string{"bytes", "mss"}, "", func(a args) float64 {
			return float64(theory.Segments(a.count(0), max(1, a.count(1))))
		}},
		{"theory.goodput_share", []string{"mtu", "timestamps"}, "", func(a args) float64 {
			return theory.GoodputShare(a.count(0), a.num(1) != 0)
		}},
		{"theory.transaction_segments", []string{"server", "client"}, "", func(a args) float64 {
			return float64(theory.TransactionSegments(a.duration(0), a.duration(1)))
		}},
		{"theory.serial", pageParams(), "s", func(a args) float64 { return a.page().Serial().Seconds() }},
		{"theory.parallel", append([]string{"k"}, pageParams()...), "s", func(a args) float64 {
			k := max(1, a.count(0))
			return args{a.values[1:], a.err}.page().Parallel(k).Seconds()
		}},
		{"theory.keep_alive", pageParams(), "s", func(a args) float64 { return a.page().KeepAlive().Seconds() }},
		{"theory.pipelined", pageParams(), "s", func(a args) float64 { return a.page().Pipelined().Seconds() }},
		{"theory.reno_rate", []string{"mss", "rtt", "loss"}, "bit/s", func(a args) float64 {
			return theory.RenoRate(a.count(0), a.duration(1), a.num(2))
		}},
		{"theory.cubic_rate", []string{"mss", "rtt", "loss"}, "bit/s", func(a args) float64 {
			return theory.CubicRate(a.count(0), a.duration(1), a.num(2))
		}},
		{"theory.bbr_rate", []string{"rate", "loss"}, "bit/s", func(a args) float64 { return theory.BBRRate(a.num(0), a.num(1)) }},
		{"theory.queue_delay", []string{"bytes", "rate"}, "s", func(a args) float64 {
			return theory.QueueDelay(a.count(0), a.num(1)).Seconds()
		}},
		{"theory.port_limit", []string{"ports"}, "", func(a args) float64 { return theory.PortLimit(a.count(0)) }},
	}
}

// pageParams are those of a [theory.Page]: objects, round trip, server time, and the
// bytes of an object at the bottleneck's rate.
func pageParams() []string { return []string{"objects", "rtt", "server_time", "bytes", "rate"} }

func (a args) page() theory.Page {
	return theory.Page{
		Objects: a.count(0), RTT: a.duration(1), ServerTime: a.duration(2),
		ObjectTime: theory.Serialization(a.count(3), a.num(4)),
	}
}

// maxDuration and maxCount bound what a formula is asked for: beyond them
// an int64 of nanoseconds or a loop over rounds would overflow.
const (
	maxDuration = 100 * 24 * time.Hour
	maxCount    = 1 << 50
)
