//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/connect"
	"github.com/tcplab/tcplab/agent/observe"
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
func newTraffic(spec *tcplabv1.Flow, cfg flow.Config) (traffic, error) {
	if spec.GetConnect() != nil {
		return connect.New(spec, cfg)
	}
	return flow.New(spec, cfg)
}

// prepare opens a flow's port. The caller closes the flow.
func (a *agent) prepare(ctx context.Context, d *deployment, spec *tcplabv1.Flow, e *tcplabv1.Experiment, samples observe.Sink) (traffic, error) {
	path := d.paths[spec.GetName()]
	source := path.Source
	if text := spec.GetSource(); text != "" {
		var err error
		if source, err = netip.ParseAddr(text); err != nil {
			return nil, fmt.Errorf("flow %s: source: %w", spec.GetName(), err)
		}
	}
	f, err := newTraffic(spec, flow.Config{
		Client:         flow.End{Node: spec.GetClient(), NS: d.standing.Nodes[path.Client], Addr: source},
		Server:         flow.End{Node: spec.GetServer(), NS: d.standing.Nodes[path.Server], Addr: path.Destination},
		SampleInterval: e.GetSampleInterval().AsDuration(),
		Samples:        samples,
		Log:            a.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := f.Listen(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
