//go:build linux

// Package agent is what runs on a lab host: it builds labs, shapes their links,
// runs their experiments and measures both ends, at the command of a
// controller over gRPC (AgentService).
//
// Whatever ends the agent ends its labs: nothing that it makes is pinned
// anywhere. Results alone outlive it, in the spool, until the controller has
// acknowledged them.
//
// It refuses commands of an older term than it has seen, a second trial in a
// deployment where one is under way, and results without a disk to keep them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/host"
	"github.com/tcplab/tcplab/agent/spool"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/rpcvalidate"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what an agent is given.
type Config struct {
	// SpoolDir is the folder for results that are not acknowledged yet; made
	// where it is missing. One agent at a time uses it.
	SpoolDir string
	// DiscardSpool removes results of earlier agents at the start: right where the
	// controller ends with its agent and asks for none of them.
	DiscardSpool bool
	// HostName is how the controller knows this host.
	HostName string
	// Version of the tcplab that runs.
	Version string
	// JournalDir is the folder for the journals of changes of the host's own interfaces.
	// Several agents may use one. Default: journals beside SpoolDir.
	JournalDir string
	// PolicyPath is the file in which the host's owner says which of its interfaces labs may
	// shape. Default: policy.DefaultPath.
	PolicyPath string
	// Commanded: the controller is elsewhere, and what the host's owner has not permitted in the policy is
	// refused: programs, and interfaces of the host. Default: whoever runs the agent commands it.
	Commanded bool
	// Watchdog is the command of the watchdog, which calls Watch with the two arguments that
	// are appended. Default: none, and a kernel without TCX shapes no interface of the
	// host's.
	Watchdog []string
	// Management is the addresses at which the agent reaches its controller, or the controller
	// it: traffic with them, from or to the port, is never shaped.
	Management []netip.AddrPort
	// Private are folders, beside SpoolDir and JournalDir, that programs of exec flows do not see.
	Private []string
	// Still says that nothing else goes on and that the clock waits for who computes, as in virtual
	// time.
	Still bool
	// Log takes what nobody asked for; nil: nothing.
	Log *slog.Logger

	step func(string) // told of each change of a host's interface, for tests
}

// DefaultLease is how long a deployment stands whose Apply names no lease
// (ApplyRequest.lease).
const DefaultLease = time.Minute

// maxMessage bounds a message that the agent takes, in bytes: a lab of 4096
// nodes and 8192 links is below 4 MiB.
const maxMessage = 16 << 20

// maxStreams bounds what a controller may ask at a time on one connection.
const maxStreams = 1000

// Run serves AgentService on lis until ctx ends, then takes everything away and
// returns; it closes lis. The error says what kept it from serving; the end of ctx is
// none.
func Run(ctx context.Context, cfg Config, lis net.Listener) (err error) {
	defer lis.Close()
	tasks, ctx := errgroup.WithContext(ctx)
	a, err := newAgent(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	options, err := rpcvalidate.ServerOptions(a.cfg.Log)
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	options = append(options, tunnel.ServerOptions()...)
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.WaitForHandlers(true))...)
	tcplabv1.RegisterAgentServiceServer(server, &service{agent: a})
	tasks.Go(func() error {
		// Stopped before it served is stopped as well.
		if err := server.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve the agent: %w", err)
		}
		return nil
	})
	tasks.Go(func() error {
		a.leases.Run(ctx, a.expire)
		return nil
	})
	tasks.Go(func() error {
		<-ctx.Done()
		defer server.Stop()
		return a.removeAll()
	})
	return tasks.Wait()
}

// newAgent opens what an agent works with; close closes it, once nothing stands any more.
func newAgent(life context.Context, cfg Config) (*agent, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	results, err := spool.Open(cfg.SpoolDir, cfg.DiscardSpool)
	if err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	own := newOwnHost(life, cfg)
	results.Bound(own.policy.Spool())
	return &agent{
		cfg:         cfg,
		spool:       results,
		leases:      guard.NewLeases(),
		life:        life,
		kernel:      sync.OnceValue(host.Kernel),
		host:        own,
		deployments: make(map[string]*deployment),
		trials:      make(map[string]*trial),
	}, nil
}

func (a *agent) close() error { return errors.Join(a.host.close(), a.spool.Close()) }

// agent is what the service acts on. Its methods are safe for concurrent use.
type agent struct {
	cfg    Config
	spool  *spool.Spool
	leases *guard.Leases
	life   context.Context         // ends when the agent does, and all that it made with it
	kernel func() *tcplabv1.Kernel // found out once
	host   *ownHost
	once   bool // see Once

	running sync.WaitGroup // trials

	mu          sync.Mutex // guards what is below
	term        uint64     // the newest seen
	deployments map[string]*deployment
	trials      map[string]*trial
}

