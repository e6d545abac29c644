// Package expect judges measurements by the expectations of a lab.
//
// An expectation is written in CEL with one grammar for all numbers: every
// number is a double in seconds, bit/s, bytes or a plain count, and an integer
// literal is one too (only the index of a list stays an integer). Expressions know
//
//	rtt, no_delay, …          the lab's parameters at this point: quantities as numbers,
//	                          booleans, other texts as texts
//	flow.NAME.…               a flow's FlowResult: flow.get.connect.p50, flow.get.goodput_bps,
//	                          flow.get.client.tcp_info.snd_cwnd; durations are in seconds.
//	                          flow.get.client.latency is flow.get.latency; so is .connect
//	flow.NAME.outcome         how it ended: "completed", "refused", "reset", "deadline", … (FlowOutcome)
//	flow.NAME.metrics.METRIC  a number that an exec flow found in what its programs printed
//	counter.NODE.NAME         a kernel counter's difference; counter["node-1"].NAME where the
//	                          node's name has a hyphen
//	link.NAME.forward.…       what a direction of a link, all its paths together, did during
//	                          the experiments (LinkCounters): delivered, lost, overflow,
//	                          early, marked, peak_queue, …; and how late it was:
//	                          link["client-server"].backward.lateness.p99
//	size(series), at(series, t)  of a cwnd_series: its length, and the window in force t
//	                          seconds after connect(2); series[0].snd_ssthresh
//	kernel.hz, .jiffy, .release, .at_least(6, 5)
//	theory.NAME, theory.NAME(…)  package theory; predictions that depend on HZ take kernel.hz
//	ceil floor round abs log2 sqrt pow min max
//	+ - * / < <= > >= == != && || ! ?:
//
// `where` sees the parameters and theory, `predict`, `rival` and `slack` the kernel
// too, `measure` and `that` everything.
//
// The package refuses, before anything runs: names, fields and functions that
// do not exist, numbers where conditions are needed, and comparisons with a word that cannot be. When it evaluates, it refuses to
// compare what was not measured: a flow that failed, a counter that the kernel lacks, a
// latency of no transaction, a result that is no finite number.
package expect

import (
	"errors"
	"fmt"
	"math"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Contrast is how many times farther than is permitted a rival must lie from
// the prediction: a measurement midway between the two then fails with room
// to spare.
const Contrast = 4

// Program is an expectation at one parameter point, checked and ready.
type Program struct {
	expectation *tcplabv1.Expectation
	point       map[string]*structpb.Value

	where, measure, predict, that, rival, slack *expression

	// The sides of `that`, where it compares two numbers.
	left, right *expression
	op          string
}

// Compile checks an expectation against the lab that it belongs to: its
// parameters, flows and nodes. A wrong expression is an [*Error]; other errors mean that
// the lab itself cannot be expected anything of.
func Compile(lab *tcplabv1.Lab, e *tcplabv1.Expectation) (*Program, error) {
	p := &Program{expectation: e, point: lab.GetPoint()}
	if err := complete(e); err != nil {
		return nil, err
	}
	environments := map[reach]*environment{}
	for _, part := range []struct {
		field, src string
		reach      reach
		want       *types.Type
		into       **expression
	}{
		{"where", e.GetWhere(), parameters, types.BoolType, &p.where},
		{"measure", e.GetMeasure(), measurements, types.DoubleType, &p.measure},
		{"predict", e.GetPredict(), predictions, types.DoubleType, &p.predict},
		{"that", e.GetThat(), measurements, types.BoolType, &p.that},
		{"rival", e.GetRival(), predictions, types.DoubleType, &p.rival},
		{"within.slack", e.GetWithinSlack(), predictions, types.DoubleType, &p.slack},
	} {
		if part.src == "" {
			continue
		}
		env := environments[part.reach]
		if env == nil {
			var err error
			if env, err = newEnvironment(lab, part.reach); err != nil {
				return nil, err
			}
			environments[part.reach] = env
		}
		x, err := env.compile(part.src, part.want)
		if err != nil {
			return nil, named(part.field, err)
		}
		*part.into = x
	}
	if p.that != nil {
		left, right, op, ok, err := p.that.sides()
		if err != nil {
			return nil, named("that", err)
		}
		if ok {
			p.left, p.right, p.op = left, right, op
		}
	}
	return p, nil
}

// complete refuses an expectation that lacks a part or has one too many.
func complete(e *tcplabv1.Expectation) error {
	switch {
	case e.GetThat() == "" && e.GetMeasure() == "":
		return &Error{Field: "measure", Message: "nothing is expected: give measure and predict, or that"}
	case e.GetThat() != "" && e.GetMeasure() != "":
		return &Error{Field: "that", Message: "is a condition of its own: give either it, or measure and predict"}
	case e.GetMeasure() != "" && e.GetPredict() == "":
		return &Error{Field: "predict", Message: "is missing: what should the measurement be?"}
	case e.GetThat() != "" && e.GetPredict() != "":
		return &Error{Field: "predict", Message: "goes with measure, not with that"}
	case e.GetThat() != "" && e.GetRival() != "":
		return &Error{Field: "rival", Message: "goes with predict, not with that"}
	case e.GetThat() != "" && (e.GetWithinSlack() != "" || e.GetWithinRatio() != 0):
		return &Error{Field: "within.slack", Message: "goes with predict, not with that"}
	}
	if r := e.GetWithinRatio(); math.IsNaN(r) || r < 0 || r > 1 {
		return &Error{Field: "within.ratio", Message: fmt.Sprintf("%v is no share between 0 and 1", r)}
	}
	return nil
}

func named(field string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.Field = field
		return e
	}
	return fmt.Errorf("%s: %w", field, err)
}

