package observe

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Owner is the end of a flow that a socket serves.
type Owner struct{ Flow, End string }

// Owners knows which sockets of a node are the flows' own. It is safe for concurrent use, and nil Owners are told
// in vain.
type Owners struct {
	mu      sync.Mutex
	cookies map[uint64]Owner         // of sockets that flows opened
	ports   map[netip.AddrPort]Owner // where they listen: what is accepted there has the same address
}

// NewOwners knows none.
func NewOwners() *Owners {
	return &Owners{cookies: map[uint64]Owner{}, ports: map[netip.AddrPort]Owner{}}
}

// Opened says whose the socket with the cookie is.
func (o *Owners) Opened(cookie uint64, by Owner) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cookies[cookie] = by
}

// Listens says whose the connections are that are accepted at an address.
func (o *Owners) Listens(at netip.AddrPort, by Owner) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ports[at] = by
}

// of is whose a socket is; the zero Owner: nobody's that is known.
func (o *Owners) of(cookie uint64, local netip.AddrPort) Owner {
	if o == nil {
		return Owner{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if by, ok := o.cookies[cookie]; ok {
		return by
	}
	return o.ports[local]
}

// closed forgets a socket that is gone.
func (o *Owners) closed(cookie uint64) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.cookies, cookie)
}

const (
	// mostHistories bounds NodeSockets.sockets, mostChanges SocketHistory.states.
	mostHistories, mostChanges = 256, 32
	// mostFollowed bounds the sockets of a node that are followed at a time: some 30 MB.
	mostFollowed = 1 << 18
)

// change is a state, from a moment on.
type change struct {
	state uint32
	at    time.Time
}

// history is what became of one socket.
type history struct {
	local, remote netip.AddrPort
	owner         Owner
	changes       []change
}

// followed is a socket that is there.
type followed struct {
	state uint32
	since time.Time
	known *history // nil: beyond mostHistories
	seen  uint64   // the look that saw it last
}

// totals are a node's sockets in one state.
type totals struct {
	entered   uint64
	now, peak uint32
	longest   time.Duration
}

// timeline follows the states of one node's sockets. It belongs to one goroutine.
type timeline struct {
	owners    *Owners
	live      map[uint64]*followed // by cookie
	histories []*history
	totals    [StateClosing + 1]totals
	leftOut   uint64
}

func newTimeline(owners *Owners) *timeline {
	return &timeline{owners: owners, live: map[uint64]*followed{}}
}

// enter says that a socket is in a state from then on. One that is in it already stays.
func (t *timeline) enter(s *Socket, state uint32, at time.Time) {
	f, ok := t.live[s.Cookie]
	switch {
	case state == StateClose || state == 0 || state > StateClosing:
		if ok {
			t.leave(s.Cookie, f, at)
		}
		return
	case ok && f.state == state:
		return
	case ok:
		t.settle(f, at)
	case len(t.live) == mostFollowed:
		t.leftOut++
		return
	default:
		f = &followed{}
		t.live[s.Cookie] = f
		if len(t.histories) < mostHistories {
			f.known = &history{local: s.Local, remote: s.Remote, owner: t.owners.of(s.Cookie, s.Local)}
			t.histories = append(t.histories, f.known)
		} else {
			t.leftOut++
		}
	}
	f.state, f.since = state, at
	now := &t.totals[state]
	now.entered++
	now.now++
	now.peak = max(now.peak, now.now)
	f.note(s, state, at)
}

// note enters a state in the socket's history.
func (f *followed) note(s *Socket, state uint32, at time.Time) {
	h := f.known
	if h == nil {
		return
	}
	if h.local.Port() == 0 || h.local.Addr().IsUnspecified() {
		h.local = s.Local // it is bound by connecting
	}
	if h.remote.Port() == 0 {
		h.remote = s.Remote
	}
	if len(h.changes) < mostChanges {
		h.changes = append(h.changes, change{state, at})
	}
}

// settle ends the time that a socket was in its state.
func (t *timeline) settle(f *followed, at time.Time) {
	was := &t.totals[f.state]
	was.now--
	was.longest = max(was.longest, at.Sub(f.since))
}

// leave says that a socket is gone.
func (t *timeline) leave(cookie uint64, f *followed, at time.Time) {
	t.settle(f, at)
	f.note(&Socket{}, StateClose, at)
	delete(t.live, cookie)
	t.owners.closed(cookie)
}

// saw enters what a look saw of a socket.
func (t *timeline) saw(s *Socket, look uint64, at time.Time) {
	t.enter(s, s.State, at)
	if f, ok := t.live[s.Cookie]; ok {
		f.seen = look
	}
}

// still says that a look has seen a socket that is followed.
func (t *timeline) still(s *Socket, look uint64) {
	if f, ok := t.live[s.Cookie]; ok {
		f.seen = look
	}
}

// after reports whether the state that a socket is in began later.
func (t *timeline) after(cookie uint64, at time.Time) bool {
	f, ok := t.live[cookie]
	return ok && f.since.After(at)
}

// missing says of each socket that a look should have seen, and did not, that it is gone.
func (t *timeline) missing(look uint64, at time.Time, should func(state uint32) bool) {
	for cookie, f := range t.live {
		if f.seen != look && should(f.state) {
			t.leave(cookie, f, at)
		}
	}
}

// holds reports whether a socket is in the state.
func (t *timeline) holds(state uint32) bool { return t.totals[state].now > 0 }

// report is what was followed until the end.
func (t *timeline) report(node string, source tcplabv1.StateSource, begin, end time.Time) *tcplabv1.NodeSockets {
	for _, f := range t.live {
		was := &t.totals[f.state]
		was.longest = max(was.longest, end.Sub(f.since))
	}
	r := &tcplabv1.NodeSockets{Node: node, Source: source, LeftOut: t.leftOut}
	for state, all := range t.totals {
		if all.entered > 0 {
			r.States = append(r.States, &tcplabv1.StateTotals{
				State: tcplabv1.TcpState(state), Entered: all.entered, Peak: all.peak, Last: all.now, Longest: duration(all.longest),
			})
		}
	}
	slices.SortFunc(r.GetStates(), func(a, b *tcplabv1.StateTotals) int { return cmp.Compare(a.GetState(), b.GetState()) })
	for _, h := range t.histories {
		r.Sockets = append(r.Sockets, h.report(begin))
	}
	return r
}

func (h *history) report(begin time.Time) *tcplabv1.SocketHistory {
	r := &tcplabv1.SocketHistory{Local: plainAddress(h.local), Flow: h.owner.Flow, End: h.owner.End}
	if h.remote.Port() != 0 {
		r.Remote = plainAddress(h.remote)
	}
	var names []string
	for _, c := range h.changes {
		r.States = append(r.States, &tcplabv1.StateChange{State: tcplabv1.TcpState(c.state), At: duration(c.at.Sub(begin))})
		names = append(names, stateName(c.state))
	}
	r.Path = strings.Join(names, " ")
	return r
}

// plainAddress writes an IPv4 address that an IPv6 socket has as IPv4.
func plainAddress(a netip.AddrPort) string {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
