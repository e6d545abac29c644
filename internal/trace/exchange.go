package trace

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Which names a connection in captures of several nodes: the index says which of those between the
// two, from 0.
type Which struct {
	Client, Server netip.AddrPort
	Index          int
}

// Names are the names of a reading's connections, in their order.
func (r *Reading) Names() []Which {
	type ends struct{ client, server netip.AddrPort }
	count := make(map[ends]int)
	var all []Which
	for _, c := range r.Connections {
		key := ends{c.Client, c.Server}
		all = append(all, Which{c.Client, c.Server, count[key]})
		count[key]++
	}
	return all
}

// Arrow is a segment on its way from one end to the other.
type Arrow struct {
	Event
	Sent     time.Time // by its end; zero: nobody captured there
	Received time.Time // by the other; zero: it was lost, or nobody captured there
	Lost     bool      // it left, and never came
}

// At is when it is first known of.
func (a *Arrow) At() time.Time {
	if !a.Sent.IsZero() {
		return a.Sent
	}
	return a.Received
}

// Exchange is one connection as both ends saw it.
type Exchange struct {
	Client, Server netip.AddrPort
	Begin          time.Time
	Arrows         []Arrow // by the time when they were sent
}

// mark is what a packet has from its way's beginning to its end.
type mark struct {
	fromClient bool
	seq, ack   uint32
	flags      Flags
	id, window uint16
	payload    int
	value      uint32
}

func markOf(e *Event) mark {
	return mark{e.FromClient, e.Segment.Seq, e.Segment.Ack, e.Flags, e.ID, e.Window, e.Payload, e.Options.Value}
}

// Pair joins what was captured of a connection. A segment of which one end's node saw the departure, and the
// other's not the arrival, is lost, if that one's capture is whole. With one end's events
// alone half of each arrow is not known. Events of nodes in between are left out, unless there are no
// others.
func Pair(which Which, whole bool, captures ...[]Event) Exchange {
	x := Exchange{Client: which.Client, Server: which.Server}
	var sent, received [2][]*Event // by the end that sends: 0 the client
	between := true
	for _, events := range captures {
		for i := range events {
			e := &events[i]
			from := 1
			if e.FromClient {
				from = 0
			}
			switch {
			case e.Way == Out && endsHere(events, from):
				sent[from] = append(sent[from], e)
				between = false
			case e.Way == In && endsHere(events, 1-from):
				received[from] = append(received[from], e)
				between = false
			}
		}
	}
	if between {
		for _, events := range captures[:min(1, len(captures))] {
			for _, e := range events {
				x.Arrows = append(x.Arrows, Arrow{Event: e, Sent: e.Time})
			}
		}
	}
	for from := range 2 {
		came := make(map[mark][]*Event)
		for _, e := range received[from] {
			came[markOf(e)] = append(came[markOf(e)], e)
		}
		// Of an end nobody captured at nothing is known, not that nothing came.
		listened := len(received[from]) > 0 || len(sent[1-from]) > 0
		for _, e := range sent[from] {
			a := Arrow{Event: *e, Sent: e.Time}
			if arrivals := came[markOf(e)]; len(arrivals) > 0 {
				a.Received = arrivals[0].Time
				a.Notes = append(slices.Clone(a.Notes), arrived(arrivals[0].Notes)...)
				came[markOf(e)] = arrivals[1:]
			} else {
				a.Lost = listened && whole
			}
			x.Arrows = append(x.Arrows, a)
		}
		for _, left := range came {
			for _, e := range left {
				x.Arrows = append(x.Arrows, Arrow{Event: *e, Received: e.Time})
			}
		}
	}
	slices.SortStableFunc(x.Arrows, func(a, b Arrow) int {
		return cmp.Or(a.At().Compare(b.At()), a.Received.Compare(b.Received))
	})
	if len(x.Arrows) > 0 {
		x.Begin = x.Arrows[0].At()
	}
	return x
}

// endsHere reports whether the events were captured at an end: its segments leave there.
func endsHere(events []Event, end int) bool {
	for i := range events {
		if from := !events[i].FromClient; (end == 1) == from {
			return events[i].Way == Out
		}
	}
	// It says nothing; what the other says comes in here.
	return len(events) > 0 && events[0].Way == In
}

// arrived are the notes of an arrival that its departure could not have.
func arrived(notes []string) []string {
	var all []string
	for _, n := range notes {
		if n == "overtaken" || n == "there twice" {
			all = append(all, n)
		}
	}
	return all
}