// Applies reports whether the expectation is asked at this point.
func (p *Program) Applies() (bool, error) {
	if p.where == nil {
		return true, nil
	}
	ok, err := p.where.holds(nil)
	if err != nil {
		return false, p.failed("where", err)
	}
	return ok, nil
}

// CheckContrast holds the expectation to its rival: what is permitted must be
// below a quarter of the distance between the two on this kernel, else it
// would pass without showing anything. It is nil where no rival is given.
func (p *Program) CheckContrast(kernel *tcplabv1.Kernel) error {
	if p.rival == nil {
		return nil
	}
	prediction, err := p.prediction(kernel)
	if err != nil {
		return err
	}
	rival, err := p.rival.number(map[string]any{"kernel": kernelObject(kernel)})
	if err != nil {
		return p.failed("rival", err)
	}
	if prediction.permitted*Contrast < math.Abs(prediction.value-rival) {
		return nil
	}
	unit := p.unit()
	return p.failed("rival", fmt.Errorf("the expectation permits %s, which is not below a quarter of the contrast between %s and its rival %s: "+
		"choose a point where they lie further apart, or exclude this one with where",
		human(prediction.permitted, unit), human(prediction.value, unit), human(rival, unit)))
}

// prediction is what is predicted on one kernel.
type prediction struct {
	value     float64
	permitted float64 // how far a measurement may be from it
}

func (p *Program) prediction(kernel *tcplabv1.Kernel) (prediction, error) {
	known := map[string]any{"kernel": kernelObject(kernel)}
	value, err := p.predict.number(known)
	if err != nil {
		return prediction{}, p.failed("predict", err)
	}
	slack := 0.0
	if p.slack != nil {
		if slack, err = p.slack.number(known); err != nil {
			return prediction{}, p.failed("within.slack", err)
		}
		if slack < 0 {
			return prediction{}, p.failed("within.slack", fmt.Errorf("%v is negative", slack))
		}
	}
	return prediction{value: value, permitted: max(p.expectation.GetWithinRatio()*math.Abs(value), slack)}, nil
}

// unit is that of the measurement, or of the prediction where only that is
// known.
func (p *Program) unit() string {
	switch {
	case p.left != nil:
		return first([]string{p.left.unit, p.right.unit})
	case p.measure != nil:
		return first([]string{p.measure.unit, p.predict.unit})
	}
	return ""
}

func (p *Program) failed(field string, err error) error {
	return fmt.Errorf("expectation %q, %s: %w", p.expectation.GetName(), field, err)
}
