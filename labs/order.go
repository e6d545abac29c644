package labs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// orderSpec is when a flow runs among the others of its experiment, and what its failure means.
type orderSpec struct {
	Start    *duration `yaml:"start" jsonschema_description:"When the flow begins, after the experiment's start, or after the end of the flows in after; up to 24h. Default 0."`
	After    []string  `yaml:"after" jsonschema_description:"Flows of the same experiment after whose end it begins: one, or a list. Default: none."`
	Duration *duration `yaml:"duration" jsonschema_description:"When the flow is ended in order, since its beginning, up to 24h: it begins nothing more. Default: when it has done all it should."`
	Repeat   *count    `yaml:"repeat" jsonschema_description:"How often the flow is carried out, one time after another, 1 to 1000. Default 1."`
	Gap      *duration `yaml:"repeat_gap" jsonschema_description:"What is waited between two times, up to 1h. Default 0."`
	MayFail  *toggle   `yaml:"may_fail" jsonschema_description:"Whether the trial goes on, and succeeds, where this flow does not complete. Default false."`
	Fault    *fault    `yaml:"fault" jsonschema_description:"What the server of a bulk, transaction, burst, connect or http does wrong: refuse (it does not listen), reset (it resets the connection once it has read something), deaf (it never reads nor answers). Default: nothing."`
}

type fault tcplabv1.FlowFault

func (v *fault) read(d *decoder, n *node) { *v = fault(d.choice(n, faultChoices())) }

func faultChoices() []string { return choices(tcplabv1.FlowFault(0).Descriptor(), "FLOW_FAULT_") }

func (c *converter) order(s *orderSpec, at *node, f *tcplabv1.Flow, path string) {
	c.fields(at, path, "start", "start", "after", "after", "duration", "duration", "repeat", "repeat", "repeat_gap", "repeat_gap", "may_fail", "may_fail", "fault", "fault")
	f.Start, f.Duration, f.After = s.Start.proto(), s.Duration.proto(), s.After
	for i := range s.After {
		c.from(at.get("after").item(i), "%s.after[%d]", path, i)
	}
	f.Repeat, f.RepeatGap = c.uint32(at.get("repeat"), s.Repeat), s.Gap.proto()
	if s.Repeat != nil && *s.Repeat == 0 {
		c.add(at.get("repeat").at, "", "the flow is carried out at least once")
	}
	f.MayFail = s.MayFail != nil && bool(*s.MayFail)
	if s.Fault != nil {
		f.Fault = tcplabv1.FlowFault(*s.Fault)
	}
}

// order checks when a flow runs, and that it can be within the time.
func (v *validation) order(field string, f *tcplabv1.Flow, timeout time.Duration) {
	start := f.GetStart().AsDuration()
	if start >= timeout {
		v.add(field+".start", "", "the flow starts at %v, but the experiment's timeout is %v", start, timeout)
	} else if d := f.GetBulk().GetDuration().AsDuration(); d > 0 && start+d >= timeout {
		v.add(field+".bulk.duration", "raise the experiment's timeout", "the flow sends until %v, but the experiment's timeout is %v", start+d, timeout)
	} else if d := f.GetDuration().AsDuration(); d > 0 && start+d >= timeout {
		v.add(field+".duration", "raise the experiment's timeout", "the flow is to end at %v, but the experiment's timeout is %v", start+d, timeout)
	}
	times := time.Duration(max(1, f.GetRepeat()))
	if gap := f.GetRepeatGap().AsDuration(); gap > 0 && times == 1 {
		v.add(field+".repeat_gap", "give it repeat as well", "a flow that is carried out once has no gap")
	} else if least := start + (times-1)*(gap+f.GetBulk().GetDuration().AsDuration()); start < timeout && times > 1 && least >= timeout {
		v.add(field+".repeat", "raise the experiment's timeout", "the last time begins at %v, but the experiment's timeout is %v", least, timeout)
	}
	if f.GetBulk().GetDuration() != nil && f.GetDuration() != nil {
		v.add(field+".duration", "leave one of them out", "the bulk has a duration already")
	}
	if f.GetHttp().GetDuration().AsDuration() > 0 && f.GetDuration() != nil {
		v.add(field+".duration", "leave one of them out", "the load has a duration already")
	}
	switch f.GetKind().(type) {
	case *tcplabv1.Flow_Bulk, *tcplabv1.Flow_Transaction, *tcplabv1.Flow_Burst, *tcplabv1.Flow_Connect, *tcplabv1.Flow_Http:
	default:
		if f.GetFault() != tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
			v.add(field+".fault", "", "only the server of a bulk, a transaction, a burst, a connect or an http flow can be made to fail")
		}
	}
}

// afterward checks that the flows of an experiment come after ones that there are, and none
// after itself.
func (v *validation) afterward(field string, e *tcplabv1.Experiment) {
	index := make(map[string]int)
	var names []string
	for i, f := range e.GetFlows() {
		if _, twice := index[f.GetName()]; !twice {
			index[f.GetName()] = i
		}
		names = append(names, f.GetName())
	}
	known := true
	for i, f := range e.GetFlows() {
		seen := make(map[string]bool)
		for j, name := range f.GetAfter() {
			at := fmt.Sprintf("%s.flows[%d].after[%d]", field, i, j)
			switch _, ok := index[name]; {
			case !ok && v.elsewhere(name):
				v.add(at, "experiments run one after another, in their order", "the flow %q is of another experiment", name)
				known = false
			case !ok:
				v.add(at, didYouMean(name, names), "unknown flow %q", name)
				known = false
			case seen[name]:
				v.add(at, "", "the flow %q is there twice", name)
			}
			seen[name] = true
		}
	}
	if !known {
		return
	}
	if circle := circleOf(e.GetFlows(), index); len(circle) > 0 {
		i := index[circle[0]]
		v.add(fmt.Sprintf("%s.flows[%d].after", field, i), "one of them has to begin first",
			"the flow waits for itself: %s", strings.Join(append(circle, circle[0]), " after "))
	}
}

// elsewhere tells whether any experiment has a flow of the name.
func (v *validation) elsewhere(name string) bool {
	return slices.ContainsFunc(v.lab.GetExperiments(), func(e *tcplabv1.Experiment) bool {
		return slices.ContainsFunc(e.GetFlows(), func(f *tcplabv1.Flow) bool { return f.GetName() == name })
	})
}

// circleOf is the first circle of flows that wait for one another, from the one that stands
// first in the file; empty: there is none.
func circleOf(flows []*tcplabv1.Flow, index map[string]int) []string {
	const (
		unseen = iota
		onPath
		done
	)
	state := make([]int, len(flows))
	var path []string
	var visit func(i int) []string
	visit = func(i int) []string {
		state[i] = onPath
		path = append(path, flows[i].GetName())
		for _, name := range flows[i].GetAfter() {
			switch next := index[name]; state[next] {
			case onPath:
				return slices.Clone(path[slices.Index(path, name):])
			case unseen:
				if circle := visit(next); circle != nil {
					return circle
				}
			}
		}
		path = path[:len(path)-1]
		state[i] = done
		return nil
	}
	for i := range flows {
		if state[i] == unseen {
			if circle := visit(i); circle != nil {
				return circle
			}
		}
	}
	return nil
}
