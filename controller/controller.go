// Package controller commands agents and keeps what they measure: it plans
// runs, drives their trials one after another, joins the results and judges
// them. It serves RunService to whoever runs labs, on any listener: in
// process for the embedded lab, a socket for others.
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
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcvalidate"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// MaxMessage bounds every message of RunService in bytes, both ways; a client
// that reads reports should accept as much. A report that would be longer is
// refused with RESOURCE_EXHAUSTED: its trials can be read in pages.
const MaxMessage = 64 << 20

// farewell is how long streams have to deliver their last events when the
// controller stops.
const farewell = 100 * time.Millisecond

// Config is what a controller works with.
type Config struct {
	// Store is the state directory. The caller keeps it open until Run has
	// returned. One that OpenReader opened serves what only reads; CreateRun and
	// CancelRun are refused.
	Store *store.Store
	// Agent is the one host of an embedded lab. The caller keeps it serving
	// until Run has returned. May be nil with a reading Store.
	Agent tcplabv1.AgentServiceClient
	// Lease of deployments; 0 means run.DefaultLease.
	Lease time.Duration
	// Version of this tcplab, for the log.
	Version string
	// Log takes what is no caller's error. Nil: nothing is logged.
	Log *slog.Logger
}

// Run serves RunService on every listener until ctx ends or a listener fails.
// Then, within a second, the run under way is stopped and stored as cancelled
// like those that wait, its deployment is removed, watchers get their last
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
	driver := run.NewDriver(run.Config{Store: cfg.Store, Agent: cfg.Agent, Lease: cfg.Lease, Log: log})
	tcplabv1.RegisterRunServiceServer(server, &runService{store: cfg.Store, driver: driver})

	log.Debug("the controller serves", "version", cfg.Version, "state", cfg.Store.Dir(), "reading", cfg.Store.ReadOnly())
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
	driver.Drive(ctx) // until ctx ends
	graceful := time.AfterFunc(farewell, server.Stop)
	server.GracefulStop()
	graceful.Stop()
	serving.Wait()
	return errors.Join(failed...)
}
