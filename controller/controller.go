// Package controller commands agents and keeps what they measure: it plans
// runs, drives their trials one after another, joins the results and judges
// them; and it keeps labs standing that are not run. It serves RunService and
// LabService to whoever runs and uses labs, on any listener: in process for the
// embedded lab, a socket for others.
//
// It refuses to know how an agent is reached, and to open any path that came
// over the wire.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/standing"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcvalidate"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// MaxMessage bounds every message of the services in bytes, both ways; a client
// that reads reports should accept as much. A report that would be longer is
// refused with RESOURCE_EXHAUSTED: its trials can be read in pages.
const MaxMessage = 64 << 20

// farewell is how long streams have to deliver their last events when the
// controller stops.
const farewell = 100 * time.Millisecond

// haste is how long standing labs have to go when the controller stops; then their agent
// ends, or their leases do.
const haste = 500 * time.Millisecond

// Config is what a controller works with.
type Config struct {
	// Store is the state directory. The caller keeps it open until Run has
	// returned. One that OpenReader opened serves what only reads; CreateRun and
	// CancelRun are refused. Nil: there are no runs, and RunService is not served.
	Store *store.Store
	// Agent is the one host of an embedded lab. The caller keeps it serving
	// until Run has returned. May be nil with a reading Store; without it and a fleet LabService is
	// not served.
	Agent tcplabv1.AgentServiceClient
	// Fleet makes this the controller of many hosts, whose callers prove who they are. Nil: all who reach
	// a listener may do everything. It needs a Store that was opened with store.Options.Lasting.
	Fleet *Fleet
	// Virtual is what carries trials in virtual time. Nil: runs in virtual time fail.
	Virtual tcplabv1.AgentServiceClient
	// Emptied is called whenever the last standing lab is gone; nil: nobody asks.
	Emptied func()
	// Lease of deployments; 0 means lease.Default.
	Lease time.Duration
	// Version of this tcplab, for the log.
	Version string
	// Log takes what is no caller's error. Nil: nothing is logged.
	Log *slog.Logger
}

// Run serves the services on every listener until ctx ends or a listener fails.
// Then, within a second, the run under way is stopped and stored as cancelled
// like those that wait, all deployments are removed, watchers get their last
// events, and the listeners are closed. It returns nil where ctx ended
// it.
func Run(ctx context.Context, cfg Config, listeners ...net.Listener) error {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	server, parts, err := build(ctx, cfg, log)
	if err != nil {
		for _, listener := range listeners {
			err = errors.Join(err, listener.Close())
		}
		return fmt.Errorf("start the controller: %w", err)
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make([]error, len(listeners))
	var serving sync.WaitGroup // ends with the server's stop
	for i, listener := range listeners {
		serving.Go(func() {
			// Stopped before it served is stopped as well.
			if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				failed[i] = fmt.Errorf("serve on %v: %w", listener.Addr(), err)
				stop()
			}
		})
	}
	parts.work(ctx) // until ctx ends
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), haste)
	parts.close(last)
	cancel()
	graceful := time.AfterFunc(farewell, server.Stop)
	server.GracefulStop()
	graceful.Stop()
	serving.Wait()
	if parts.fleet != nil {
		parts.fleet.Close()
	}
	return errors.Join(failed...)
}

// parts are what a controller is made of, beside its services.
type parts struct {
	log         *slog.Logger
	driver      *run.Driver             // nil: there are no runs
	deployments *standing.Deployments   // nil: no lab can stand
	fleet       *fleet.Fleet            // nil: there is one host, or none
	tasks       []func(context.Context) // each goes on until its context ends
}

// build makes the server and what serves.
func build(ctx context.Context, cfg Config, log *slog.Logger) (*grpc.Server, *parts, error) {
	p := &parts{log: log}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage)}
	var guarded *guarded
	var hosts run.Hosts
	if cfg.Fleet != nil {
		var err error
		if guarded, err = openFleet(ctx, cfg, log); err != nil {
			return nil, nil, err
		}
		options = append(options, guarded.options()...)
		p.fleet, p.tasks, hosts = guarded.fleet, guarded.tasks, guarded.fleet
	}
	// Behind the gate: who may not call at all is not told what is wrong with the request.
	validate, err := rpcvalidate.ServerOptions(log)
	if err != nil {
		p.abandon()
		return nil, nil, err
	}
	server := grpc.NewServer(append(options, validate...)...)
	term := uint64(0)
	if guarded != nil {
		guarded.register(server)
		term = guarded.term
	}
	if cfg.Store != nil {
		p.driver = run.NewDriver(run.Config{
			Store: cfg.Store, Agent: cfg.Agent, Virtual: cfg.Virtual, Hosts: hosts, Term: term, Lease: cfg.Lease, Patience: cfg.patience(),
			Lasting: cfg.Fleet != nil, Log: log,
		})
		tcplabv1.RegisterRunServiceServer(server, &runService{store: cfg.Store, driver: p.driver, guarded: guarded != nil})
		log.Debug("the controller serves runs", "version", cfg.Version, "state", cfg.Store.Dir(), "reading", cfg.Store.ReadOnly())
	}
	if cfg.Agent != nil || hosts != nil {
		p.deployments = standing.New(standing.Config{
			Agent: cfg.Agent, Hosts: hosts, Term: term, Lease: cfg.Lease, HolderPID: os.Getpid(), Emptied: cfg.Emptied, Log: log,
		})
		tcplabv1.RegisterLabServiceServer(server, &labService{deployments: p.deployments})
	}
	if cfg.Fleet != nil {
		if err := p.driver.Resume(ctx); err != nil {
			p.abandon()
			return nil, nil, err
		}
	}
	return server, p, nil
}

// abandon ends what was begun.
func (p *parts) abandon() {
	if p.fleet != nil {
		p.fleet.Close()
	}
}

// work drives runs and whatever else goes on, until ctx ends.
func (p *parts) work(ctx context.Context) {
	var tasks sync.WaitGroup
	for _, task := range p.tasks {
		tasks.Go(func() { task(ctx) })
	}
	if p.driver != nil {
		p.driver.Drive(ctx)
	} else {
		<-ctx.Done()
	}
	tasks.Wait()
}

// close takes away what stands, as far as it does not outlive the controller.
func (p *parts) close(ctx context.Context) {
	if p.deployments == nil {
		return
	}
	if err := p.deployments.Close(ctx); err != nil {
		p.log.Error("labs that stand are left to the agent's end", "error", err)
	}
}
