package web

import (
	"fmt"
	"strings"
	"time"

	"github.com/tcplab/tcplab/agent/flow/http1"
	"github.com/tcplab/tcplab/agent/flow/loop"
)

// clientConn is a connection of the client, with the requests that are under way on it.
type clientConn struct {
	*conn
	client *client

	called   time.Time // connect(2)
	stood    time.Time // zero: not yet
	under    []task    // asked, in this order
	waiting  int       // of these, the last so many are not written yet
	parser   *http1.Parser
	answers  int  // that have come whole
	status   int  // of the answer that comes
	persists bool // it leaves the connection open
	interim  bool // it is one before the answer (1xx)
	retired  bool // it takes no further request
	cautious bool // it follows one that failed: no pipeline before the first answer
	thinking bool
	left     bool // it is none of the client's open ones any more
	finished bool // half-closed
	patient  loop.Timer
	pause    loop.Timer
}

func isIdempotent(method string) bool { return http1.IsIdempotent(method) }

func (c *clientConn) begin() {
	c.parser = http1.NewAnswers()
	c.patient.Func = c.timedOut
	c.pause.Func = func() {
		c.thinking = false
		if c.left {
			c.client.thinkers--
		}
		c.client.dispatch()
	}
	c.cautious = c.client.seen.retries > 0
	c.watchPatience()
}

// takes reports whether a request could be asked on the connection now.
func (c *clientConn) takes(o *object) bool {
	depth := c.client.plan.client.pipeline
	if c.cautious {
		depth = 1
	}
	switch {
	case c.retired || c.thinking || c.finished || c.state > standing || len(c.under) >= depth:
		return false
	case len(c.under) == 0:
		return c.answers == 0 || c.client.plan.client.persistent
	case !c.client.plan.client.persistent || !isIdempotent(o.method):
		return false
	}
	// Nothing is sent behind what may not be sent again (RFC 9112, 9.3.2).
	return isIdempotent(c.client.plan.objects[c.under[len(c.under)-1].object].method)
}

// ask puts a request under way.
func (c *clientConn) ask(t task) {
	c.client.under++
	t.tries++
	c.under = append(c.under, t)
	c.waiting++
	if !c.client.plan.client.persistent {
		c.retired = true
	}
	if c.state == standing {
		c.write()
	}
}

// write writes the requests that wait.
func (c *clientConn) write() {
	if c.waiting == 0 {
		return
	}
	now := time.Now()
	for i := len(c.under) - c.waiting; i < len(c.under); i++ {
		t := &c.under[i]
		o := &c.client.plan.objects[t.object]
		c.out.text(c.client.request(t.object))
		c.out.zeros(c.blocks, o.body)
		t.asked = now
		if t.first.IsZero() {
			t.first = now
		}
		t.order = uint64(c.client.seen.requests)
		c.client.seen.requests++
		if t.tries == 1 {
			c.client.seen.asked += o.answerBytes()
		}
		if c.answers > 0 || i > 0 {
			c.client.seen.reused++
		}
		if e := c.client.seen.exchanges; e != nil {
			e[t.object].task, e[t.object].connection = *t, c.number
		}
	}
	c.waiting = 0
	c.watchPatience()
	c.send()
}

// request is the head of an object's request, made once: it says the same each time.
func (c *client) request(object int) []byte {
	if c.heads[object] == nil {
		c.heads[object] = c.appendRequest(nil, &c.plan.objects[object])
	}
	return c.heads[object]
}

// appendRequest appends the head of a request.
func (c *client) appendRequest(dst []byte, o *object) []byte {
	begin := len(dst)
	dst = http1.AppendRequestLine(dst, o.method, o.target, c.plan.version)
	dst = http1.AppendField(dst, "Host", c.host)
	if o.method == "POST" || o.method == "PUT" {
		dst = http1.AppendLength(dst, o.body)
	}
	if c.plan.client.ask != "" {
		dst = http1.AppendField(dst, c.plan.client.ask, c.plan.client.asked)
	}
	dst = appendFiller(dst, begin, c.plan.client.head)
	return http1.AppendEnd(dst)
}

// appendFiller fills a head up to so many bytes, its end among them, where it is shorter
// than that by a field at least.
func appendFiller(dst []byte, begin, size int) []byte {
	const name = "X-Filler"
	left := size - (len(dst) - begin) - len(name) - len(": \r\n") - len("\r\n")
	if left < 0 {
		return dst
	}
	return http1.AppendField(dst, name, strings.Repeat("x", left))
}

