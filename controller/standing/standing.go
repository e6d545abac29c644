// Package standing keeps labs standing on an agent, by names of their own, until they
// are deleted: it has them built and verified, keeps their leases, changes their
// links, and hands programs to their nodes.
//
// It refuses two deployments of one name, a link's change that is meant for another
// state than the link is in, and one after which the lab would be none.
package standing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/lease"
	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what deployments are kept with.
type Config struct {
	// Agent is the one host of an embedded lab; not used where there are Hosts.
	Agent tcplabv1.AgentServiceClient
	// Hosts are those of a fleet; nil: there is Agent alone.
	Hosts run.Hosts
	// Term of this controller, which commands carry; 0 in an embedded lab.
	Term uint64
	// Lease of deployments, 1 s to 24 h; 0 means lease.Default.
	Lease time.Duration
	// HolderPID is the process that clients are told of.
	HolderPID int
	// Emptied is called each time that the last deployment is gone, whether it was
	// deleted or lost; it must not wait for that. Nil: nobody wants to know.
	Emptied func()
	// Log takes what is no caller's error. Never nil.
	Log *slog.Logger
}

// Deployments are the labs that stand. Methods are safe for concurrent use.
type Deployments struct {
	cfg Config

	mu     sync.Mutex
	byName map[string]*deployment
	ending bool
}

// Request is what a deployment was asked for with.
type Request struct {
	ID     string // of the client; empty: none
	Digest []byte // tells what is asked for from what another request does
}

// deployment is a lab that stands, is built or is removed.
type deployment struct {
	name    string
	request Request
	host    string // on which it stands
	agent   tcplabv1.AgentServiceClient
	release func()             // of its use of the host
	lab     *tcplabv1.Lab      // as it was built; constant
	cancel  context.CancelFunc // ends its building
	ready   chan struct{}      // closed when it stands or will not
	gone    chan struct{}      // closed when nothing of it is left
	removal sync.Once
	lease   *lease.Lease // once it is ready and stands
	change  sync.Mutex   // held over each change of a link

	mu      sync.Mutex
	message *tcplabv1.Deployment // guarded by mu; its links carry no reports
	past    [][]version          // by link: what it was before, newest last; guarded by mu
}

// New makes an empty set.
func New(cfg Config) *Deployments {
	if cfg.Lease == 0 {
		cfg.Lease = lease.Default
	}
	return &Deployments{cfg: cfg, byName: map[string]*deployment{}}
}

// id is the deployment's on the agent, where trials have theirs too.
func (d *deployment) id() string { return "standing." + d.name }

// Create has the lab built and its links verified; until then the call's end
// ends that, and leaves nothing. Where the request made a deployment before, that
// is returned. Errors: ALREADY_EXISTS, ABORTED where a link is wrong, UNAVAILABLE after
// Close, the agent's.
func (s *Deployments) Create(ctx context.Context, name string, lab *tcplabv1.Lab, req Request) (*tcplabv1.Deployment, error) {
	for {
		d, mine, err := s.claim(name, lab, req)
		if err != nil {
			return nil, err
		}
		if mine {
			return s.build(ctx, d)
		}
		select {
		case <-d.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if d.lease != nil {
			return d.copy(), nil
		}
		<-d.gone // it was not to be; perhaps now
	}
}

// claim enters a deployment that the caller must build, or finds that of the request.
func (s *Deployments) claim(name string, lab *tcplabv1.Lab, req Request) (d *deployment, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return nil, false, rpcerr.New(codes.Unavailable, "", "", "create deployment %s: the controller is stopping", name)
	}
	for _, d := range s.byName {
		if req.ID == "" || d.request.ID != req.ID {
			continue
		}
		if !bytes.Equal(d.request.Digest, req.Digest) {
			return nil, false, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Give each request an ID of its own.",
				"request %s asked for something else, deployment %s", req.ID, d.name)
		}
		return d, false, nil
	}
	if s.byName[name] != nil {
		return nil, false, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Take it down, or give this one another name.",
			"a deployment %s stands already", name)
	}
	host, agent, release := "", s.cfg.Agent, func() {}
	if s.cfg.Hosts != nil {
		if host, err = s.cfg.Hosts.Choose([]*tcplabv1.Lab{lab}); err != nil {
			return nil, false, err
		}
		agent, release = s.cfg.Hosts.Agent(host), s.cfg.Hosts.Use(host, "deployment/"+name)
	}
	d = &deployment{
		name: name, request: req, host: host, agent: agent, release: release, lab: lab, ready: make(chan struct{}), gone: make(chan struct{}),
		message: &tcplabv1.Deployment{
			Name: name, Lab: lab, State: tcplabv1.DeploymentState_DEPLOYMENT_STATE_BUILDING,
			CreateTime: timestamppb.Now(), HolderPid: uint32(s.cfg.HolderPID), Host: host,
		},
		past: make([][]version, len(lab.GetLinks())),
	}
	s.byName[name] = d
	return d, true, nil
}

