package labs

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// schedule is a list of steps, or a mapping that repeats them.
type schedule struct{ spec scheduleSpec }

type scheduleSpec struct {
	At     *node      `yaml:"-"`
	Steps  []stepSpec `yaml:"steps" jsonschema:"required,minItems=1" jsonschema_description:"What changes, in order of time."`
	Period *duration  `yaml:"period" jsonschema_description:"After this long it begins again, with the shapes of before the first step. Default: it is followed once."`
}

// stepSpec gives what a shape is like from a time on; what it leaves out stays as it is.
type stepSpec struct {
	At   *node     `yaml:"-"`
	Time *duration `yaml:"at" jsonschema:"required" jsonschema_description:"When, since the trial's first experiment started, up to 24h."`
	Path string    `yaml:"path" jsonschema_description:"The path whose shape it is. Default: the direction's own."`
	Ramp *duration `yaml:"ramp" jsonschema_description:"How long rate, delay and loss take to get there, evenly; it ends before the next step. Default 0: at once."`
	shapeSpec
}

func (v *schedule) read(d *decoder, n *node) {
	if n.kind == mapping && (n.get("steps") != nil || n.get("at") == nil) {
		d.decode(n, reflect.ValueOf(&v.spec).Elem())
		return
	}
	d.decode(n, reflect.ValueOf(&v.spec.Steps).Elem())
}

// schedule gives each step the whole of its shape: that of before, and what
// the step changes. paths are the shapes that they start from.
func (c *converter) schedule(s *schedule, paths map[string]shapeKeys, d *tcplabv1.Direction, path string) {
	if s == nil {
		return
	}
	if s.spec.Period != nil {
		c.from(s.spec.At.get("period"), "%s.schedule_period", path)
		d.SchedulePeriod = s.spec.Period.proto()
		if *s.spec.Period == 0 {
			c.add(s.spec.At.get("period").at, "leave the key out to follow the schedule once", "a period of 0 never ends")
		}
	}
	now := maps.Clone(paths)
	for i := range s.spec.Steps {
		step, field := &s.spec.Steps[i], fmt.Sprintf("%s.schedule[%d]", path, i)
		c.from(step.At, "%s", field)
		c.fields(step.At, field, "at", "at", "path", "path", "ramp", "ramp")
		now[step.Path] = now[step.Path].with(&step.shapeSpec, step.At)
		d.Schedule = append(d.Schedule, &tcplabv1.ScheduleStep{
			At: step.Time.proto(), Path: step.Path, Ramp: step.Ramp.proto(), Shape: c.shape(now[step.Path], field+".shape"),
		})
	}
}

// trace names the file of a recorded link.
type trace struct{ spec traceSpec }

type traceSpec struct {
	At          *node     `yaml:"-"`
	File        *fileName `yaml:"file" jsonschema:"required" jsonschema_description:"A file beside the lab file: a packet-delivery trace (mahimahi: a time in ms on each line), or, where its name ends in .csv, a table of time, rate, delay and loss."`
	Loop        *toggle   `yaml:"loop" jsonschema_description:"Whether it begins again at its end. Default: a packet-delivery trace does, and then sends nothing more where it does not; a table does not, and stays as in its last row."`
	Opportunity *size     `yaml:"opportunity" jsonschema_description:"Bytes that each moment of a packet-delivery trace sends, Ethernet header included, up to 64KiB. Default 1514."`
}

func (v *trace) read(d *decoder, n *node) { d.scalarOrMapping(n, &v.spec, &v.spec.File) }

// followed is a recorded link as one direction follows it.
type followed struct {
	*recording
	spec *traceSpec
}

// trace reads the file of a direction's trace.
func (c *converter) trace(t *trace) followed {
	if t == nil || t.spec.File == nil {
		return followed{}
	}
	return followed{recording: c.files.recording(c.report, t.spec.File), spec: &t.spec}
}

// conflicts refuses keys of a shape that the trace takes the place of. at is the mapping
// that gives the trace.
func (c *converter) conflicts(f followed, k shapeKeys, at *node) {
	for _, key := range f.sets() {
		n := k.at[key]
		if n == nil || key == "rate" && k.Rate != nil && *k.Rate == 0 {
			continue
		}
		hint := fmt.Sprintf("leave %s out, or the trace", key)
		if n != at.get(key) && n != at.get("rtt") {
			hint = "give each direction a trace, or none"
		}
		verb := "says when packets are sent"
		if f.opportunities == nil {
			verb = "has a column for the " + key
		}
		c.add(n.at, hint, "%s and trace contradict one another: %s %s", key, f.spec.File.name, verb)
	}
}

// follow makes the direction follow the recorded link: one of moments is its
// trace, and a table becomes the shape of its first row and a schedule of the others.
func (c *converter) follow(f followed, d *tcplabv1.Direction, path string) {
	if f.recording == nil {
		return
	}
	place := f.spec.File.at
	if len(d.GetSchedule()) > 0 {
		c.add(place.at, "give one of them", "the direction has a trace and a schedule")
		return
	}
	if f.opportunities != nil {
		c.from(place, "%s.trace", path)
		d.Trace = &tcplabv1.Trace{
			Name: f.spec.File.name, OpportunitiesMs: f.opportunities,
			OpportunityBytes: c.uint32(f.spec.At.get("opportunity"), f.spec.Opportunity),
			Once:             f.spec.Loop != nil && !bool(*f.spec.Loop),
		}
		c.fields(f.spec.At, path+".trace", "opportunity", "opportunity_bytes", "loop", "once")
		return
	}
	if f.spec.Opportunity != nil {
		c.add(f.spec.At.get("opportunity").at, "leave it out", "a table has no opportunities")
	}
	c.from(place, "%s.schedule", path)
	f.apply(f.rows[0], d.GetShape())
	rest := f.rows[1:]
	if f.spec.Loop != nil && bool(*f.spec.Loop) {
		// The last row is the end, where the first is in force again.
		if len(rest) == 0 || rest[len(rest)-1].at == 0 {
			c.add(f.spec.At.get("loop").at, "give it a last row for its end", "a table that is looped has a length, and %s has none", f.spec.File.name)
			return
		}
		d.SchedulePeriod = durationpb.New(rest[len(rest)-1].at)
		rest = rest[:len(rest)-1]
	}
	d.Schedule = slices.Grow(d.Schedule, len(rest))
	for _, row := range rest {
		shape := proto.CloneOf(d.GetShape())
		f.apply(row, shape)
		d.Schedule = append(d.Schedule, &tcplabv1.ScheduleStep{At: durationpb.New(row.at), Shape: shape})
	}
}

// apply puts a row's values into a shape.
func (r *recording) apply(row row, s *tcplabv1.Shape) {
	if r.has("rate") {
		s.RateBps = row.rate
	}
	if r.has("delay") {
		s.Delay = durationpb.New(row.delay)
	}
	if r.has("loss") {
		s.Loss = row.loss
	}
}
