//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/agent/spool"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The artifacts with every TCP_INFO sample of a trial and every look at its queues. A series that one file does not
// take has more of them: samples-2.parquet, samples-3.parquet.
const (
	samplesName = "samples.parquet"
	queuesName  = "queues.parquet"
)

// observation is all that watches a trial. It belongs to the trial's goroutine, which ends it with finish.
type observation struct {
	deployment *deployment
	kept       *spool.Trial
	samples    *observe.Samples
	sink       observe.Sink // of all samples
	sampler    *observe.Sampler
	owners     []*observe.Owners // by node; nil: nobody asks for its sockets
	sockets    *observe.Sockets  // nil: nobody asks
	queues     *observe.Queues   // nil: nobody asks
	begin      time.Time         // of the first experiment
	stopped    bool
}

// asked is what the experiments of a lab ask for together, as often as the most eager of them.
func asked(lab *tcplabv1.Lab) *tcplabv1.Observers {
	all := &tcplabv1.Observers{}
	var interval time.Duration
	for _, e := range lab.GetExperiments() {
		o := e.GetObserve()
		all.Sockets = all.GetSockets() || o.GetSockets()
		all.States = all.GetStates() || o.GetStates()
		all.Queues = all.GetQueues() || o.GetQueues()
		if o == nil {
			continue
		}
		own := o.GetInterval().AsDuration()
		if own == 0 {
			own = sampleInterval(e)
		}
		if interval == 0 || own < interval {
			interval = own
		}
	}
	all.Interval = durationpb.New(interval)
	return all
}

// sampleInterval is how often an experiment's flows are sampled.
func sampleInterval(e *tcplabv1.Experiment) time.Duration {
	if d := e.GetSampleInterval().AsDuration(); d > 0 {
		return d
	}
	return flow.DefaultSampleInterval
}

// observeTrial begins to watch what the experiments ask for. The caller ends it with stop and finish.
func (a *agent) observeTrial(t *trial, kept *spool.Trial) (_ *observation, err error) {
	d := t.deployment
	o := &observation{deployment: d, kept: kept, owners: make([]*observe.Owners, len(d.standing.Nodes)), begin: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.discard())
		}
	}()
	scratch, err := kept.Scratch()
	if err != nil {
		return nil, err
	}
	o.samples = observe.NewSamples(scratch)
	o.sink = observe.Sinks{o.samples, t.live}
	if o.sampler, err = observe.NewSampler(); err != nil {
		return nil, err
	}
	asked := asked(d.lab)
	if asked.GetSockets() || asked.GetStates() {
		cfg := observe.SocketsConfig{Interval: asked.GetInterval().AsDuration(), States: asked.GetStates(), Log: a.cfg.Log}
		if asked.GetSockets() {
			cfg.Sink = o.sink
		}
		for i, n := range d.plan.Nodes {
			if ns := d.standing.Nodes[i]; ns != nil && !n.Foreign {
				o.owners[i] = observe.NewOwners()
				cfg.Nodes = append(cfg.Nodes, observe.SocketNode{Name: n.Name, NS: ns, Owners: o.owners[i]})
			}
		}
		if o.sockets, err = observe.WatchSockets(cfg); err != nil {
			return nil, err
		}
	}
	if asked.GetQueues() {
		scratch, err := kept.Scratch()
		if err != nil {
			return nil, err
		}
		o.queues = observe.NewQueues(o.links(), scratch)
		o.queues.Start(asked.GetInterval().AsDuration())
	}
	return o, nil
}

// links are the deployment's links as their queues are looked at.
func (o *observation) links() []observe.Queued {
	all := make([]observe.Queued, len(o.deployment.standing.Links))
	for i, l := range o.deployment.standing.Links {
		all[i] = observe.Queued{Name: o.deployment.plan.Links[i].Name, Read: func() (both [2]observe.Backlog, err error) {
			now, err := l.Backlog()
			for way, b := range now {
				both[way] = observe.Backlog{Packets: uint32(b.Frames), Bytes: uint64(b.Bytes), Overflow: b.Overflow, Early: b.Early, Marked: b.Marked}
			}
			return both, err
		}}
	}
	return all
}