// build makes the deployment stand, or leaves nothing.
func (s *Deployments) build(ctx context.Context, d *deployment) (_ *tcplabv1.Deployment, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	d.cancel = cancel
	s.mu.Unlock()
	var kept *lease.Lease
	defer func() {
		close(d.ready) // before its lease is released: that may just be lost, and wait for this
		if err == nil {
			return
		}
		if kept != nil {
			kept.Release()
		}
		if awayErr := s.takeAway(context.WithoutCancel(ctx), d); awayErr != nil {
			s.cfg.Log.Error("a deployment that does not stand could not be removed", "deployment", d.name, "error", awayErr)
		}
		s.forget(d)
	}()
	applied, err := d.agent.Apply(ctx, &tcplabv1.ApplyRequest{
		Term: s.cfg.Term, DeploymentId: d.id(), Lab: d.lab, Lease: durationpb.New(s.cfg.Lease),
	})
	if err != nil {
		return nil, agentError(err, "build lab %s", d.lab.GetName())
	}
	kept = lease.Keep(lease.Config{Agent: d.agent, Term: s.cfg.Term, Length: s.cfg.Lease, Log: s.cfg.Log}, d.id(), func(err error) {
		<-d.ready
		s.cfg.Log.Error("a deployment was lost", "deployment", d.name, "error", err)
		s.forget(d)
	})
	verified, err := d.agent.Verify(ctx, &tcplabv1.VerifyRequest{Term: s.cfg.Term, DeploymentId: d.id()})
	if err != nil {
		return nil, agentError(err, "verify the links of lab %s", d.lab.GetName())
	}
	if wrong := run.WrongLinks(verified.GetLinks()); wrong != "" {
		return nil, rpcerr.New(codes.Aborted, rpcerr.LinkWrong, "Leave the host idle, or ask for what it can carry.", "lab %s does not stand: %s", d.lab.GetName(), wrong)
	}
	if _, err := d.agent.StartSchedules(ctx, &tcplabv1.StartSchedulesRequest{Term: s.cfg.Term, DeploymentId: d.id()}); err != nil {
		return nil, agentError(err, "start the schedules of lab %s", d.lab.GetName())
	}
	d.mu.Lock()
	d.message.State = tcplabv1.DeploymentState_DEPLOYMENT_STATE_STANDING
	d.message.Nodes, d.message.EngineReasons = applied.GetNodes(), applied.GetEngineReasons()
	for _, l := range d.lab.GetLinks() {
		d.message.Links = append(d.message.Links, deployedLink(l, verified.GetLinks()))
	}
	d.mu.Unlock()
	d.lease = kept
	answer := d.copy()
	return answer, withReports(answer.GetLinks(), verified.GetLinks())
}

// copy is the deployment as it is now.
func (d *deployment) copy() *tcplabv1.Deployment {
	d.mu.Lock()
	defer d.mu.Unlock()
	return proto.CloneOf(d.message)
}

