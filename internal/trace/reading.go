package trace

import (
	"errors"
	"net/netip"
)

// Reading follows the connections of one capture. Its zero value is ready for use. Not for concurrent
// use.
type Reading struct {
	// Packets that were added, those that are no TCP among them, and how many of all came damaged.
	Packets, Others, Damaged uint64
	// Connections in the order in which they began.
	Connections []*Connection

	open map[pair]*Connection // the newest of its addresses
}

// pair is a connection's addresses, the lesser first.
type pair struct{ a, b netip.AddrPort }

func pairOf(s *Segment) pair {
	if s.From.Compare(s.To) < 0 {
		return pair{s.From, s.To}
	}
	return pair{s.To, s.From}
}

// Add reads the capture's next packet. It returns the connection and the segment where it was a sound one
// of TCP, else nil.
func (r *Reading) Add(p Packet) (*Connection, *Segment) {
	r.Packets++
	seg, err := Decode(p)
	switch {
	case errors.Is(err, ErrDamaged):
		r.Damaged++
		return nil, nil
	case err != nil:
		r.Others++
		return nil, nil
	}
	return r.segment(&seg), &seg
}

// segment adds a segment to its connection.
func (r *Reading) segment(seg *Segment) *Connection {
	key := pairOf(seg)
	c := r.open[key]
	if c == nil || (seg.From == c.Client && c.over(seg)) || seg.From == c.Server && c.reversed(seg) {
		client, server := seg.From, seg.To
		// Of a connection that was open before the capture, a SYN-ACK tells, or else who has the
		// lower port: ephemeral ones are high.
		if seg.Flags.Has(SYN|ACK) || !seg.Flags.Has(SYN) && client.Port() < server.Port() {
			client, server = server, client
		}
		c = newConnection(client, server, seg.Time)
		c.Number = len(r.Connections) + 1
		r.Connections = append(r.Connections, c)
		if r.open == nil {
			r.open = make(map[pair]*Connection)
		}
		r.open[key] = c
	}
	from := 0
	if seg.From == c.Server {
		from = 1
	}
	c.add(from, seg)
	return c
}

// reversed reports whether the server of a connection that is over now connects by itself.
func (c *Connection) reversed(seg *Segment) bool {
	over := c.FromClient.FINs > 0 && c.FromServer.FINs > 0 || c.FromClient.Resets+c.FromServer.Resets > 0
	return over && seg.Flags.Has(SYN) && !seg.Flags.Any(ACK|RST)
}
