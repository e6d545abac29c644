//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/agent/link/nic"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// deployment is a lab that stands, is being built or is being removed. Who made
// it builds it; then verifications and trials have it one at a time.
type deployment struct {
	id   string
	lab  *tcplabv1.Lab
	host func() (*nic.Host, error) // for links at the host's own interfaces
	// checked says that labs.ValidateStanding has found nothing against the lab.
	checked bool
	still   bool            // Config.Still
	life    context.Context // ends when removal begins
	end     context.CancelCauseFunc

	built    chan struct{} // closed when what follows is set, and constant
	err      error         // why it does not stand
	plan     *topology.Plan
	paths    map[string][]topology.Path // by flow
	engines  *engines
	choice   *choice
	standing *topology.Standing
	response *tcplabv1.ApplyResponse

	removal sync.Once
	uses    sync.WaitGroup // of what stands, beside that which has it busy
	gone    chan struct{}  // closed when nothing of it is left

	schedules standingSchedules // whose the deployment is while it is busy

	mu      sync.Mutex             // guards what is below
	played  []played               // since the links were last re-armed
	busy    string                 // what has it now; empty: nothing
	idle    chan struct{}          // closed when that has ended; nil while idle
	reports []*tcplabv1.LinkReport // of the last verification, or as built
}

func newDeployment(life context.Context, id string, lab *tcplabv1.Lab) *deployment {
	d := &deployment{id: id, lab: lab, built: make(chan struct{}), gone: make(chan struct{})}
	d.life, d.end = context.WithCancelCause(life)
	return d
}

// build makes the lab stand, or leaves nothing. It ends with ctx, the
// deployment's removal or the agent, whichever is first.
func (d *deployment) build(ctx context.Context) (err error) {
	defer close(d.built)
	defer func() { d.err = err }()
	ctx, cancel := d.during(ctx)
	defer cancel()
	if err := d.check(); err != nil {
		return err
	}
	d.engines = newEngines(d.checked)
	if d.choice, err = d.engines.choose(d.plan, d.host); err != nil {
		return errors.Join(err, d.engines.Close())
	}
	if d.standing, err = topology.Build(ctx, d.plan, d.choice.engines); err != nil {
		err = errors.Join(err, d.engines.Close())
		if ctx.Err() != nil {
			return fmt.Errorf("build lab %s: %w", d.lab.GetName(), errors.Join(context.Cause(ctx), err))
		}
		return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "`tcplab doctor` shows what this host can do, and what to do about the rest.",
			"build lab %s: %w", d.lab.GetName(), err)
	}
	d.reports = d.unmeasured()
	if err := d.readBack(d.allLinks(), d.reports); err != nil {
		return errors.Join(err, d.standing.Close(), d.engines.Close())
	}
	d.response = &tcplabv1.ApplyResponse{Nodes: d.nodes(), Links: d.reports, EngineReasons: d.choice.reasons}
	return nil
}