// find is the deployment that stands by the name.
func (s *Deployments) find(ctx context.Context, name string) (*deployment, error) {
	s.mu.Lock()
	d := s.byName[name]
	s.mu.Unlock()
	if d != nil {
		select {
		case <-d.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if d.lease != nil {
			return d, nil
		}
	}
	return nil, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "no deployment is called %s", name)
}

// Get reads a deployment, its links read back.
func (s *Deployments) Get(ctx context.Context, name string) (*tcplabv1.Deployment, error) {
	d, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	links, err := s.read(ctx, d, nil)
	if err != nil {
		return nil, err
	}
	answer := d.copy()
	answer.Links = links
	return answer, nil
}

// List reads deployments by name, at most most of those after a name, in short.
func (s *Deployments) List(after string, most int) (all []*tcplabv1.Deployment, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		if name <= after {
			continue
		}
		if len(all) == most {
			return all, all[most-1].GetName()
		}
		short := s.byName[name].copy()
		short.Lab = &tcplabv1.Lab{Name: short.GetLab().GetName(), Title: short.GetLab().GetTitle()}
		for i, l := range short.GetLinks() {
			short.Links[i] = &tcplabv1.DeployedLink{Name: l.GetName(), Engine: l.GetEngine()}
		}
		all = append(all, short)
	}
	return all, ""
}

// Delete ends a deployment's programs and takes it away, also while it is built. It
// returns when nothing is left.
func (s *Deployments) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	d := s.byName[name]
	if d != nil && d.cancel != nil {
		d.cancel()
	}
	s.mu.Unlock()
	if d == nil {
		return rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "no deployment is called %s", name)
	}
	select {
	case <-d.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	if d.lease != nil {
		err = s.remove(ctx, d)
	}
	if err != nil {
		return err
	}
	select {
	case <-d.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove takes away what stands, once; what could not be is the agent's to end, with the lease.
func (s *Deployments) remove(ctx context.Context, d *deployment) (err error) {
	d.removal.Do(func() {
		d.mu.Lock()
		d.message.State = tcplabv1.DeploymentState_DEPLOYMENT_STATE_REMOVING
		d.mu.Unlock()
		d.lease.Release()
		err = s.takeAway(context.WithoutCancel(ctx), d)
		s.forget(d)
	})
	return err
}

// removeWithin bounds what an agent may take to remove a deployment.
const removeWithin = 10 * time.Second

func (s *Deployments) takeAway(ctx context.Context, d *deployment) error {
	ctx, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	if _, err := d.agent.Remove(ctx, &tcplabv1.RemoveRequest{Term: s.cfg.Term, DeploymentId: d.id()}); err != nil {
		return agentError(err, "remove deployment %s", d.name)
	}
	return nil
}

// forget drops a deployment of which nothing is left.
func (s *Deployments) forget(d *deployment) {
	s.mu.Lock()
	known := s.byName[d.name] == d
	if known {
		delete(s.byName, d.name)
		d.release()
		close(d.gone)
	}
	empty := len(s.byName) == 0
	s.mu.Unlock()
	if known && empty && s.cfg.Emptied != nil {
		s.cfg.Emptied()
	}
}

// Close removes all deployments and lets no more in. What is not gone when ctx ends is
// the agent's to end.
func (s *Deployments) Close(ctx context.Context) error {
	s.mu.Lock()
	s.ending = true
	names := slices.Collect(maps.Keys(s.byName))
	s.mu.Unlock()
	errs := make(chan error, len(names))
	for _, name := range names {
		go func() { errs <- s.Delete(ctx, name) }()
	}
	var all error
	for range names {
		select {
		case err := <-errs:
			if err != nil && rpcerr.From(err).Code != codes.NotFound {
				all = errors.Join(all, err)
			}
		case <-ctx.Done():
			return errors.Join(all, ctx.Err())
		}
	}
	return all
}

// agentError is an agent's error with what was being done, and with all that it said to programs.
func agentError(err error, format string, args ...any) error {
	return rpcerr.From(fmt.Errorf(format+": %w", append(args, err)...))
}
