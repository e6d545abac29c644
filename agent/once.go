//go:build linux

package agent

import (
	"context"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Steps are told what happens in Once. An error of theirs ends it.
type Steps struct {
	Applied  func(*tcplabv1.ApplyResponse) error
	Verified func(*tcplabv1.VerifyResponse) error
	Happened func(*tcplabv1.WatchTrialResponse) error // the last one is the trial's end
}

// Once is an agent for one trial and without a controller, as a guest kernel has it: it builds the lab, measures its
// links, runs the trial where they are what they should be, and seals the result in the spool. The lab
// is taken for checked ([Validate]). No garbage is collected before the trial: Go's collector waits for its end in
// a loop, which on a virtual clock has none. The error is why it did not come to the trial's end.
//
// The lab is left standing: its kernel is to end with this process, or this process at once. There is no lease.
func Once(ctx context.Context, cfg Config, r *tcplabv1.GuestRequest, steps Steps) error {
	trialID, lab := r.GetTrialId(), r.GetLab()
	a, err := newAgent(ctx, cfg)
	if err != nil {
		return err
	}
	a.once = true
	applied, err := a.apply(ctx, trialID, lab, DefaultLease)
	if err != nil {
		return err
	}
	if err := steps.Applied(applied); err != nil {
		return err
	}
	d, err := a.deployment(ctx, trialID)
	if err != nil {
		return err
	}
	links, err := d.verify(ctx, nil, 0)
	if err != nil {
		return err
	}
	if err := steps.Verified(&tcplabv1.VerifyResponse{Links: links}); err != nil {
		return err
	}
	for _, l := range links {
		if l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
			return nil
		}
	}
	if err := a.startTrial(ctx, &tcplabv1.StartTrialRequest{DeploymentId: trialID, TrialId: trialID, Exec: r.GetExec()}); err != nil {
		return err
	}
	return a.watchTrial(ctx, trialID, steps.Happened)
}
