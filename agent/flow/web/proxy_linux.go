package web

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/http1"
	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
)

// proxy passes requests on, to the server or the next proxy, and answers back.
type proxy struct {
	listening
	dumb bool
	out  socket.Spec // of connections to the next hop
	next netip.AddrPort
	idle time.Duration // of a client's connection; 0: for ever
	via  string        // what it says of itself in Via

	relays map[*relay]struct{}
	seen   proxySeen
}

// proxySeen is what a proxy has counted.
type proxySeen struct {
	accepted, connections, requests uint32
	relayed                         uint64 // bytes towards the client
	unread                          int    // the most that a client had sent and nobody read
}

// relayLimit is how much a proxy takes from one side ahead of the other.
const relayLimit = 256 << 10

func newProxy(s side) *proxy {
	p := &proxy{listening: listening{side: s, listener: -1}, relays: make(map[*relay]struct{})}
	p.accepted = p.accept
	return p
}

// relay is a client's connection with the one to the next hop that serves it.
type relay struct {
	proxy *proxy
	down  *downstream
	up    *upstream // nil: none
	early []byte    // what a dumb proxy has of a request before it knows its head
}

func (p *proxy) accept(fd socket.FD) error {
	r := &relay{proxy: p}
	r.down = &downstream{relay: r, parser: http1.NewRequests()}
	conn, err := p.adopt(fd, r.down, standing)
	if err != nil {
		return err
	}
	r.down.conn = conn
	r.down.idle.Func = r.part
	r.down.watchIdle()
	p.seen.accepted++
	p.relays[r] = struct{}{}
	return nil
}

// finish is listening.finish, and ends what only waits.
func (p *proxy) finish() {
	for r := range p.relays {
		r.part()
	}
	p.listening.finish()
}

// part ends both connections in order. Both calls do nothing where it has been done.
func (r *relay) part() {
	if r.up != nil {
		r.up.end()
	}
	r.down.end()
}

// connect has a connection to the next hop, an open one or a new one.
func (r *relay) connect() error {
	if r.up != nil && r.up.state <= standing && !r.up.over {
		return nil
	}
	u := &upstream{relay: r, parser: http1.NewAnswers()}
	dialer := socket.Dialer{Spec: r.proxy.out}
	err := dialer.Dial(func(port uint16) error {
		fd, err := r.proxy.out.Open(port, unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		if err := fd.Connect(r.proxy.next); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			fd.Close()
			return err
		}
		u.conn, err = r.proxy.adopt(fd, u, connecting)
		return err
	})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", r.proxy.next, err)
	}
	r.up = u
	return nil
}

// downstream is a client's connection.
type downstream struct {
	*conn
	relay  *relay
	parser *http1.Parser

	underWay  bool   // a request is, from its head to its answer's end
	inMessage bool   // its end has not come
	deaf      bool   // a dumb proxy has its request, and hears no other
	over      bool   // the connection ends when all is written
	persists  bool   // the client wants it to stay open
	asked     string // the field by which the client said so
	method    string
	idle      loop.Timer
}

func (d *downstream) connected() {}

func (d *downstream) wants() bool {
	switch {
	case d.over || d.deaf:
		return false
	case !d.underWay:
		return true
	}
	return d.inMessage && (d.relay.up == nil || d.relay.up.out.pending() < relayLimit)
}

func (d *downstream) skippable() uint64 { return 0 }
func (d *downstream) skipped(uint64)    {}

func (d *downstream) input(in []byte) (used int) {
	if d.relay.proxy.dumb {
		return d.pass(in)
	}
	// The end of a request needs no more bytes, and is taken note of however much is waiting for the next hop.
	for d.state == standing && (d.wants() || d.inMessage && d.parser.Whole()) {
		within := d.inMessage
		event, n, _, err := d.parser.Parse(in[used:])
		raw := in[used : used+n]
		used += n
		if err != nil {
			d.refuse(400)
			return len(in)
		}
		if within && d.relay.up != nil && len(raw) > 0 {
			d.relay.up.out.text(raw)
			d.relay.up.send()
		}
		switch event {
		case http1.More:
			return used
		case http1.GotHead:
			d.begin(d.parser.Head())
		case http1.GotEnd:
			d.inMessage = false
		}
	}
	return used
}

