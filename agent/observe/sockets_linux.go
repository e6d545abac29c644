package observe

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// SocketNode is a node whose sockets are watched.
type SocketNode struct {
	Name   string
	NS     *netns.Handle // stays open until Stop
	Owners *Owners       // of the flows' sockets there; nil: there are none
}

// SocketsConfig is what [WatchSockets] is given.
type SocketsConfig struct {
	Nodes    []SocketNode
	Interval time.Duration // between looks, greater than 0
	// States has states followed.
	States bool
	// Sink takes TCP_INFO of sockets that have no owner; nil: nobody does.
	Sink Sink
	// Polled looks for states even where the kernel would tell of them.
	Polled bool
	Log    *slog.Logger // takes why the kernel does not tell; nil: nothing
}

// Sockets watches the TCP sockets of nodes, until Stop: their states, and what those do that are not a flow's.
//
// Where it can (root, kernel 5.15 with cgroup BPF), it has the kernel tell of states, each at its time. What no program
// is told, TIME_WAIT, is looked up when a connection is closed, and then looked at until it has ended. Elsewhere all
// sockets are looked at each interval, and a state between two looks is missed.
type Sockets struct {
	cfg    SocketsConfig
	begin  time.Time
	events *stateEvents // nil: states are looked at
	diags  []*Diag

	stop    chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex // guards what is below
	nodes []*watchedNode
	err   error // the first
}

// watchedNode is one node as it is watched.
type watchedNode struct {
	*timeline
	diag    *Diag // for looks
	look    uint64
	dumpDue time.Time
	sampled []Socket // without an owner, as of the last dump
}

// WatchSockets begins to watch, with a first look. The caller stops it.
func WatchSockets(cfg SocketsConfig) (_ *Sockets, err error) {
	s := &Sockets{cfg: cfg, begin: time.Now(), stop: make(chan struct{})}
	if s.cfg.Log == nil {
		s.cfg.Log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	spaces := make([]*netns.Handle, len(cfg.Nodes))
	for i, n := range cfg.Nodes {
		spaces[i] = n.NS
		diag, err := NewDiag(n.NS)
		if err != nil {
			return nil, err
		}
		s.diags = append(s.diags, diag)
		s.nodes = append(s.nodes, &watchedNode{timeline: newTimeline(n.Owners), diag: diag})
	}
	if cfg.States && !cfg.Polled {
		if s.events, err = newStateEvents(spaces); errors.Is(err, errNoEvents) {
			s.cfg.Log.Info("states of sockets are looked at each interval", "interval", cfg.Interval, "why", err)
		} else if err != nil {
			return nil, err
		}
	}
	for _, n := range s.nodes {
		if err := s.dump(n); err != nil {
			return nil, err
		}
	}
	if s.events != nil {
		s.running.Go(s.listen)
	}
	s.running.Go(s.turn)
	return s, nil
}

// note keeps the first error.
func (s *Sockets) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// listen enters what the kernel tells, until all is read that there was at Stop.
func (s *Sockets) listen() {
	var record ringbuf.Record
	for {
		event, err := s.events.next(&record)
		if errors.Is(err, errFlushed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			err = s.told(&event)
		}
		if err != nil {
			s.note(fmt.Errorf("follow states of sockets: %w", err))
			return
		}
	}
}

// told enters one change of state.
func (s *Sockets) told(e *stateEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[e.node]
	if n.after(e.socket.Cookie, e.at) {
		return nil // the first look has seen what came of it
	}
	state := e.new
	if state == StateClose && (e.old == StateFinWait1 || e.old == StateFinWait2 || e.old == StateClosing) {
		// The socket is gone, and what remembers the connection may have taken its place.
		remembered := e.socket
		ok, err := n.diag.Lookup(&remembered)
		if err != nil {
			return err
		}
		if ok {
			state = remembered.State
		}
	}
	n.enter(&e.socket, state, e.at)
	return nil
}

// turn looks at the nodes each interval, until Stop.
func (s *Sockets) turn() {
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		for _, n := range s.nodes {
			if err := s.lookAt(n); err != nil {
				s.note(err)
				return
			}
		}
	}
}

