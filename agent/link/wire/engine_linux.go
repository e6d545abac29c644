package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
	endport "github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/agent/prompt"
	"github.com/tcplab/tcplab/internal/netns"
)

// PortKind is how the engine holds a node's interface.
type PortKind string

// The kinds of port.
const (
	Auto   PortKind = ""       // TAP where /dev/net/tun can be opened, else Packet
	TAP    PortKind = "tap"    // a TAP interface: a write has passed the receiver's stack when it returns
	Packet PortKind = "packet" // a veth with a packet socket at its other end: needs no device file
)

// Options say how an engine works. The zero value is right wherever one works.
type Options struct {
	Port PortKind
}

// Engine makes links that this process carries. It is safe for concurrent use.
type Engine struct {
	kind PortKind

	mu     sync.Mutex
	fabric *netns.Handle // where the far ends of veths are; made with the first
	made   int           // far ends so far, for their names
}

var _ link.Engine = (*Engine)(nil)

// New makes an engine. It fails where the kind of port that the options ask for
// cannot be made, and says what to do about it.
func New(o Options) (*Engine, error) {
	switch o.Port {
	case Auto:
		kind := TAP
		if canTAP() != nil {
			kind = Packet
		}
		return &Engine{kind: kind}, nil
	case TAP:
		if err := canTAP(); err != nil {
			return nil, err
		}
		return &Engine{kind: TAP}, nil
	case Packet:
		return &Engine{kind: Packet}, nil
	}
	return nil, fmt.Errorf("no kind of port is called %q: it is %q or %q", o.Port, TAP, Packet)
}

// Name is "wire".
func (e *Engine) Name() string { return "wire" }

// Port is the kind of port in use, TAP or Packet.
func (e *Engine) Port() PortKind { return e.kind }

// Check refuses what the engine cannot carry: a direction that is invalid or whose
// queues are not resolved or hold no frame, and the queue disciplines red, fq_codel,
// cake and pie. Packet ports that are plain cannot corrupt. A schedule is checked and left to be
// played.
func (e *Engine) Check(spec link.Spec) error {
	var errs []error
	for i, d := range spec.Directions {
		if err := e.refuse(d, spec); err != nil {
			errs = append(errs, fmt.Errorf("link %s, direction %d: %w", spec.Name, i, err))
		}
	}
	for _, p := range spec.Ends {
		if p.MTU < minMTU || p.MTU > maxMTU {
			errs = append(errs, fmt.Errorf("link %s: the MTU of %s is %d: it is between %d and %d", spec.Name, p.Name, p.MTU, minMTU, maxMTU))
		}
	}
	return errors.Join(errs...)
}

// What a TAP takes (drivers/net/tun.c).
const (
	minMTU = 68     // MIN_MTU
	maxMTU = 65_521 // MAX_MTU: 65535 less an Ethernet header
)

// refuse says why the engine cannot carry the direction on the link, or nil.
func (e *Engine) refuse(d link.Direction, spec link.Spec) error {
	if err := d.Validate(); err != nil {
		return err
	}
	errs := []error{e.refuseShape(d.Shape, d.Trace != nil, spec)}
	for _, p := range d.Paths {
		if err := e.refuseShape(p.Shape, false, spec); err != nil {
			errs = append(errs, fmt.Errorf("path %s: %w", p.Name, err))
		}
	}
	for _, s := range d.Schedule.Steps {
		if err := e.refuseShape(s.Shape, false, spec); err != nil {
			errs = append(errs, fmt.Errorf("schedule at %v: %w", s.At, err))
		}
	}
	return errors.Join(errs...)
}

