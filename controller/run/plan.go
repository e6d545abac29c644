// Package run carries out runs: a Plan lays out their trials, a Driver takes
// one trial after another through an agent and stores what happened, step by
// step, before it goes on.
//
// It refuses to go on after a trial that could not be carried out or a link
// that was not what it should be: nothing measured beside that would mean what
// the lab says.
package run

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// MaxTrials is the most trials of a run (CreateRun's contract).
const MaxTrials = 100_000

// maxRepeat is the most repetitions of a point (RunOptions' contract).
const maxRepeat = 1000

// trialAllowance is what the default timeout grants a trial beside its
// experiments' own timeouts: building, verifying and storing.
const trialAllowance = 2 * time.Minute

// Plan is the cross product of parameter points and repetitions.
//
// The repetitions are the outer loop: a machine that slows down while the run
// goes on touches all points alike, and no point has all its repetitions in
// one bad minute.
type Plan struct {
	points []*tcplabv1.Lab
	repeat uint32
	seed   uint64
	limit  time.Duration
	time   tcplabv1.TimeMode
}

// NewPlan lays out a run of the lab at each of points (at least one), whose
// addresses are assigned. The options' engine goes to the links that name
// none. Errors: INVALID_ARGUMENT for options that mean nothing,
// RESOURCE_EXHAUSTED where there would be more than MaxTrials.
func NewPlan(points []*tcplabv1.Lab, opts *tcplabv1.RunOptions) (*Plan, error) {
	if err := checkOptions(opts); err != nil {
		return nil, err
	}
	p := &Plan{repeat: max(1, points[0].GetRepeat()), seed: opts.GetSeed(), limit: opts.GetTimeout().AsDuration(), time: opts.GetTime()}
	if opts.GetRepeat() > 0 {
		p.repeat = opts.GetRepeat()
	}
	if trials := uint64(len(points)) * uint64(p.repeat); trials > MaxTrials {
		return nil, rpcerr.New(codes.ResourceExhausted, rpcerr.LabInvalid, "sweep fewer values or repeat less",
			"%d parameter points × %d repetitions are %d trials, more than %d", len(points), p.repeat, trials, MaxTrials)
	}
	for _, point := range points {
		lab := proto.CloneOf(point)
		for _, link := range lab.GetLinks() {
			if link.GetEngine() <= tcplabv1.Engine_ENGINE_AUTO {
				link.Engine = max(tcplabv1.Engine_ENGINE_AUTO, opts.GetEngine())
			}
		}
		p.points = append(p.points, lab)
	}
	return p, nil
}

// checkOptions refuses what RunOptions' comments rule out.
func checkOptions(opts *tcplabv1.RunOptions) error {
	refuse := func(field, format string, value any) error {
		e := rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", format, value)
		e.Violations = []rpcerr.Violation{{Field: "options." + field, Description: e.Message}}
		return e
	}
	_, known := tcplabv1.Engine_name[int32(opts.GetEngine())]
	virtual := opts.GetTime() > tcplabv1.TimeMode_TIME_MODE_REAL
	switch {
	case virtual && opts.GetKeep():
		return refuse("keep", "%s", "a guest's nodes cannot be entered: virtual time keeps none")
	case virtual && opts.GetEngine() == tcplabv1.Engine_ENGINE_WIRE:
		return refuse("engine", "%s", "the wire engine goes by the real clock: virtual time takes netem")
	case opts.GetRepeat() > maxRepeat:
		return refuse("repeat", fmt.Sprintf("%%d repetitions are more than %d", maxRepeat), opts.GetRepeat())
	case !known:
		return refuse("engine", "there is no engine %d", opts.GetEngine())
	case opts.GetTimeout() != nil && opts.GetTimeout().AsDuration() <= 0:
		return refuse("timeout", "a timeout of %v leaves no time", opts.GetTimeout().AsDuration())
	}
	return nil
}

// Trials is how many there are.
func (p *Plan) Trials() uint32 { return uint32(len(p.points)) * p.repeat }

// Virtual reports whether its trials run in virtual time.
func (p *Plan) Virtual() bool { return p.time > tcplabv1.TimeMode_TIME_MODE_REAL }

// Points is how many parameter points there are.
func (p *Plan) Points() int { return len(p.points) }

// Trial is the lab of a trial (number from 1), with a seed in each direction,
// and the repetition, from 1.
func (p *Plan) Trial(number uint32) (lab *tcplabv1.Lab, repetition uint32) {
	point := (number - 1) % uint32(len(p.points))
	repetition = (number-1)/uint32(len(p.points)) + 1
	lab = proto.CloneOf(p.points[point])
	seedLinks(lab, p.seed, point, repetition)
	return lab, repetition
}

// point is a parameter point's lab (from 0) and the numbers of its trials.
func (p *Plan) point(i int) (lab *tcplabv1.Lab, trials []uint32) {
	for repetition := range p.repeat {
		trials = append(trials, repetition*uint32(len(p.points))+uint32(i)+1)
	}
	return p.points[i], trials
}

// Timeout is when the run is stopped: as the options say, else what the
// experiments' own timeouts add up to, with an allowance for each trial, so
// that it is never what ends a run which goes on.
func (p *Plan) Timeout() time.Duration {
	if p.limit > 0 {
		return p.limit
	}
	var sum time.Duration
	for _, lab := range p.points {
		sum += trialAllowance
		for _, experiment := range lab.GetExperiments() {
			sum += experimentTimeout(experiment)
		}
	}
	return sum * time.Duration(p.repeat)
}

func experimentTimeout(e *tcplabv1.Experiment) time.Duration {
	if e.GetTimeout() != nil {
		return e.GetTimeout().AsDuration()
	}
	return labs.DefaultTimeout
}

// Message is the plan for those who ask what a run would do.
func (p *Plan) Message() *tcplabv1.RunPlan {
	m := &tcplabv1.RunPlan{
		Lab: p.points[0].GetName(), Title: p.points[0].GetTitle(), Repeat: p.repeat, TrialsCount: p.Trials(),
	}
	var sum time.Duration
	for _, lab := range p.points {
		one := estimate(lab)
		sum += one
		m.Points = append(m.Points, &tcplabv1.PlannedPoint{Lab: lab, Estimate: durationpb.New(one)})
	}
	m.Estimate = durationpb.New(sum * time.Duration(p.repeat))
	return m
}