const (
	// dumpShare bounds what dumps take of a processor: a hundredth for each node.
	dumpShare = 100
	// mostLookups is how many sockets are asked for one by one between two dumps.
	mostLookups = 16
)

// lookAt looks at one node, by a dump where one is due.
func (s *Sockets) lookAt(n *watchedNode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(n.dumpDue) {
		return s.dumpLocked(n)
	}
	if s.cfg.Sink == nil || len(n.sampled) > mostLookups {
		return nil
	}
	kept := n.sampled[:0]
	for i := range n.sampled {
		socket := n.sampled[i]
		ok, err := n.diag.Lookup(&socket)
		if err != nil {
			return err
		}
		if ok && s.sample(n, &socket, time.Now()) {
			kept = append(kept, socket)
		}
	}
	n.sampled = kept
	return nil
}

func (s *Sockets) dump(n *watchedNode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dumpLocked(n)
}

// dumpLocked looks at all sockets of a node.
func (s *Sockets) dumpLocked(n *watchedNode) error {
	start := time.Now()
	n.look++
	n.sampled = n.sampled[:0]
	err := n.diag.Dump(func(socket *Socket) {
		switch {
		case !s.cfg.States:
		case s.events == nil || n.look == 1:
			n.saw(socket, n.look, start)
		default:
			// What the kernel tells may not be read yet: a look is no news but of what is gone.
			n.still(socket, n.look)
		}
		if s.cfg.Sink != nil && s.sample(n, socket, start) {
			n.sampled = append(n.sampled, *socket)
		}
	})
	if err != nil {
		return err
	}
	if s.cfg.States {
		n.missing(n.look, start, func(state uint32) bool { return s.events == nil || state == StateTimeWait })
	}
	pause := max(s.cfg.Interval, time.Since(start)*dumpShare)
	if s.events != nil && s.cfg.Sink == nil && !n.holds(StateTimeWait) {
		pause = max(pause, time.Second) // there is nothing to see but what the kernel tells
	}
	n.dumpDue = start.Add(pause - s.cfg.Interval/2)
	return nil
}

// sample hands on what a socket without an owner does, and reports whether it was such a one.
func (s *Sockets) sample(n *watchedNode, socket *Socket, at time.Time) bool {
	switch socket.State {
	case StateListen, StateTimeWait, StateSynReceived, StateClose:
		return false
	}
	if n.owners.of(socket.Cookie, socket.Local) != (Owner{}) {
		return false
	}
	s.cfg.Sink.Add(&Sample{
		Flow: plainAddress(socket.Local) + ">" + plainAddress(socket.Remote), End: n.diag.name, Time: at, Info: socket.Info, Congestion: socket.Congestion,
	})
	return true
}

// Stop ends watching with a last look, and returns what was seen of states: nothing unless they were asked for. Times
// count from begin. It is called once.
func (s *Sockets) Stop(begin time.Time) (_ []*tcplabv1.NodeSockets, err error) {
	close(s.stop)
	var lost uint64
	if s.events != nil {
		err = s.events.flush()
	}
	s.running.Wait()
	defer func() { err = errors.Join(err, s.close()) }()
	if s.events != nil && err == nil {
		lost, err = s.events.missing()
	}
	if err = errors.Join(err, s.err); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if err := s.dump(n); err != nil {
			return nil, err
		}
	}
	if !s.cfg.States {
		return nil, nil
	}
	source := tcplabv1.StateSource_STATE_SOURCE_POLLED
	if s.events != nil {
		source = tcplabv1.StateSource_STATE_SOURCE_KERNEL
	}
	var all []*tcplabv1.NodeSockets
	end := time.Now()
	for i, n := range s.nodes {
		r := n.report(s.cfg.Nodes[i].Name, source, begin, end)
		r.Lost = lost
		all = append(all, r)
	}
	return all, nil
}

// close ends what there is.
func (s *Sockets) close() error {
	var errs []error
	if s.events != nil {
		errs = append(errs, s.events.close())
	}
	for _, d := range s.diags {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