// begin passes a request on, as the next hop is to have it.
func (d *downstream) begin(h *http1.Head) {
	d.loop.Stop(&d.idle)
	p := d.relay.proxy
	d.underWay, d.inMessage = true, true
	d.method = methodOf(h.Method)
	d.persists = h.PersistsByProxy()
	d.asked = http1.FieldConnection
	if h.Value(http1.FieldConnection) == nil && h.Value(http1.FieldProxyConnection) != nil {
		d.asked = http1.FieldProxyConnection
	}
	if err := d.relay.connect(); err != nil {
		d.log.Warn("a proxy cannot pass a request on", "flow", d.flow, "end", d.name, "error", err)
		d.refuse(502)
		return
	}
	p.seen.requests++
	out := http1.AppendForwarded(nil, h, p.plan.version)
	if d.parser.Body().Framing == http1.Chunked {
		out = http1.AppendField(out, http1.FieldTransferEncoding, "chunked")
	}
	out = http1.AppendField(out, "Via", p.via)
	switch old := p.plan.version == http1.HTTP10; {
	case old && d.persists:
		out = http1.AppendField(out, http1.FieldConnection, "keep-alive")
	case !old && !d.persists:
		out = http1.AppendField(out, http1.FieldConnection, "close")
	}
	d.relay.up.out.text(http1.AppendEnd(out))
	d.relay.up.send()
}

// pass is what a dumb proxy does with the first request: it passes it on as it came. It reads
// just far enough to know its end.
func (d *downstream) pass(in []byte) (used int) {
	for d.state == standing && !d.deaf {
		event, n, _, err := d.parser.Parse(in[used:])
		if err != nil {
			d.refuse(400)
			return len(in)
		}
		d.relay.early = append(d.relay.early, in[used:used+n]...)
		used += n
		if event == http1.GotHead {
			d.underWay, d.inMessage = true, true
			d.loop.Stop(&d.idle)
			if err := d.relay.connect(); err != nil {
				d.log.Warn("a proxy cannot pass a request on", "flow", d.flow, "end", d.name, "error", err)
				d.refuse(502)
				return len(in)
			}
			d.relay.proxy.seen.requests++
		}
		if d.relay.up != nil {
			d.relay.up.out.text(d.relay.early)
			d.relay.early = d.relay.early[:0]
			d.relay.up.send()
		}
		switch event {
		case http1.More:
			return used
		case http1.GotEnd:
			d.inMessage, d.deaf = false, true
		}
	}
	return used
}

// refuse answers by itself and ends the connection.
func (d *downstream) refuse(status int) {
	out := http1.AppendStatusLine(nil, d.relay.proxy.plan.version, status)
	out = http1.AppendLength(out, 0)
	d.out.text(http1.AppendEnd(out))
	d.last()
	d.send()
}

// last: the connection ends when all is written.
func (d *downstream) last() {
	d.over = true
	if d.out.empty() {
		d.end()
	}
}

func (d *downstream) flushed() {
	if d.over {
		d.end()
		return
	}
	if d.relay.up != nil {
		d.relay.up.pump()
	}
}

// end ends the connection. Where the client has sent what nobody read, closing does.
func (d *downstream) end() {
	d.over = true
	d.loop.Stop(&d.idle)
	if d.state != standing {
		return
	}
	unread, err := d.fd.Unread()
	if err != nil || !d.relay.proxy.dumb || unread == 0 {
		d.drain()
		return
	}
	d.relay.proxy.seen.unread = max(d.relay.proxy.seen.unread, unread)
	d.letGo()
}

// answered: the answer is passed on, and the connection is free for another request.
func (d *downstream) answered() {
	d.underWay = false
	if !d.persists || d.inMessage {
		d.last()
		return
	}
	d.watchIdle()
	d.pump()
}

// ended: the client sends no more.
func (d *downstream) ended(error) {
	d.over = true
	if d.underWay && d.relay.up != nil {
		d.relay.up.abort()
	}
	d.relay.part()
}

func (d *downstream) closed() {
	d.over = true
	d.loop.Stop(&d.idle)
	if d.relay.up != nil {
		d.relay.up.end()
	}
	d.relay.leave()
}

