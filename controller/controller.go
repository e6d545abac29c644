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
	// until Run has returned. May be nil with a reading Store; without it LabService is
	// not served.
	Agent tcplabv1.AgentServiceClient
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
	options, err := rpcvalidate.ServerOptions(log)
	if err != nil {
		for _, listener := range listeners {
			err = errors.Join(err, listener.Close())
		}
		return fmt.Errorf("start the controller: %w", err)
	}
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage))...)
	drive := func(ctx context.Context) { <-ctx.Done() }
	if cfg.Store != nil {
		driver := run.NewDriver(run.Config{Store: cfg.Store, Agent: cfg.Agent, Lease: cfg.Lease, Log: log})
		tcplabv1.RegisterRunServiceServer(server, &runService{store: cfg.Store, driver: driver})
		drive = driver.Drive
		log.Debug("the controller serves runs", "version", cfg.Version, "state", cfg.Store.Dir(), "reading", cfg.Store.ReadOnly())
	}
	var deployments *standing.Deployments
	if cfg.Agent != nil {
		deployments = standing.New(standing.Config{
			Agent: cfg.Agent, Lease: cfg.Lease, HolderPID: os.Getpid(), Emptied: cfg.Emptied, Log: log,
		})
		tcplabv1.RegisterLabServiceServer(server, &labService{deployments: deployments})
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
	drive(ctx) // until ctx ends
	if deployments != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), haste)
		if err := deployments.Close(last); err != nil {
			log.Error("labs that stand are left to the agent's end", "error", err)
		}
		cancel()
	}
	graceful := time.AfterFunc(farewell, server.Stop)
	server.GracefulStop()
	graceful.Stop()
	serving.Wait()
	return errors.Join(failed...)
}
