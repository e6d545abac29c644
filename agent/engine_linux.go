package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/host"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/netem"
	"github.com/tcplab/tcplab/agent/link/nic"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/link/wire"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// engines are those of one deployment, so that what links share goes with it.
type engines struct {
	byKind map[tcplabv1.Engine]link.Engine
	wire   error // why there is no wire engine
}

// newEngines makes them all; in a guest kernel that has netem there is no other.
func newEngines(netemAlone bool) *engines {
	e := &engines{byKind: map[tcplabv1.Engine]link.Engine{
		tcplabv1.Engine_ENGINE_NETEM: netem.New(),
		tcplabv1.Engine_ENGINE_VETH:  veth.Engine{},
	}}
	if netemAlone {
		e.wire = errors.New("the wire engine goes by the real clock")
	} else if w, err := wire.New(wire.Options{}); err != nil {
		e.wire = err
	} else {
		e.byKind[tcplabv1.Engine_ENGINE_WIRE] = w
	}
	return e
}

// Close ends what links shared; they are closed by now.
func (e *engines) Close() error {
	var errs []error
	for _, engine := range e.byKind {
		errs = append(errs, engine.Close())
	}
	return errors.Join(errs...)
}

// check says why an engine cannot make a link here.
func (e *engines) check(kind tcplabv1.Engine, spec link.Spec) error {
	engine, ok := e.byKind[kind]
	if !ok {
		return e.wire
	}
	return engine.Check(spec)
}

// choice is which engine makes each link, and why.
type choice struct {
	kinds   []tcplabv1.Engine // by link
	engines []link.Engine     // by link
	reasons []string          // one for each engine in use
}

// choose finds an engine for every link of the plan. The error is
// HOST_UNSUPPORTED where this kernel is at fault, LAB_INVALID where the lab is.
// host is where links at its own interfaces stand.
func (e *engines) choose(plan *topology.Plan, host func() (*nic.Host, error)) (*choice, error) {
	c := &choice{}
	reasons := make(map[string][]string) // reason → links
	var order []string
	for i, l := range plan.Links {
		of := e
		if l.Host != nil {
			var err error
			if of, err = e.atInterface(host, nic.Way{End: l.Host.End, Match: l.Host.Match}, plan.Spec(i)); err != nil {
				return nil, err
			}
		}
		kind, reason, err := of.choiceFor(l.Engine, plan.Spec(i))
		if err != nil {
			return nil, err
		}
		c.kinds = append(c.kinds, kind)
		c.engines = append(c.engines, of.byKind[kind])
		if reasons[reason] == nil {
			order = append(order, reason)
		}
		reasons[reason] = append(reasons[reason], l.Name)
	}
	for _, reason := range order {
		c.reasons = append(c.reasons, fmt.Sprintf("%s (%s)", reason, names(reasons[reason])))
	}
	return c, nil
}

// atInterface is the engines for a link at an interface of the host's own.
func (e *engines) atInterface(host func() (*nic.Host, error), way nic.Way, spec link.Spec) (*engines, error) {
	h, err := host()
	if err == nil {
		err = h.Check(spec, way)
	}
	if err != nil {
		return nil, unsupported(spec.Name, err)
	}
	of := &engines{byKind: make(map[tcplabv1.Engine]link.Engine), wire: e.wire}
	for kind, inner := range e.byKind {
		of.byKind[kind] = h.Engine(inner, way)
	}
	return of, nil
}

// choiceFor finds the engine for one link, and says why that one.
func (e *engines) choiceFor(asked tcplabv1.Engine, spec link.Spec) (tcplabv1.Engine, string, error) {
	shaped := !spec.Directions[0].IsZero() || !spec.Directions[1].IsZero()
	switch {
	case asked == tcplabv1.Engine_ENGINE_VETH && shaped:
		return 0, "", rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "Leave its engine to auto, or leave its shape out.",
			"link %s: the veth engine shapes nothing", spec.Name)
	case asked != tcplabv1.Engine_ENGINE_AUTO:
		if err := e.check(asked, spec); err != nil {
			return 0, "", unsupported(spec.Name, err)
		}
		return asked, engineName(asked) + ": the lab asks for it", nil
	case !shaped:
		return tcplabv1.Engine_ENGINE_VETH, "veth: there is nothing to shape", nil
	}
	lacks := e.check(tcplabv1.Engine_ENGINE_NETEM, spec)
	if lacks == nil {
		return tcplabv1.Engine_ENGINE_NETEM, "netem: this kernel has the qdiscs that it takes", nil
	}
	if err := e.check(tcplabv1.Engine_ENGINE_WIRE, spec); err != nil {
		return 0, "", unsupported(spec.Name, errors.Join(lacks, err))
	}
	return tcplabv1.Engine_ENGINE_WIRE, "wire: " + lacks.Error(), nil
}

// probe is what this host is and can do.
func (a *agent) probe(ctx context.Context) (*tcplabv1.Host, error) {
	h, err := host.Probe(ctx)
	if err != nil {
		return nil, err
	}
	h.Name, h.AgentVersion = a.cfg.HostName, a.cfg.Version
	// Beside its group.
	at := slices.IndexFunc(h.Capabilities, func(c *tcplabv1.Capability) bool { return c.GetName() == "tcx" })
	h.Capabilities = slices.Insert(h.Capabilities, at+1, a.host.capability())
	for _, c := range h.GetCapabilities() {
		if c.GetState() == tcplabv1.CapabilityState_CAPABILITY_STATE_REQUIRED {
			h.AutoEngineReason = fmt.Sprintf("no lab can run here: %s: %s", c.GetName(), c.GetDetail())
			return h, nil
		}
	}
	e := newEngines(false)
	// A shape of all that a link can have.
	shape := link.Shape{Rate: 1e7, Delay: time.Millisecond, Loss: link.RandomLoss(0.01), Queue: link.Queue{Packets: link.MinQueuePackets}}
	port := link.Port{Name: "eth0", MTU: topology.DefaultMTU}
	kind, reason, err := e.choiceFor(tcplabv1.Engine_ENGINE_AUTO, link.Spec{
		Name: "any", Ends: [2]link.Port{port, port}, Directions: [2]link.Direction{{Shape: shape}, {Shape: shape}},
	})
	if err != nil {
		reason = err.Error()
	}
	h.AutoEngine, h.AutoEngineReason = kind, reason
	return h, e.Close()
}

// unsupported says that this host cannot make a link, with the engine's own remedy
// where it has one.
func unsupported(name string, err error) error {
	remedy := "`tcplab doctor` shows what this host can do, and what to do about the rest."
	if own, ok := errors.AsType[*rpcerr.Error](err); ok && own.Remedy != "" {
		remedy = own.Remedy
	}
	return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, remedy, "link %s: this host cannot make it: %w", name, err)
}

// engineName is the engine as people write it.
func engineName(e tcplabv1.Engine) string {
	return strings.ToLower(strings.TrimPrefix(e.String(), "ENGINE_"))
}

// names lists what a reason is about, the first few by name.
func names(all []string) string {
	const few = 3
	if len(all) <= few {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}