func (d *downstream) watchIdle() {
	if idle := d.relay.proxy.idle; idle > 0 && !d.relay.proxy.dumb {
		d.loop.Set(&d.idle, time.Now().Add(idle))
	}
}

// leave forgets a relay of which nothing is left.
func (r *relay) leave() {
	if r.down.state == closed && (r.up == nil || r.up.state == closed) {
		delete(r.proxy.relays, r)
	}
}

// upstream is a connection to the next hop.
type upstream struct {
	*conn
	relay     *relay
	parser    *http1.Parser
	inMessage bool // an answer's head was passed on, and its end was not
	persists  bool // the next hop leaves it open
	interim   bool
	over      bool
}

func (u *upstream) connected() {
	u.relay.proxy.seen.connections++
	u.send()
}

func (u *upstream) wants() bool {
	return u.relay.down.state != standing || u.relay.down.out.pending() < relayLimit
}

func (u *upstream) skippable() uint64 { return 0 }
func (u *upstream) skipped(uint64)    {}

func (u *upstream) input(in []byte) (used int) {
	d := u.relay.down
	if u.relay.proxy.dumb {
		u.passOn(in)
		return len(in)
	}
	for u.state == standing && !u.over {
		if !d.underWay || d.state != standing {
			if len(in) > used {
				u.abort() // nobody asked, or nobody listens any more
			}
			return len(in)
		}
		if u.parser.Between() {
			u.parser.Expect(d.method)
		}
		within := u.inMessage
		event, n, _, err := u.parser.Parse(in[used:])
		raw := in[used : used+n]
		used += n
		if err != nil {
			u.abort()
			d.end()
			return len(in)
		}
		if within {
			u.passOn(raw)
		}
		switch event {
		case http1.More:
			return used
		case http1.GotHead:
			u.head(u.parser.Head())
		case http1.GotEnd:
			u.answered()
		}
	}
	return len(in)
}

// passOn writes to the client.
func (u *upstream) passOn(raw []byte) {
	if d := u.relay.down; len(raw) > 0 && d.state == standing {
		u.relay.proxy.seen.relayed += uint64(len(raw))
		d.out.text(raw)
		d.send()
	}
}

// head passes an answer's head on, as the client is to have it.
func (u *upstream) head(h *http1.Head) {
	d, version := u.relay.down, u.relay.proxy.plan.version
	framing := u.parser.Body().Framing
	u.interim = h.Status < 200
	if u.interim {
		return
	}
	u.inMessage = true
	u.persists = h.Persists() && framing != http1.UntilClose
	d.persists = d.persists && framing != http1.UntilClose
	out := http1.AppendForwarded(nil, h, version)
	if framing == http1.Chunked {
		out = http1.AppendField(out, http1.FieldTransferEncoding, "chunked")
	}
	switch old := version == http1.HTTP10; {
	case old && d.persists:
		out = http1.AppendField(out, d.asked, "keep-alive")
	case !old && !d.persists:
		out = http1.AppendField(out, http1.FieldConnection, "close")
	}
	u.passOn(http1.AppendEnd(out))
}

// answered is the end of an answer.
func (u *upstream) answered() {
	if u.interim {
		return
	}
	u.inMessage = false
	if !u.persists {
		u.end()
	}
	u.relay.down.answered()
}

func (u *upstream) flushed() { u.relay.down.pump() }

// ended: the next hop sends no more.
func (u *upstream) ended(err error) {
	d := u.relay.down
	u.over = true
	if u.state == standing {
		u.end()
	}
	if d.state != standing {
		return
	}
	if u.relay.proxy.dumb {
		d.last()
		return
	}
	if !d.underWay {
		return
	}
	// The end of a body that has no other, or of one cut short, or of all hope: the
	// client is told in the same way.
	if u.inMessage && u.reset {
		d.abort()
		return
	}
	if err != nil && !u.inMessage && !u.reset {
		d.refuse(502)
		return
	}
	d.persists = false
	d.inMessage = false
	d.answered()
}

// end ends the connection in order.
func (u *upstream) end() {
	u.over = true
	switch u.state {
	case connecting:
		u.abort()
	case standing:
		u.out.drop()
		u.drain()
	}
}

func (u *upstream) closed() {
	u.over = true
	u.relay.leave()
}