// command admits a command of a term, or refuses it as stale.
func (a *agent) command(term uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if term < a.term {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Stale, "Another controller commands this agent now.",
			"the command is of term %d, and this agent has seen term %d", term, a.term)
	}
	a.term = term
	return nil
}

// apply builds the lab, or finds it built. The deployment's lease starts, or starts anew.
func (a *agent) apply(ctx context.Context, id string, lab *tcplabv1.Lab, lease time.Duration) (*tcplabv1.ApplyResponse, error) {
	if lease == 0 {
		lease = DefaultLease
	}
	for {
		d, mine, err := a.claim(id, lab)
		if err != nil {
			return nil, err
		}
		if mine {
			if err := d.build(ctx); err != nil {
				a.forget(d)
				return nil, err
			}
			a.leases.Grant(id, lease)
			return d.response, nil
		}
		stands, err := d.await(ctx)
		if err != nil {
			return nil, err
		}
		if !stands { // it was removed meanwhile
			continue
		}
		if !d.carries(lab) {
			return nil, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Remove the deployment first, or give this one an ID of its own.",
				"deployment %s stands with another lab", id)
		}
		a.leases.Grant(id, lease)
		return d.response, nil
	}
}

// claim finds the deployment, or enters a new one that the caller must build.
func (a *agent) claim(id string, lab *tcplabv1.Lab) (d *deployment, mine bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.life.Err(); err != nil {
		return nil, false, rpcerr.New(codes.Unavailable, "", "", "the agent is ending: %w", err)
	}
	if d, ok := a.deployments[id]; ok {
		return d, false, nil
	}
	d = newDeployment(a.life, id, lab)
	d.host, d.checked, d.still = a.host.get, a.once, a.cfg.Still
	a.deployments[id] = d
	return d, true, nil
}

// forget drops a deployment of which nothing is left.
func (a *agent) forget(d *deployment) {
	a.leases.Drop(d.id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deployments[d.id] == d {
		delete(a.deployments, d.id)
	}
	for id, t := range a.trials {
		if t.deployment == d { // it is carried out, and what it found is in the spool
			delete(a.trials, id)
		}
	}
	close(d.gone)
}

// deployment finds one that stands.
func (a *agent) deployment(ctx context.Context, id string) (*deployment, error) {
	a.mu.Lock()
	d, ok := a.deployments[id]
	a.mu.Unlock()
	if ok {
		stands, err := d.await(ctx)
		if err != nil || stands {
			return d, err
		}
	}
	return nil, rpcerr.New(codes.NotFound, rpcerr.NotFound, "Apply the lab again; a deployment ends with its lease.",
		"deployment %s does not stand on this host", id)
}

// remove takes a deployment away. One that does not stand is no error.
func (a *agent) remove(id string, why error) error {
	a.mu.Lock()
	d, ok := a.deployments[id]
	a.mu.Unlock()
	if !ok {
		return nil
	}
	first, err := d.remove(why)
	if first {
		a.forget(d)
	}
	return err
}

// removeAll takes all deployments away, at the agent's end.
func (a *agent) removeAll() error {
	a.mu.Lock()
	var ids []string
	for id := range a.deployments {
		ids = append(ids, id)
	}
	a.mu.Unlock()
	var group errgroup.Group
	for _, id := range ids {
		group.Go(func() error { return a.remove(id, errAgentEnds) })
	}
	err := group.Wait()
	a.running.Wait()
	return err
}

// expire removes a deployment whose controller has not renewed its lease.
func (a *agent) expire(id string) {
	a.cfg.Log.Warn("a deployment's lease has ended: removing it", "deployment", id)
	if err := a.remove(id, errLeaseEnded); err != nil {
		a.cfg.Log.Error("remove a deployment", "deployment", id, "error", err)
	}
}

// renew starts a deployment's lease anew.
func (a *agent) renew(ctx context.Context, id string) error {
	if _, err := a.deployment(ctx, id); err != nil {
		return err
	}
	if !a.leases.Renew(id) {
		return rpcerr.New(codes.NotFound, rpcerr.NotFound, "Apply the lab again.", "the lease of deployment %s has ended", id)
	}
	return nil
}

// Why a trial was ended from outside.
var (
	errCancelled  = errors.New("it was cancelled")
	errRemoved    = errors.New("its deployment was removed")
	errLeaseEnded = errors.New("its deployment's lease ended: the controller renewed it no more")
	errAgentEnds  = errors.New("the agent ended")
)