// during is ctx, ended by the deployment's removal as well.
func (d *deployment) during(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.life, func() { cancel(context.Cause(d.life)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// check plans the lab, and refuses one that contradicts itself.
func (d *deployment) check() (err error) {
	if !d.checked {
		if err := Validate(d.lab); err != nil {
			return err
		}
	}
	d.plan, err = topology.New(d.lab)
	if err == nil {
		d.paths, err = paths(d.plan, d.lab)
	}
	if err != nil {
		return rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "", "lab %s: %w", d.lab.GetName(), err)
	}
	return nil
}

// Validate refuses a lab that breaks a rule, with all of its violations.
func Validate(lab *tcplabv1.Lab) error {
	// Expectations are the controller's matter.
	body := &tcplabv1.Lab{
		Name: lab.GetName(), Title: lab.GetTitle(), Point: lab.GetPoint(), Nodes: lab.GetNodes(),
		Links: lab.GetLinks(), Experiments: lab.GetExperiments(), Repeat: lab.GetRepeat(),
	}
	err := labs.ValidateStanding(body)
	if err == nil {
		return nil
	}
	invalid := rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "", "lab %s: %w", lab.GetName(), err)
	if broken, ok := errors.AsType[labs.Violations](err); ok {
		for _, v := range broken {
			invalid.Violations = append(invalid.Violations, rpcerr.Violation{Field: v.Field, Description: v.String()})
		}
	}
	return invalid
}

// paths finds the way of each flow, before anything is built: one hop, or where it has proxies one to
// each of them and one from the last.
func paths(plan *topology.Plan, lab *tcplabv1.Lab) (map[string][]topology.Path, error) {
	all := make(map[string][]topology.Path)
	for _, e := range lab.GetExperiments() {
		for _, f := range e.GetFlows() {
			from, six := f.GetClient(), f.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6
			var nodes []string
			for _, p := range f.GetHttp().GetVia() {
				nodes = append(nodes, p.GetNode())
			}
			for _, to := range append(nodes, f.GetServer()) {
				hop, err := plan.Path(from, to, six)
				if err != nil {
					return nil, fmt.Errorf("flow %s: %w", f.GetName(), err)
				}
				all[f.GetName()] = append(all[f.GetName()], hop)
				from = to
			}
		}
	}
	return all, nil
}

// await waits for the build and reports whether the deployment stands. Where it is
// being removed, await waits for that.
func (d *deployment) await(ctx context.Context) (stands bool, err error) {
	select {
	case <-d.built:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if d.err != nil {
		return false, d.err
	}
	if d.life.Err() == nil {
		return true, nil
	}
	select {
	case <-d.gone:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// carries reports whether the deployment is of this very lab.
func (d *deployment) carries(lab *tcplabv1.Lab) bool { return proto.Equal(d.lab, lab) }

// nodes says what stands.
func (d *deployment) nodes() []*tcplabv1.DeployedNode {
	var all []*tcplabv1.DeployedNode
	for i, n := range d.plan.Nodes {
		node := &tcplabv1.DeployedNode{Name: n.Name}
		if space := d.standing.Nodes[i]; space != nil {
			node.NetnsPath = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), space.FD())
		}
		for _, iface := range n.Interfaces {
			for _, a := range iface.Addresses {
				node.Addresses = append(node.Addresses, a.Addr().String())
			}
		}
		all = append(all, node)
	}
	return all
}

// wayOf is a direction as it travels: 0 is from the link's end a to b.
func wayOf(direction int) tcplabv1.LinkDirection {
	if direction == 0 {
		return tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD
	}
	return tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD
}

// occupy takes the deployment for one use, until release. Where it is in use
// already it refuses.
func (d *deployment) occupy(use string) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() != nil {
		return nil, d.removed()
	}
	if d.idle != nil {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Wait until it has ended, or cancel it.",
			"deployment %s has %s under way", d.id, d.busy)
	}
	done := make(chan struct{})
	d.busy, d.idle = use, done
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.busy, d.idle = "", nil
		close(done)
	}, nil
}

// hold keeps the host's own packets out of those of the links that are at its interfaces, until
// resume: a link is measured idle.
func (d *deployment) hold(links []int) (resume func() error, err error) {
	var releases []func() error
	resume = func() error {
		var errs []error
		for _, release := range releases {
			errs = append(errs, release())
		}
		return errors.Join(errs...)
	}
	for _, i := range links {
		at, ok := d.standing.Links[i].(*nic.Link)
		if !ok {
			continue
		}
		release, err := at.Hold()
		if err != nil {
			return nil, errors.Join(err, resume())
		}
		releases = append(releases, release)
	}
	return resume, nil
}

// enter keeps what stands for one of any number of uses at a time, until leave. The use
// ends with the deployment's life.
func (d *deployment) enter() (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() != nil {
		return nil, d.removed()
	}
	d.uses.Add(1)
	return d.uses.Done, nil
}

// removed is the error of a use that comes too late.
func (d *deployment) removed() error {
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "deployment %s is being removed", d.id)
}

// verified is a copy of the links' last reports.
func (d *deployment) verified() []*tcplabv1.LinkReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*tcplabv1.LinkReport, len(d.reports))
	for i, r := range d.reports {
		all[i] = proto.CloneOf(r)
	}
	return all
}

// remove ends what is under way and takes the lab away. It returns when nothing
// is left; first says that this call did it.
func (d *deployment) remove(why error) (first bool, err error) {
	d.removal.Do(func() {
		first = true
		d.mu.Lock() // who sees its life has entered before this, or will not
		d.end(why)
		d.mu.Unlock()
		<-d.built
		if d.err != nil {
			return // its builder left nothing, and forgets it
		}
		d.mu.Lock()
		idle := d.idle
		d.mu.Unlock()
		if idle != nil {
			<-idle
		}
		d.uses.Wait()
		// A change that failed is in the log.
		_ = d.schedules.stop()
		if err = errors.Join(d.standing.Close(), d.engines.Close()); err != nil {
			err = fmt.Errorf("remove deployment %s: %w", d.id, err)
		}
	})
	return first && d.err == nil, err
}
