// Package fleet knows which hosts there are, holds a session with the agent of each, and chooses the hosts
// that carry a lab. To the rest of the controller a host is an AgentService client: that its
// connections break and come again is seen here alone.
//
// It refuses an agent under a name that its certificate does not bear, and the older of two sessions
// of one host: the newest wins, and the other one's connections are closed.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what a fleet is kept with.
type Config struct {
	// Store keeps the hosts.
	Store *store.Store
	// Member says whether a certificate is of an agent that is in, and since when.
	Member func(identity.Identity) (*tcplabv1.Principal, error)
	// Credential is the controller's own, for agents that are dialed.
	Credential *identity.Credential
	// Term of this controller.
	Term uint64
	// Version of this tcplab.
	Version string
	// Patience is how long a command waits for a host that is not connected. 0 means DefaultPatience.
	Patience time.Duration
	// Log takes what is no caller's error. Never nil.
	Log *slog.Logger
}

// DefaultPatience is longer than an agent takes to come back to a controller that was restarted, or over a network
// that was cut for a moment.
const DefaultPatience = time.Minute

// Fleet is the hosts. Its methods are safe for concurrent use.
type Fleet struct {
	cfg Config

	life  context.Context // of all sessions
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu     sync.Mutex // guards what is below
	hosts  map[string]*host
	ending bool
}

// host is one host. Its fields are guarded by the fleet's mutex.
type host struct {
	kept    *tcplabv1.FleetHost // as it is stored; replaced, never changed
	session *session            // nil: not connected
	since   time.Time           // that it is as it is
	changed chan struct{}       // closed, and replaced, when the session changes
	halves  map[uint64]*half    // sessions of which one connection is here, by their number
	newest  mark                // the newest session that was seen
	uses    map[string]bool     // what has it now
	dialer  context.CancelFunc  // ends the dialing of a host that listens; nil: it dials

	keeping sync.Mutex // held by who changes what is kept, over the write; taken before the fleet's
	stored  bool       // guarded by keeping
}

// mark tells which of two sessions is the newer.
type mark struct{ incarnation, session uint64 }

func (m mark) older(than mark) bool {
	return m.incarnation < than.incarnation || m.incarnation == than.incarnation && m.session < than.session
}

// New reads which hosts there are. The caller closes the fleet.
func New(ctx context.Context, cfg Config) (*Fleet, error) {
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	f := &Fleet{cfg: cfg, hosts: make(map[string]*host)}
	f.life, f.end = context.WithCancel(context.Background())
	all, err := cfg.Store.Hosts(ctx)
	if err != nil {
		f.end()
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, kept := range all {
		h := f.enter(kept)
		h.stored = true
		f.redial(h)
	}
	return f, nil
}

// enter makes the host known. The caller holds the mutex.
func (f *Fleet) enter(kept *tcplabv1.FleetHost) *host {
	h := &host{
		kept: kept, since: time.Now(), changed: make(chan struct{}), halves: make(map[uint64]*half), uses: make(map[string]bool),
	}
	f.hosts[kept.GetName()] = h
	return h
}

// Close ends all sessions and returns when they have ended.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.end()
	f.tasks.Wait()
}

// start runs a task of the fleet's, unless that is ending.
func (f *Fleet) start(task func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return false
	}
	f.tasks.Go(task)
	return true
}

// List reads hosts by name, at most most of those after one, without what they can do.
func (f *Fleet) List(after string, most int) (all []*tcplabv1.FleetHost, next string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.hosts)) {
		if name <= after {
			continue
		}
		if len(all) == most {
			return all, all[most-1].GetName()
		}
		short := f.hosts[name].message()
		if short.GetHost() != nil {
			short.Host.Capabilities = nil
		}
		all = append(all, short)
	}
	return all, ""
}

// Get reads a host.
func (f *Fleet) Get(name string) (*tcplabv1.FleetHost, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[name]
	if !ok {
		return nil, unknown(name)
	}
	return h.message(), nil
}

func unknown(name string) error {
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, "`tcplab hosts list` lists them", "no host is called %s", name)
}

