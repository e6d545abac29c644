package link

import (
	"context"
	"net"

	"github.com/tcplab/tcplab/internal/netns"
)

// Port is one end of a link: an interface that the engine makes in a node.
type Port struct {
	Node  *netns.Handle    // where the interface appears
	Name  string           // of the interface there, ≤ 15 bytes
	MAC   net.HardwareAddr // its address
	MTU   int              // bytes of an IP packet
	Plain bool             // keep GSO, TSO and GRO as the kernel sets them; the default turns them off
}

// Spec is a link to be made. Directions[0] carries packets from Ends[0] to
// Ends[1], Directions[1] the other way. Queues are resolved.
type Spec struct {
	Name       string
	Ends       [2]Port
	Directions [2]Direction
}

// Engine makes links. It owns what its links share (threads, the fabric
// namespace); Close ends that after the links are closed.
type Engine interface {
	// Name is "netem", "wire" or "veth".
	Name() string
	// Check says why this engine, on this kernel, cannot make the link, before
	// anything is built.
	Check(Spec) error
	// Create makes both interfaces, up, in their nodes, and shapes the link. On
	// an error nothing of it is left.
	Create(context.Context, Spec) (Link, error)
	Close() error
}

// Link is a link that stands.
type Link interface {
	// Change replaces the shapes of one direction, 0 or 1, while traffic flows: no frame
	// is lost or reordered by it. Paths keep their names and matches, and random
	// generators and the trace go on; a change of those is refused, as is what the
	// engine cannot carry. On an error all is as before.
	Change(direction int, to Direction) error
	// ReadBack is what is in force, from the kernel or the running link, not
	// from memory of what was asked; without schedule and seed.
	ReadBack() ([2]Direction, error)
	// Counters are what each direction has done so far.
	Counters() ([2]Counters, error)
	// Backlog is what waits for each direction's bottleneck now. It is cheap: it may be asked every ms.
	Backlog() ([2]Backlog, error)
	// Rearm restarts the random generators, the numbers of packets and the traces, and zeroes
	// Counters, as for a new link: what verification sent leaves no trace in the trial.
	Rearm() error
	// Close removes both interfaces.
	Close() error
}

// Counters are one direction's packets, of all its paths, since the link was made or re-armed.
type Counters struct {
	Received   uint64 // frames that came in from the sender
	Delivered  uint64 // frames handed to the receiver
	Lost       uint64 // frames dropped by Shape.Loss or Shape.Down
	Overflow   uint64 // frames dropped by a full queue
	Early      uint64 // frames that a discipline dropped before its queue was full
	Marked     uint64 // frames that a discipline marked
	Duplicated uint64 // copies made by Shape.Duplicate
	Corrupted  uint64 // frames damaged by Shape.Corrupt
	Reordered  uint64 // frames that Shape.Reorder let past others
	Failed     uint64 // frames that the engine itself lost; any at all makes the trial void
	Queued     int    // frames waiting for the bottleneck now
	QueuedSize int    // bytes of these
	PeakQueue  int    // the most frames that ever waited; 0 where the engine cannot know
}

// Backlog is what waits at one direction, of all its paths, and what its queues have done since the link
// was made or re-armed.
type Backlog struct {
	Frames   int    // waiting for the bottleneck, without the one that it sends
	Bytes    int    // of these
	Overflow uint64 // as in Counters
	Early    uint64
	Marked   uint64
}
