// Package lease keeps deployments on an agent for as long as their owner wants
// them: it renews their leases, and tells when one is lost.
//
// It refuses to hope: an agent that does not know the deployment any more, or did not
// answer for a whole lease, has lost it; an agent that cannot be reached may be waited for longer, for
// it may have carried out by itself what the deployment is for.
package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Default is how long an agent keeps a deployment whose controller is not
// heard of.
const Default = 30 * time.Second

// renewals is how often a lease is renewed in its time: two may be lost.
const renewals = 3

// Config is what leases are kept with.
type Config struct {
	Agent tcplabv1.AgentServiceClient
	// Term of the controller, which commands carry.
	Term uint64
	// Length of the lease; not 0.
	Length time.Duration
	// Patience is how long an agent may be out of reach until the deployment is lost; 0: as long as the lease.
	Patience time.Duration
	// Log takes renewals that failed. Never nil.
	Log *slog.Logger
}

// Lease is one deployment's, and the goroutine that renews it, which ends with Release.
type Lease struct {
	stop context.CancelFunc
	keep sync.WaitGroup
}

// Keep renews the lease of a deployment that stands, until it is released or lost; then
// lost is called with the agent's error, once. The caller releases it.
func Keep(cfg Config, id string, lost func(error)) *Lease {
	ctx, stop := context.WithCancel(context.Background())
	l := &Lease{stop: stop}
	l.keep.Go(func() { renew(ctx, cfg, id, lost) })
	return l
}

func renew(ctx context.Context, cfg Config, id string, lost func(error)) {
	tick := time.NewTicker(cfg.Length / renewals)
	defer tick.Stop()
	last := time.Now()
	for missed := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		call, cancel := context.WithTimeout(ctx, cfg.Length/renewals)
		_, err := cfg.Agent.RenewLease(call, &tcplabv1.RenewLeaseRequest{Term: cfg.Term, DeploymentId: id})
		cancel()
		if err == nil {
			missed, last = 0, time.Now()
			continue
		}
		missed++
		switch code := rpcerr.From(err).Code; {
		case ctx.Err() != nil:
			return
		case code == codes.NotFound, code == codes.FailedPrecondition,
			missed >= renewals && time.Since(last) >= cfg.Patience:
			lost(err)
			return
		}
		cfg.Log.Warn("a lease could not be renewed", "deployment", id, "missed", missed, "error", err)
	}
}

// Release ends the lease's renewal, and returns when it has ended. It must not be called by lost.
func (l *Lease) Release() {
	l.stop()
	l.keep.Wait()
}
