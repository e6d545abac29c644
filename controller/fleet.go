package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Fleet is what a controller of many hosts works with beside what every controller does.
type Fleet struct {
	// Name of the controller, as its certificate bears it.
	Name string
	// CertificateLife of all certificates but the authority's. 0 means access.DefaultLife.
	CertificateLife time.Duration
	// Patience is how long a command waits for a host, and a trial on it may be out of reach. 0 means defaultPatience.
	Patience time.Duration
}

// defaultPatience is how long a host may be out of reach for a trial on it not to be lost: a reboot of the controller,
// or of what is between them.
const defaultPatience = 5 * time.Minute

// authorityDir is the folder of the certificate authority in the state directory.
const authorityDir = "authority"

// Bounds of one connection: streams at a time, and the time until it has proven whom it is of.
const (
	maxStreams = 200
	proveIn    = 5 * time.Second
)

func (cfg Config) patience() time.Duration {
	switch {
	case cfg.Fleet == nil:
		return 0
	case cfg.Fleet.Patience > 0:
		return cfg.Fleet.Patience
	}
	return defaultPatience
}

// guarded is what a fleet's controller has beside runs and deployments.
type guarded struct {
	cfg        Config
	term       uint64
	credential *identity.Credential
	access     *access.Access
	fleet      *fleet.Fleet
	tasks      []func(context.Context)
}

// openFleet makes the authority where there is none, begins a term, and reads who is in.
func openFleet(ctx context.Context, cfg Config, log *slog.Logger) (*guarded, error) {
	if cfg.Store == nil || cfg.Store.ReadOnly() {
		return nil, errors.New("a fleet needs a state directory that nobody else uses")
	}
	if !identity.ValidName(cfg.Fleet.Name) {
		return nil, fmt.Errorf("a controller cannot be called %q: want 1 to %d of a-z, 0-9, dot, hyphen and underscore", cfg.Fleet.Name, identity.MaxName)
	}
	g := &guarded{cfg: cfg}
	authority, err := access.OpenAuthority(filepath.Join(cfg.Store.Dir(), authorityDir), cfg.Fleet.CertificateLife)
	if err != nil {
		return nil, err
	}
	if g.credential, err = authority.Issue(cfg.Fleet.Name); err != nil {
		return nil, err
	}
	if g.term, err = cfg.Store.NextTerm(ctx); err != nil {
		return nil, err
	}
	if g.access, err = access.New(ctx, access.Config{Store: cfg.Store, Authority: authority, Log: log}); err != nil {
		return nil, err
	}
	g.fleet, err = fleet.New(ctx, fleet.Config{
		Store: cfg.Store, Member: g.access.Principal, Credential: g.credential, Term: g.term, Version: cfg.Version,
		Patience: cfg.patience(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	g.tasks = []func(context.Context){
		g.access.Run,
		func(ctx context.Context) {
			identity.KeepFresh(ctx, g.credential, "", func(_ context.Context, request []byte) ([]byte, error) {
				key, err := identity.PublicKey(request)
				if err != nil {
					return nil, err
				}
				return authority.Sign(g.credential.Identity(), key)
			}, func(err error) { log.Error("the controller's certificate", "error", err) })
		},
	}
	return g, nil
}

// options have every call pass the gate, and bound what one connection can take.
func (g *guarded) options() []grpc.ServerOption {
	options := append(g.access.ServerOptions(), tunnel.ServerOptions()...)
	return append(options,
		grpc.Creds(g.access.Handshake(g.credential, map[string]access.Dispatch{tunnel.Protocol: g.fleet.Take})),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(proveIn),
	)
}

// register adds the services that only a fleet has.
func (g *guarded) register(server *grpc.Server) {
	tcplabv1.RegisterAccessServiceServer(server, &accessService{access: g.access, fleet: g.fleet, store: g.cfg.Store, name: g.cfg.Fleet.Name, version: g.cfg.Version})
	tcplabv1.RegisterHostServiceServer(server, &hostService{fleet: g.fleet, access: g.access})
	healthv1.RegisterHealthServer(server, health.NewServer())
	service.RegisterChannelzServiceToServer(server)
	reflection.Register(server)
}
