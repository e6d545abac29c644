//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/command"
	"github.com/tcplab/tcplab/agent/flow/connect"
	nameserver "github.com/tcplab/tcplab/agent/flow/dns"
	"github.com/tcplab/tcplab/agent/flow/web"
	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// traffic is a flow of any kind. Its methods are called in this order, each once; Close may
// come at any time and from anywhere.
type traffic interface {
	// Listen makes the flow ready, so that all flows of an experiment are before any starts.
	Listen(ctx context.Context) error
	// Run begins at once, carries the flow out and returns what was measured, however it
	// ended, soon after ctx has ended at the latest. A flow with a duration (Flow.duration)
	// ends in order after it, by itself.
	Run(ctx context.Context) *tcplabv1.FlowResult
	// Close ends it, abruptly if it still runs, and waits until nothing of it is left.
	Close() error
}

// newTraffic checks a flow and touches nothing.
func (a *agent) newTraffic(t *trial, spec *tcplabv1.Flow, e *tcplabv1.Experiment, watching *observation) (traffic, error) {
	if spec.GetExec() != nil {
		return a.newCommand(t, spec)
	}
	cfg, err := a.flowConfig(t.deployment, spec, e, watching)
	if err != nil {
		return nil, err
	}
	if spec.GetDns() != nil {
		return nameserver.New(spec, nameserver.Config{
			Client: cfg.Client.NS, Server: cfg.Server.NS, Address: cfg.Server.Addr, Nodes: t.deployment.plan.Names(t.deployment.paths[spec.GetName()][0].Client),
		})
	}
	f, err := newConnecting(spec, cfg, t.deployment.proxies(spec, watching))
	if err != nil || spec.GetResolve() == nil {
		return f, err
	}
	way, err := t.deployment.plan.Path(spec.GetClient(), spec.GetResolve().GetAt(), spec.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6)
	if err != nil {
		return nil, fmt.Errorf("flow %s: its name server: %w", spec.GetName(), err)
	}
	return nameserver.NewResolving(f, spec, nameserver.Query{Node: cfg.Client.NS, Server: way.Destination}, cfg.Server.Addr), nil
}

// newConnecting is newTraffic for flows whose client connects.
func newConnecting(spec *tcplabv1.Flow, cfg flow.Config, via []web.Hop) (traffic, error) {
	switch {
	case spec.GetConnect() != nil:
		return connect.New(spec, cfg)
	case spec.GetHttp() != nil:
		return web.New(spec, web.Config{Config: cfg, Via: via})
	}
	return flow.New(spec, cfg)
}

// flowConfig is what the flow is given beside its specification.
func (a *agent) flowConfig(d *deployment, spec *tcplabv1.Flow, e *tcplabv1.Experiment, watching *observation) (flow.Config, error) {
	path := d.paths[spec.GetName()]
	first, last := path[0], path[len(path)-1]
	source := first.Source
	if text := spec.GetSource(); text != "" {
		var err error
		if source, err = netip.ParseAddr(text); err != nil {
			return flow.Config{}, fmt.Errorf("flow %s: source: %w", spec.GetName(), err)
		}
	}
	return flow.Config{
		Client: flow.End{
			Node: spec.GetClient(), NS: d.standing.Nodes[first.Client], Addr: source,
			Flow: spec.GetName(), Owners: watching.owners[first.Client],
		},
		Server: flow.End{
			Node: spec.GetServer(), NS: d.standing.Nodes[last.Server], Addr: last.Destination,
			Flow: spec.GetName(), Owners: watching.owners[last.Server],
		},
		SampleInterval:   e.GetSampleInterval().AsDuration(),
		SampleCongestion: e.GetObserve().GetCongestion(),
		Samples:          watching.sink,
		Sampler:          watching.sampler,
		Log:              a.cfg.Log,
	}, nil
}

// proxies are where a flow's are.
func (d *deployment) proxies(spec *tcplabv1.Flow, watching *observation) []web.Hop {
	var all []web.Hop
	path := d.paths[spec.GetName()]
	for i, hop := range path[1:] {
		all = append(all, web.Hop{
			End: flow.End{
				Node: d.plan.Nodes[hop.Client].Name, NS: d.standing.Nodes[hop.Client], Addr: path[i].Destination,
				Flow: spec.GetName(), Owners: watching.owners[hop.Client],
			},
			Out: hop.Source,
		})
	}
	return all
}

// permit refuses a trial whose exec flows would start what is not permitted.
func permit(lab *tcplabv1.Lab, permission tcplabv1.ExecPermission) error {
	err := labs.Permit(lab, permission)
	broken, ok := errors.AsType[labs.Violations](err)
	if !ok {
		return err
	}
	refused := rpcerr.New(codes.PermissionDenied, rpcerr.NotPermitted, "", "lab %s: %w", lab.GetName(), err)
	for _, v := range broken {
		refused.Violations = append(refused.Violations, rpcerr.Violation{Field: v.Field, Description: v.String()})
	}
	return refused
}

// newCommand is newTraffic for an exec flow.
func (a *agent) newCommand(t *trial, spec *tcplabv1.Flow) (traffic, error) {
	cfg := command.Config{Keep: t.files.keep}
	for _, dir := range append([]string{a.cfg.SpoolDir, a.cfg.JournalDir}, a.cfg.Private...) {
		if dir == "" {
			continue
		}
		dir, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		cfg.Hidden = append(cfg.Hidden, dir)
	}
	for node, into := range map[string]*program.Spec{spec.GetClient(): &cfg.Client, spec.GetServer(): &cfg.Server} {
		var err error
		if *into, err = t.deployment.surroundings(node); err != nil {
			return nil, err
		}
	}
	return command.New(spec, cfg)
}

// prepare opens a flow's port. The caller closes the flow.
func (a *agent) prepare(ctx context.Context, t *trial, spec *tcplabv1.Flow, e *tcplabv1.Experiment, watching *observation) (traffic, error) {
	f, err := a.newTraffic(t, spec, e, watching)
	if err != nil {
		return nil, err
	}
	if err := f.Listen(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