// refuseShape says why the engine cannot carry a shape that is valid, or nil.
func (e *Engine) refuseShape(s link.Shape, traced bool, spec link.Spec) error {
	frame := max(spec.Ends[0].MTU, spec.Ends[1].MTU) + link.FrameOverhead
	switch s.Queue.Discipline {
	case link.FIFO, link.HeadDrop, link.CoDel:
	default:
		return fmt.Errorf("the wire engine has fifo, head-drop and codel, and no %v: take netem", s.Queue.Discipline)
	}
	if s.Rate > math.MaxInt64 {
		return fmt.Errorf("rate %d bit/s is beyond any clock", s.Rate)
	}
	if (s.Rate > 0 || traced) && !s.Queue.Limited() {
		return errors.New("the bottleneck has no queue: resolve the direction first")
	}
	if limit := s.QueueBytes(); limit > 0 && limit < frame {
		return fmt.Errorf("a queue of %d bytes holds no full frame of %d: give it more", limit, frame)
	}
	if s.Corrupt.Probability > 0 && e.kind == Packet && (spec.Ends[0].Plain || spec.Ends[1].Plain) {
		// The kernel cuts them into segments as the socket sends them, and computes their checksums.
		return errors.New("damage to super-packets is undone by packet ports: leave corrupt out, or have the ports not plain, or take TAPs")
	}
	return nil
}

// room is how long a frame of the port can be, and one byte more, by which one that is
// longer shows itself.
func room(p link.Port) int {
	if p.Plain {
		return vnetHeader + largestFrame
	}
	const tags = 8 // two VLAN tags
	return vnetHeader + p.MTU + link.FrameOverhead + tags + 1
}

// Create makes the link's ports and starts its loops. It takes a few
// milliseconds. The link is a *[Link].
func (e *Engine) Create(ctx context.Context, spec link.Spec) (link.Link, error) {
	if err := e.Check(spec); err != nil {
		return nil, err
	}
	prompt.MakeWay()
	l := &Link{spec: spec, engine: e}
	if err := e.create(ctx, l); err != nil {
		return nil, fmt.Errorf("make link %s: %w", spec.Name, errors.Join(err, l.release()))
	}
	return l, nil
}

func (e *Engine) create(ctx context.Context, l *Link) error {
	// A header stands in front of all frames of a link, or of none.
	vnet := l.spec.Ends[0].Plain || l.spec.Ends[1].Plain
	// Both at a time: most of what a port takes is waiting for the kernel.
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range l.spec.Ends {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			held, err := e.hold(p, l.spec.Directions[i], vnet)
			if err != nil {
				return err
			}
			l.ports[i] = held
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, d := range l.spec.Directions {
		lane := newLane(l.ports[i], l.ports[1-i], room(l.spec.Ends[i]))
		if vnet {
			lane.header = vnetHeader
		}
		lane.shaped(d)
		l.lanes[i] = lane
	}
	started := time.Now()
	for i := range l.loops {
		loop, err := newLoop(l.lanes[i], l.lanes[1-i], started)
		if err != nil {
			return err
		}
		if e.kind == TAP {
			loop.idle = never
		}
		l.loops[i] = loop
	}
	for _, loop := range l.loops {
		loop.start()
	}
	return l.Rearm()
}

// hold makes one port, whose node sends into that direction.
func (e *Engine) hold(p link.Port, sends link.Direction, vnet bool) (heldPort, error) {
	if e.kind == TAP {
		t, err := newTAP(p, sends, vnet)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	fabric, peer, err := e.farEnd()
	if err != nil {
		return nil, err
	}
	s, err := newPacket(p, fabric, peer, vnet)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// farEnd is a name in the fabric namespace.
func (e *Engine) farEnd() (*netns.Handle, string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fabric == nil {
		fabric, err := netns.New("wire fabric")
		if err != nil {
			return nil, "", err
		}
		if err := endport.Mute(fabric); err != nil {
			return nil, "", errors.Join(err, fabric.Close())
		}
		e.fabric = fabric
	}
	e.made++
	return e.fabric, fmt.Sprintf("far%d", e.made), nil
}

// Close lets go of what the links shared. The links are closed before.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fabric == nil {
		return nil
	}
	err := e.fabric.Close()
	e.fabric = nil
	return err
}
