package run

import (
	"context"

	"github.com/tcplab/tcplab/controller/lease"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// deployment is a lab that stands on an agent for a trial, with its lease, which release ends.
type deployment struct {
	nodes []*tcplabv1.DeployedNode
	ctx   context.Context // ends with release, or when the agent lost it
	stop  context.CancelCauseFunc
	lease *lease.Lease
}

// stand takes a deployment that Apply has built, and keeps its lease.
func stand(drive *drive, id string, nodes []*tcplabv1.DeployedNode) *deployment {
	d := &deployment{nodes: nodes}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	d.lease = lease.Keep(lease.Config{
		Agent: drive.agent, Term: drive.Term, Length: drive.Lease, Patience: drive.Patience, Log: drive.Log,
	}, id, func(err error) {
		d.stop(&failure{
			reason: tcplabv1.FailureReason_FAILURE_REASON_TRIAL,
			words:  words("the agent lost the lab", rpcerr.From(err)), cause: err,
		})
	})
	return d
}

// whileItStands is ctx, which ends also when the deployment is lost.
func (d *deployment) whileItStands(ctx context.Context) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	forget := context.AfterFunc(d.ctx, func() { stop(context.Cause(d.ctx)) })
	return ctx, func() {
		forget()
		stop(nil)
	}
}

// release ends the lease's renewal, and returns when it has ended.
func (d *deployment) release() {
	d.stop(nil)
	d.lease.Release()
}