// stop ends watching and enters what was seen into the result, once its flows and links are in it.
func (o *observation) stop(result *tcplabv1.TrialResult) error {
	var errs []error
	if o.stopped {
		return nil
	}
	o.stopped = true
	if o.queues != nil {
		errs = append(errs, o.queues.Stop())
		for i := range o.deployment.plan.Links {
			for way := range 2 {
				o.deployment.place(result.GetLinks(), i, way)[0].Queue = o.queues.Summary(i, way)
			}
		}
	}
	if o.sockets != nil {
		nodes, err := o.sockets.Stop(o.begin)
		o.sockets = nil
		errs = append(errs, err)
		result.Sockets = nodes
		for _, f := range result.GetFlows() {
			enterStates(f, nodes)
		}
	}
	return errors.Join(errs...)
}

// enterStates gives both ends of a flow the states of their first connection, and those of its streams and
// repetitions of theirs.
func enterStates(f *tcplabv1.FlowResult, nodes []*tcplabv1.NodeSockets) {
	enterEnds(f, f.GetName(), false, nodes)
	for i, stream := range f.GetStreams() {
		enterEnds(stream, fmt.Sprintf("%s[%d]", f.GetName(), i), false, nodes)
	}
	for _, one := range f.GetRepetitions() {
		enterEnds(one, f.GetName(), true, nodes)
		for i, stream := range one.GetStreams() {
			enterEnds(stream, fmt.Sprintf("%s[%d]", f.GetName(), i), true, nodes)
		}
	}
}

// enterEnds is enterStates of one result. Repetitions have one name, and their addresses tell them apart.
func enterEnds(f *tcplabv1.FlowResult, name string, repeated bool, nodes []*tcplabv1.NodeSockets) {
	for role, end := range map[string]*tcplabv1.FlowEnd{"client": f.GetClient(), "server": f.GetServer()} {
		for _, n := range nodes {
			if end == nil || n.GetNode() != end.GetNode() {
				continue
			}
			for _, s := range n.GetSockets() {
				if s.GetFlow() != name || s.GetEnd() != role || s.GetRemote() == "" || repeated && end.GetAddress() != "" && s.GetLocal() != end.GetAddress() {
					continue
				}
				end.States, end.StatePath = s.GetStates(), s.GetPath()
				break
			}
		}
	}
}

// finish makes files of what was seen and enters them into the result. Nothing of the observation is left, whether
// it was stopped or not.
func (o *observation) finish(result *tcplabv1.TrialResult) error {
	errs := []error{o.stop(result), o.sampler.Close()}
	samples := &series{kept: o.kept, name: samplesName}
	errs = append(errs, o.samples.Finish(samples))
	result.Artifacts = append(result.Artifacts, samples.artifacts...)
	if o.queues != nil {
		queues := &series{kept: o.kept, name: queuesName}
		errs = append(errs, o.queues.Finish(queues))
		result.Artifacts = append(result.Artifacts, queues.artifacts...)
	}
	return errors.Join(errs...)
}

// discard ends what an observation that could not begin has begun.
func (o *observation) discard() error {
	var errs []error
	if o.samples != nil {
		errs = append(errs, o.samples.Discard())
	}
	if o.sampler != nil {
		errs = append(errs, o.sampler.Close())
	}
	if o.sockets != nil {
		_, err := o.sockets.Stop(time.Now())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// series is the artifacts of one series of records. It implements observe.Files.
type series struct {
	kept      *spool.Trial
	name      string // of the first
	file      *spool.File
	artifacts []*tcplabv1.Artifact // whole
}

func (s *series) Open(number int) (_ io.Writer, err error) {
	name := s.name
	if number > 1 {
		stem, kind, _ := strings.Cut(name, ".")
		name = fmt.Sprintf("%s-%d.%s", stem, number, kind)
	}
	s.file, err = s.kept.Create(name)
	return s.file, err
}

func (s *series) Close() error {
	artifact, err := s.file.Commit()
	s.file = nil
	if err == nil {
		s.artifacts = append(s.artifacts, artifact)
	}
	return err
}

func (s *series) Abandon() error {
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return file.Abandon()
}
