package web

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// side is what all connections of one end have in common. It belongs to the end's loop.
type side struct {
	flow     string // the flow's name
	name     string // as samples name the end: "client", "server", "proxy p1"
	spec     socket.Spec
	plan     *plan
	interval time.Duration
	samples  observe.Sink
	sampler  *observe.Sampler // nil: one for each connection
	detailed bool             // what the congestion control says of itself is sampled, too
	log      *slog.Logger

	loop   *loop.Loop
	blocks *blocks
	buffer []byte // what is read lands here first
	waste  []byte // and here what is thrown away: never touched

	conns     map[*conn]struct{} // that have a descriptor
	number    int                // of the connection opened last
	finishing bool               // no further connection is wanted

	total      traffic
	resets     uint32
	first      witness
	sampled    uint64
	afterClose func() // where a connection has gone; may be nil
}

// traffic is what went through sockets.
type traffic struct {
	written, read uint64 // bytes
	body          uint64 // of written: bytes of bodies
}

// witness is what is told of an end's first connection.
type witness struct {
	address    netip.AddrPort
	series     observe.Series
	congestion string
	options    *tcplabv1.SocketOptions
}

// maxWatched is of how many connections of an end TCP_INFO is sampled: the first.
const maxWatched = 8

const (
	readSize    = 64 << 10
	discardSize = 1 << 20
)

func (s *side) begin(l *loop.Loop) {
	s.loop = l
	s.blocks = newBlocks(s.plan.server.chunk)
	s.buffer, s.waste = make([]byte, readSize), make([]byte, discardSize)
	s.conns = make(map[*conn]struct{})
}

// stop ends what still samples, once the loop has ended.
func (s *side) stop() {
	for c := range s.conns {
		c.stopWatch()
	}
}

// watched begins to sample a connection, if it is one of the first.
func (s *side) watched(c *conn) {
	if c.number > maxWatched {
		return
	}
	if c.number == 1 {
		s.first.address = c.fd.Local()
	}
	name := s.flow + "[" + number(c.number-1) + "]"
	watched := observe.Watched{Flow: name, End: s.name, Interval: s.interval, FD: int(c.fd), Sink: s.samples, Sampler: s.sampler}
	if s.detailed {
		watched.Control = c.fd.Congestion()
	}
	c.watch = observe.NewWatch(watched)
}
