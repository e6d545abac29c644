package labs

import (
	"fmt"
	"time"

	"github.com/tcplab/tcplab/labs/pace"
	"github.com/tcplab/tcplab/labs/unit"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type bulkSpec struct {
	At       *node          `yaml:"-"`
	From     string         `yaml:"from" jsonschema:"required" jsonschema_description:"The node that connects and sends."`
	To       string         `yaml:"to" jsonschema:"required" jsonschema_description:"The node that listens and reads."`
	Bytes    *size          `yaml:"bytes" jsonschema_description:"Bytes to send, at least 1. Either this or duration."`
	Duration *duration      `yaml:"duration" jsonschema_description:"How long to send, up to 24h. Either this or bytes."`
	Streams  *count         `yaml:"streams" jsonschema_description:"Connections in parallel, 1 to 128; each has an equal part of bytes and rate. Default 1."`
	Both     *toggle        `yaml:"both" jsonschema_description:"Whether the server sends as much to the client at the same time, on the same connections. Default false."`
	Pacing   *rate          `yaml:"pacing" jsonschema_description:"Most payload that TCP sends on each connection, from 1kbit on: SO_MAX_PACING_RATE. Default: unlimited."`
	Rate     *rate          `yaml:"rate" jsonschema_description:"Payload that the application writes, of all streams together, from 1kbit on. Default: unlimited."`
	Write    *size          `yaml:"write" jsonschema_description:"Bytes of each write with a rate, up to 16MiB. Default: what the rate sends in 1ms, 1460B to 256KiB."`
	Schedule []bulkStepSpec `yaml:"schedule" jsonschema_description:"How the rate changes, in order of time."`
	Steady   *steadySpec    `yaml:"steady" jsonschema_description:"When the bulk may end before all is sent: once its goodput is steady. Default: never."`
	Zerocopy *toggle        `yaml:"zerocopy" jsonschema_description:"Whether the kernel sends from the sender's own memory (MSG_ZEROCOPY). Default false."`
}

type bulkStepSpec struct {
	At   *node        `yaml:"-"`
	Time *duration    `yaml:"at" jsonschema:"required" jsonschema_description:"When, since the connection stands, up to 24h."`
	Rate *pausingRate `yaml:"rate" jsonschema:"required" jsonschema_description:"The rate from then on; 0: nothing is written until the next step."`
}

type requestStepSpec struct {
	At   *node             `yaml:"-"`
	Time *duration         `yaml:"at" jsonschema:"required" jsonschema_description:"When, since the connection stands, up to 24h."`
	Rate *pausingFrequency `yaml:"rate" jsonschema:"required" jsonschema_description:"How many a second from then on; 0: none until the next step."`
}

type steadySpec struct {
	At      *node     `yaml:"-"`
	Window  *duration `yaml:"window" jsonschema:"required" jsonschema_description:"Length of a window, 1ms to 1h."`
	Within  *share    `yaml:"within" jsonschema:"required" jsonschema_description:"Bound of the coefficient of variation of the goodput of the last windows: 5%."`
	Windows *count    `yaml:"windows" jsonschema_description:"How many windows are looked at, 2 to 1000. Default 5."`
}

type (
	pausingRate      float64 // as rate, but 0 is a pause
	pausingFrequency float64 // as frequency, but 0 is a pause
)

func (v *pausingRate) read(d *decoder, n *node) {
	if q, ok := d.quantity(n, "a rate", unit.Rate); ok {
		*v = pausingRate(q.Value)
	}
}

func (v *pausingFrequency) read(d *decoder, n *node) {
	if q, ok := d.quantity(n, "how often a second", unit.Scalar); ok {
		*v = pausingFrequency(q.Value)
	}
}

func (c *converter) bulk(s *bulkSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".bulk"
	b := &tcplabv1.Bulk{
		Streams: c.uint32(s.At.get("streams"), s.Streams), Write: c.uint32(s.At.get("write"), s.Write),
		Both: s.Both != nil && bool(*s.Both), Zerocopy: s.Zerocopy != nil && bool(*s.Zerocopy),
	}
	f.Kind = &tcplabv1.Flow_Bulk{Bulk: b}
	c.from(s.At, "%s", path)
	c.fields(s.At, path, "bytes", "bytes", "duration", "duration", "streams", "streams", "both", "both", "pacing", "pacing_bps",
		"rate", "rate_bps", "write", "write", "schedule", "rate_schedule", "steady", "steady", "zerocopy", "zerocopy")
	switch {
	case s.Bytes != nil && s.Duration != nil:
		c.add(s.At.get("duration").at, "", "give bytes or duration, not both")
	case s.Bytes != nil:
		b.Amount = &tcplabv1.Bulk_Bytes{Bytes: uint64(*s.Bytes)}
	case s.Duration != nil:
		b.Amount = &tcplabv1.Bulk_Duration{Duration: s.Duration.proto()}
	default:
		c.add(s.At.at, "give it bytes: or duration:", "how much the flow sends is missing")
	}
	if s.Streams != nil && *s.Streams == 0 {
		c.add(s.At.get("streams").at, "", "want at least one stream")
	}
	if s.Pacing != nil {
		b.PacingBps = float64(*s.Pacing)
	}
	if s.Rate != nil {
		b.RateBps = float64(*s.Rate)
	}
	for i, step := range s.Schedule {
		b.RateSchedule = append(b.RateSchedule, c.step(step.At, step.Time, (*float64)(step.Rate), fmt.Sprintf("%s.rate_schedule[%d]", path, i)))
	}
	if s.Steady != nil {
		b.Steady = c.steady(s.Steady, path+".steady")
	}
}

// step is one of a rate's.
func (c *converter) step(at *node, when *duration, rate *float64, path string) *tcplabv1.RateStep {
	c.from(at, "%s", path)
	c.fields(at, path, "at", "at", "rate", "rate")
	step := &tcplabv1.RateStep{At: when.proto()}
	if rate != nil {
		step.Rate = *rate
	}
	return step
}

func (c *converter) steady(s *steadySpec, path string) *tcplabv1.Steady {
	c.from(s.At, "%s", path)
	c.fields(s.At, path, "window", "window", "within", "within", "windows", "windows")
	steady := &tcplabv1.Steady{Window: s.Window.proto(), Windows: c.uint32(s.At.get("windows"), s.Windows)}
	if s.Within != nil {
		steady.Within = float64(*s.Within)
	}
	if s.Windows != nil && *s.Windows < 2 {
		c.add(s.At.get("windows").at, "", "a variation needs two windows")
	}
	return steady
}

// leastRate is the least at which a bulk may be paced or written, in bit/s.
const leastRate = 1000

// bulk checks one that is to end within the time.
func (v *validation) bulk(field string, b *tcplabv1.Bulk, within time.Duration) {
	if b.GetAmount() == nil {
		v.add(field, "", "how much the flow sends is missing: bytes or duration")
	}
	if n := b.GetBytes(); n > 0 && n < uint64(b.GetStreams()) {
		v.add(field+".streams", "", "%d bytes are less than one for each of %d streams", n, b.GetStreams())
	}
	for _, r := range []struct {
		key  string
		rate float64
	}{{"pacing_bps", b.GetPacingBps()}, {"rate_bps", b.GetRateBps()}} {
		if r.rate > 0 && r.rate < leastRate {
			v.add(field+"."+r.key, "", "%g bit/s are less than %d", r.rate, leastRate)
		}
	}
	if b.GetRateBps() == 0 {
		const hint, message = "give it a rate", "without a rate a bulk writes as fast as it can"
		if b.GetWrite() > 0 {
			v.add(field+".write", hint, message)
		}
		if len(b.GetRateSchedule()) > 0 {
			v.add(field+".rate_schedule", hint, message)
		}
	} else if p := v.pace(field+".rate_schedule", b.GetRateBps(), b.GetRateSchedule()); p != nil && b.GetBytes() > 0 {
		if last := p.Due(float64(b.GetBytes()) * 8); last >= within {
			v.add(field+".rate_bps", "raise the experiment's timeout, or the rate", "the last byte is due after %v, and the experiment ends after %v", last.Round(time.Millisecond), within)
		}
	}
	if b.GetSteady() != nil && b.GetBoth() {
		v.add(field+".steady", "", "a bulk in both directions has no one goodput that is steady")
	}
}

// pace is a rate with its steps; nil where it is none, which is reported.
func (v *validation) pace(field string, rate float64, steps []*tcplabv1.RateStep) *pace.Plan {
	plan := make([]pace.Step, len(steps))
	for i, s := range steps {
		plan[i] = pace.Step{At: s.GetAt().AsDuration(), Rate: s.GetRate()}
	}
	p, err := pace.New(rate, plan)
	if err != nil {
		v.add(field, "", "the schedule is of no use: %s", err)
	}
	return p
}
