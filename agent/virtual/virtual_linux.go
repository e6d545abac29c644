package virtual

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/internal/rpcvalidate"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what guests are made with.
type Config struct {
	// Dir is a folder for guests, which is emptied at the start; made where it is missing. One process at
	// a time uses it. Its name has no space in it.
	Dir string
	// Kernels are the folders in which guest kernels are looked for.
	Kernels []string
	// Memory of a guest in bytes. It takes of the host what it uses of that. Default 1 GiB.
	Memory int64
	// Limit is the real time that one trial may take. Default 10 min.
	Limit time.Duration
	// Spin is the real time for which a guest's clock may stand still before whatever runs there
	// is taken to spin. Default 15 s.
	Spin time.Duration
	// HostName and Version are as of any agent.
	HostName, Version string
	// Log takes what nobody asked for; nil: nothing.
	Log *slog.Logger

	params []string // more of the guest kernel's parameters, for tests
}

const (
	defaultMemory = 1 << 30
	defaultLimit  = 10 * time.Minute
	defaultSpin   = 15 * time.Second
	// defaultLease is the contract's (ApplyRequest.lease).
	defaultLease = time.Minute
	// maxMessage bounds a message that is taken, as of any agent.
	maxMessage = 16 << 20
)

// Run serves AgentService on lis until ctx ends, then kills all guests and returns; it closes lis.
// The error says what kept it from serving; the end of ctx is none.
func Run(ctx context.Context, cfg Config, lis net.Listener) (err error) {
	defer lis.Close()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Memory = cmp.Or(cfg.Memory, defaultMemory)
	cfg.Limit = cmp.Or(cfg.Limit, defaultLimit)
	cfg.Spin = cmp.Or(cfg.Spin, defaultSpin)
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return fmt.Errorf("start the agent of virtual time: %w", err)
	}
	if err := sweep(cfg.Dir); err != nil {
		return fmt.Errorf("start the agent of virtual time: %w", err)
	}
	options, err := rpcvalidate.ServerOptions(cfg.Log)
	if err != nil {
		return fmt.Errorf("start the agent of virtual time: %w", err)
	}
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(maxMessage), grpc.WaitForHandlers(true))...)
	tasks, ctx := errgroup.WithContext(ctx)
	a := &guests{cfg: cfg, life: ctx, leases: guard.NewLeases(), byID: make(map[string]*guest)}
	tcplabv1.RegisterAgentServiceServer(server, &service{guests: a})
	tasks.Go(func() error {
		if err := server.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve the agent of virtual time: %w", err)
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
	return errors.Join(tasks.Wait(), sweep(cfg.Dir))
}

// sweep removes what guests have left whose agent was killed: kernels die with it, files do not.
func sweep(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("sweep the folder of guests: %w", err)
	}
	return nil
}

// guests are what the service acts on. Its methods are safe for concurrent use.
type guests struct {
	cfg    Config
	life   context.Context // ends when the agent does, and all guests with it
	leases *guard.Leases

	mu   sync.Mutex // guards what is below
	made int        // guests so far
	byID map[string]*guest
}

// guest finds one that is there, by its deployment's ID.
func (a *guests) guest(id string) (*guest, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, ok := a.byID[id]
	return g, ok
}

// claim finds the guest of a deployment, or enters a new one, which the caller must boot.
func (a *guests) claim(r *tcplabv1.ApplyRequest) (g *guest, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if g, ok := a.byID[r.GetDeploymentId()]; ok {
		return g, false
	}
	g = newGuest(a.life, a.cfg, r, a.made)
	a.made++
	a.byID[g.id] = g
	return g, true
}

// remove kills a guest and removes its files. One that is not there is no error.
func (a *guests) remove(id string, why error) error {
	a.mu.Lock()
	g, ok := a.byID[id]
	delete(a.byID, id)
	a.mu.Unlock()
	if !ok {
		return nil
	}
	a.leases.Drop(id)
	return g.remove(why)
}

// removeAll removes all guests, at the agent's end.
func (a *guests) removeAll() error {
	a.mu.Lock()
	var ids []string
	for id := range a.byID {
		ids = append(ids, id)
	}
	a.mu.Unlock()
	var group errgroup.Group
	for _, id := range ids {
		group.Go(func() error { return a.remove(id, errAgentEnds) })
	}
	return group.Wait()
}

// expire removes a guest whose controller has not renewed its lease.
func (a *guests) expire(id string) {
	a.cfg.Log.Warn("a guest's lease has ended: removing it", "deployment", id)
	if err := a.remove(id, errLeaseEnded); err != nil {
		a.cfg.Log.Error("remove a guest", "deployment", id, "error", err)
	}
}

// Why a guest was killed.
var (
	errCancelled  = errors.New("it was cancelled")
	errRemoved    = errors.New("its deployment was removed")
	errLeaseEnded = errors.New("its deployment's lease ended: the controller renewed it no more")
	errAgentEnds  = errors.New("the agent ended")
)