func (c *clientConn) connected() {
	c.stood = time.Now()
	c.client.seen.connections++
	c.client.seen.connect.Add(c.stood.Sub(c.called))
	if c.number == 1 {
		c.client.seen.phases.connect = c.stood.Sub(c.called)
	}
	c.watchPatience()
	c.write()
}

// wants: the client reads whenever something comes.
func (c *clientConn) wants() bool { return true }

func (c *clientConn) skippable() uint64 { return c.parser.Skippable() }

func (c *clientConn) skipped(n uint64) {
	c.client.seen.bodies += n
	c.client.seen.lastRead = time.Now()
	c.parser.Skip(n)
	c.watchPatience()
	c.parse(nil)
}

func (c *clientConn) input(in []byte) int {
	now := time.Now()
	c.client.seen.lastRead = now
	if len(c.under) > 0 && c.under[0].arrived.IsZero() {
		c.under[0].arrived = now
	}
	if len(c.under) > 0 {
		c.watchPatience()
	}
	c.parse(in)
	return len(in)
}

// parse takes what came apart.
func (c *clientConn) parse(in []byte) {
	for c.state == standing {
		if len(c.under) == 0 {
			if len(in) > 0 {
				c.fail(fmt.Errorf("%d bytes came that nobody asked for", len(in)))
			}
			return
		}
		if c.parser.Between() {
			c.parser.Expect(c.client.plan.objects[c.under[0].object].method)
		}
		event, used, data, err := c.parser.Parse(in)
		if err != nil {
			c.client.finish(c.pop(), c, c.parser.BodyBytes(), fmt.Errorf("an answer that is none: %w", err))
			c.giveUpRest(errLost)
			c.retired = true
			c.abort()
			return
		}
		in = in[used:]
		switch event {
		case http1.More:
			return
		case http1.GotHead:
			h := c.parser.Head()
			c.status, c.interim = h.Status, h.Status < 200
			c.persists = h.Persists()
			if c.client.plan.client.byProxy {
				c.persists = h.PersistsByProxy()
			}
			if c.parser.Body().Framing == http1.UntilClose {
				c.persists = false
			}
			if c.under[0].arrived.IsZero() { // it came in one read with the answer before
				c.under[0].arrived = c.client.seen.lastRead
			}
		case http1.GotData:
			c.client.seen.bodies += uint64(len(data))
		case http1.GotEnd:
			if !c.interim {
				c.answered()
			}
		}
	}
}

// answered is the end of an answer.
func (c *clientConn) answered() {
	t := c.pop()
	c.answers++
	c.cautious = false
	done := c.client.seen.lastRead // the last of it came then: the clock is asked once for each read
	c.client.seen.phases.note(c, &t, done)
	var refused error
	if c.status >= 400 {
		refused = fmt.Errorf("the answer is %d", c.status)
	}
	c.client.finishAt(done, t, c, c.parser.BodyBytes(), refused)
	if !c.persists {
		// What is under way behind it will not be carried out (RFC 9112, 9.6).
		c.retired = true
	}
	c.watchPatience()
	switch plan := c.client.plan; {
	case c.retired && (len(c.under) == 0 || !c.persists):
		c.giveUpRest(errLost)
		c.retire()
	case plan.client.think > 0 && len(c.under) == 0:
		c.thinking = true
		c.loop.Set(&c.pause, time.Now().Add(plan.client.think))
	}
	// Mostly the next request goes where the answer came from: nobody else need be looked at.
	if len(c.under) == 0 && c.client.left() && c.takes(c.client.peek()) {
		c.ask(c.client.take())
		if c.client.plan.client.pipeline == 1 && len(c.client.open) == c.client.plan.client.connections {
			return
		}
	}
	c.client.dispatch()
}

// note keeps the parts of the first transaction.
func (p *phases) note(c *clientConn, t *task, done time.Time) {
	if p.known || c.number != 1 || t.tries > 1 {
		return
	}
	p.known = true
	p.firstByte = t.arrived.Sub(t.asked)
	p.body = done.Sub(t.arrived)
	p.total = done.Sub(c.called)
}