// message is the host as it is now. The caller holds the mutex.
func (h *host) message() *tcplabv1.FleetHost {
	m := proto.CloneOf(h.kept)
	m.Since = timestamppb.New(h.since)
	m.Uses = slices.Sorted(maps.Keys(h.uses))
	if h.session != nil {
		m.Connected, m.Address, m.Clock = true, h.session.address, h.session.clock.message()
	}
	return m
}

// keep changes what is kept of a host, one change after another. change returns the new content, or nil where it stays. The fleet
// goes on while the disk takes it.
func (f *Fleet) keep(ctx context.Context, name string, change func(kept *tcplabv1.FleetHost) (*tcplabv1.FleetHost, error)) (*host, error) {
	f.mu.Lock()
	h, ok := f.hosts[name]
	f.mu.Unlock()
	if !ok {
		return nil, unknown(name)
	}
	h.keeping.Lock()
	defer h.keeping.Unlock()
	f.mu.Lock()
	kept, ok := h.kept, f.hosts[name] == h
	f.mu.Unlock()
	if !ok {
		return nil, unknown(name) // it was removed just now
	}
	changed, err := change(kept)
	if err != nil {
		return nil, err
	}
	if changed == nil {
		if h.stored {
			return h, nil
		}
		changed = kept
	}
	if err := f.cfg.Store.PutHost(ctx, changed); err != nil {
		return nil, err
	}
	h.stored = true
	f.mu.Lock()
	h.kept = changed
	f.mu.Unlock()
	return h, nil
}

// Update changes whether a host takes labs, its labels, and where it listens.
func (f *Fleet) Update(ctx context.Context, req *tcplabv1.UpdateHostRequest) (*tcplabv1.FleetHost, error) {
	moved := false
	h, err := f.keep(ctx, req.GetName(), func(kept *tcplabv1.FleetHost) (*tcplabv1.FleetHost, error) {
		changed := proto.CloneOf(kept)
		if req.Drained != nil {
			changed.Drained = req.GetDrained()
		}
		if req.ListenAddress != nil {
			changed.ListenAddress = req.GetListenAddress()
		}
		for name, value := range req.GetLabels() {
			if value == "" {
				delete(changed.Labels, name)
				continue
			}
			if changed.Labels == nil {
				changed.Labels = make(map[string]string)
			}
			changed.Labels[name] = value
		}
		if most := 64; len(changed.GetLabels()) > most {
			return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "remove some", "host %s would have %d labels, more than %d", req.GetName(), len(changed.GetLabels()), most)
		}
		moved = changed.GetListenAddress() != kept.GetListenAddress()
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if moved && f.hosts[req.GetName()] == h {
		f.redial(h)
	}
	return h.message(), nil
}

// Remove forgets a host and ends its session. The caller has revoked its certificate.
func (f *Fleet) Remove(ctx context.Context, name string) error {
	f.mu.Lock()
	h, ok := f.hosts[name]
	f.mu.Unlock()
	if !ok {
		return unknown(name)
	}
	h.keeping.Lock()
	defer h.keeping.Unlock()
	if h.stored {
		if err := f.cfg.Store.DeleteHost(ctx, name); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hosts[name] != h {
		return nil // it has come anew
	}
	delete(f.hosts, name)
	if h.dialer != nil {
		h.dialer()
	}
	if h.session != nil {
		h.session.close(errRemoved)
		h.session = nil
	}
	close(h.changed) // whoever waits for it finds that it is gone
	return nil
}

// learn keeps what a host says of itself, where that is news.
func (f *Fleet) learn(ctx context.Context, name string, said *tcplabv1.Host) error {
	said.Name = name // whatever the agent calls itself
	_, err := f.keep(ctx, name, func(kept *tcplabv1.FleetHost) (*tcplabv1.FleetHost, error) {
		if proto.Equal(kept.GetHost(), said) {
			return nil, nil
		}
		changed := proto.CloneOf(kept)
		changed.Host = said
		return changed, nil
	})
	if err != nil {
		return fmt.Errorf("keep what host %s can do: %w", name, err)
	}
	return nil
}

var errRemoved = errors.New("the host was removed")
