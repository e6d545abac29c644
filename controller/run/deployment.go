package run

import (
	"context"
	"sync"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// renewals is how often a lease is renewed in its time: two may be lost.
const renewals = 3

// deployment is a lab that stands on an agent, and the goroutine that keeps
// its lease, which release ends.
type deployment struct {
	nodes []*tcplabv1.DeployedNode
	ctx   context.Context // ends with release, or when the agent lost it
	stop  context.CancelCauseFunc
	keep  sync.WaitGroup
}

// stand takes a deployment that Apply has built, and keeps its lease.
func stand(cfg Config, id string, nodes []*tcplabv1.DeployedNode) *deployment {
	d := &deployment{nodes: nodes}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	d.keep.Go(func() { d.renew(cfg, id) })
	return d
}

// renew renews the lease until the deployment is released or lost: the agent
// does not know it any more, or did not answer for a whole lease.
func (d *deployment) renew(cfg Config, id string) {
	tick := time.NewTicker(cfg.Lease / renewals)
	defer tick.Stop()
	for missed := 0; ; {
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(d.ctx, cfg.Lease/renewals)
		_, err := cfg.Agent.RenewLease(ctx, &tcplabv1.RenewLeaseRequest{Term: cfg.Term, DeploymentId: id})
		cancel()
		if err == nil {
			missed = 0
			continue
		}
		missed++
		switch code := rpcerr.From(err).Code; {
		case d.ctx.Err() != nil:
			return
		case code == codes.NotFound, code == codes.FailedPrecondition, missed == renewals:
			d.stop(&failure{
				reason: tcplabv1.FailureReason_FAILURE_REASON_TRIAL,
				words:  words("the agent lost the lab", rpcerr.From(err)), cause: err,
			})
			return
		}
		cfg.Log.Warn("a lease could not be renewed", "deployment", id, "missed", missed, "error", err)
	}
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
	d.keep.Wait()
}
