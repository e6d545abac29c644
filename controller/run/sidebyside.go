package run

import (
	"context"
	"sync"

	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// sideBySide carries out every trial, as many at once as the host has processors. The first that fails stops those under
// way, and no other begins. No such run is taken up by a later controller: what one is in the middle of is not
// told by how many are done.
func (d *drive) sideBySide(ctx context.Context) *failure {
	if d.agent == nil {
		return failed(tcplabv1.FailureReason_FAILURE_REASON_HOST, "this controller has no agent for virtual time")
	}
	host, err := d.agent.GetHost(ctx, &tcplabv1.GetHostRequest{})
	if err != nil {
		return agentFailure(ctx, "ask the host", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	first := make(chan *failure, 1)
	next := make(chan uint32)
	var workers sync.WaitGroup
	for range min(max(1, host.GetHost().GetCpus()), d.plan.Trials()) {
		workers.Go(func() {
			for number := range next {
				f := stopped(ctx)
				if f == nil {
					f = d.trial(ctx, number)
				}
				if f == nil {
					continue
				}
				select {
				case first <- f:
					stop(errOther)
				default: // its consequence
				}
			}
		})
	}
	for number := uint32(1); number <= d.plan.Trials() && ctx.Err() == nil; number++ {
		select {
		case next <- number:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	select {
	case f := <-first:
		return f
	default:
		return stopped(ctx) // before it began, or between two trials
	}
}

// engine notes which engine shapes the links.
func (d *drive) engine(e tcplabv1.Engine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.Engine = e
}

// ended stores the end of a trial, and that one more is done.
func (d *drive) ended(ctx context.Context, c store.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.TrialsDone++
	c.Run = d.run
	err := d.Store.Commit(ctx, d.run.GetId(), c)
	if err != nil {
		d.run.TrialsDone--
	}
	return err
}