func (c *clientConn) pop() task {
	t := c.under[0]
	c.under = append(c.under[:0], c.under[1:]...)
	c.client.under--
	c.waiting = min(c.waiting, len(c.under))
	return t
}

// giveUpRest deals with what is under way on a connection that answers no more.
func (c *clientConn) giveUpRest(err error) {
	for len(c.under) > 0 {
		c.client.lost(c.pop(), c, errorOf(c.reset, err))
	}
}

// retire ends the connection: nothing is under way on it. A server that said it would
// end it goes first: two FINs that cross would leave both ends in TIME_WAIT.
func (c *clientConn) retire() {
	c.retired = true
	c.leave()
	switch {
	case c.state == connecting:
		c.abort()
	case c.state == standing && c.answers > 0 && !c.persists && !c.eof && !c.reset:
		c.out.drop() // a body that the server did not wait for
		c.patient.Func = c.drain
		c.loop.Set(&c.patient, time.Now().Add(patienceBase))
	case c.state == standing:
		c.out.drop()
		c.drain()
	}
}

// leave takes the connection off those that may carry requests.
func (c *clientConn) leave() {
	c.loop.Stop(&c.patient)
	if c.left {
		return
	}
	c.left = true
	if c.thinking {
		c.client.thinkers++ // who thinks on, with or without a connection
	}
	for i, o := range c.client.open {
		if o == c {
			c.client.open = append(c.client.open[:i:i], c.client.open[i+1:]...)
			return
		}
	}
}

func (c *clientConn) flushed() {
	if c.client.plan.client.halfClose && !c.finished && c.client.exhausted() && len(c.under) > 0 {
		c.finished = true
		c.finishWriting()
	}
}

// ended: the server, or the proxy, sends no more.
func (c *clientConn) ended(err error) {
	c.retired = true
	if c.stood.IsZero() {
		c.notConnected(err)
		return
	}
	c.endOfAnswer(err)
	c.giveUpRest(because(errLost, err))
	c.retire()
	c.client.dispatch()
}

// endOfAnswer is what the connection's end makes of the answer that was coming.
func (c *clientConn) endOfAnswer(err error) {
	if len(c.under) == 0 || c.parser.Between() {
		return
	}
	// A reset is not the end of a body; only a FIN can be that.
	if whole, cut := c.parser.Finish(); cut != nil || c.reset || err != nil {
		if err == nil {
			err = cut
		}
		if err == nil {
			err = errLost
		}
		c.client.seen.cutShort++
		c.client.finish(c.pop(), c, c.parser.BodyBytes(), errorOf(c.reset, fmt.Errorf("cut short after %d bytes of the body: %w", c.parser.BodyBytes(), err)))
	} else if whole {
		t, done := c.pop(), time.Now()
		c.answers++
		c.client.seen.phases.note(c, &t, done)
		c.client.finishAt(done, t, c, c.parser.BodyBytes(), nil)
	}
}

func (c *clientConn) notConnected(err error) {
	c.leave()
	err = fmt.Errorf("connecting from %s to %s: %w", c.spec.Addr, c.client.to, err)
	c.client.broken = cmpError(c.client.broken, err)
	c.client.fail(err)
	for len(c.under) > 0 {
		c.client.finish(c.pop(), c, 0, err)
	}
}

func (c *clientConn) closed() {
	c.leave()
	c.loop.Stop(&c.patient)
}

// watchPatience sets, or takes off, how long the client waits for what is due.
func (c *clientConn) watchPatience() {
	patience := c.client.plan.client.timeout
	switch {
	case patience == 0:
	case c.stood.IsZero() || len(c.under) > 0:
		c.loop.Set(&c.patient, time.Now().Add(patience))
	default:
		c.loop.Stop(&c.patient)
	}
}

func (c *clientConn) timedOut() {
	c.client.seen.timeouts++
	c.retired = true
	err := errorOf(false, fmt.Errorf("%w: nothing came for %s", errTimeout, c.client.plan.client.timeout))
	if c.stood.IsZero() {
		c.notConnected(err)
	} else {
		c.client.finish(c.pop(), c, c.parser.BodyBytes(), err)
		c.giveUpRest(errLost)
	}
	c.leave()
	c.abort()
}

// because joins what an end means with why it came.
func because(what, why error) error {
	if why == nil {
		return what
	}
	return fmt.Errorf("%w: %w", what, why)
}

// cmpError is the first that is an error.
func cmpError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
