package web

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tcplab/tcplab/agent/flow/http1"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// plan is what an http flow does, with defaults filled in.
type plan struct {
	two     bool // HTTP/2
	version http1.Version
	objects []object // the document first, if there is one
	leading bool     // there is a document

	// A load instead of a page.
	requests uint64 // in all; 0: as many as objects, or as fit the time
	duration time.Duration

	client clientPlan
	server serverPlan
}

// clientPlan is what the client does with connections.
type clientPlan struct {
	connections int
	persistent  bool
	pipeline    int
	retries     int
	timeout     time.Duration // 0: none
	think       time.Duration
	ask         string // the field by which it asks for what is not the version's default; empty: it need not
	asked       string // and its value
	byProxy     bool   // it takes Proxy-Connection of an answer for Connection
	halfClose   bool
	head        int // bytes of a request's head at least
}

// serverPlan is what the server does.
type serverPlan struct {
	framing     http1.Framing
	chunk       int
	idle        time.Duration // 0: for ever
	maxRequests int           // 0: any number
	close       tcplabv1.HttpClose
	head        int
	keepAlive   bool
}

// object is what one request asks for.
type object struct {
	target     string
	method     string
	size       uint64
	body       uint64
	serverTime time.Duration
	early      bool
	cut        bool
	cutAfter   uint64
	cutTimes   int // 0: every time
}

// answerBytes is how long the body of the whole answer is.
func (o *object) answerBytes() uint64 {
	if o.method == "HEAD" {
		return 0
	}
	return o.size
}

// maxObjects bounds what a page has (Http.objects).
const maxObjects = 10_000

// newPlan reads the contract.
func newPlan(h *tcplabv1.Http) (*plan, error) {
	c, s := h.GetClient(), h.GetServer()
	p := &plan{
		two:      h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_2,
		version:  http1.HTTP11,
		leading:  h.GetDocument() != nil,
		requests: uint64(h.GetRequests()),
		duration: h.GetDuration().AsDuration(),
		client: clientPlan{
			connections: int(max(1, c.GetConnections())),
			pipeline:    int(max(1, c.GetPipeline())),
			retries:     1,
			timeout:     c.GetTimeout().AsDuration(),
			think:       c.GetThinkTime().AsDuration(),
			halfClose:   c.GetHalfClose(),
			head:        int(c.GetHead()),
		},
		server: serverPlan{
			framing:     http1.Length,
			idle:        s.GetIdleTimeout().AsDuration(),
			maxRequests: int(s.GetMaxRequests()),
			close:       s.GetClose(),
			head:        int(s.GetHead()),
			keepAlive:   !s.GetNoKeepAlive(),
		},
	}
	if c != nil && c.Retries != nil {
		p.client.retries = int(c.GetRetries())
	}
	if h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_1_0 {
		p.version = http1.HTTP10
	}
	switch s.GetFraming() {
	case tcplabv1.HttpFraming_HTTP_FRAMING_CHUNKED:
		p.server.framing, p.server.chunk = http1.Chunked, int(s.GetChunk())
		if p.server.chunk == 0 {
			p.server.chunk = defaultChunk
		}
	case tcplabv1.HttpFraming_HTTP_FRAMING_CLOSE_DELIMITED:
		p.server.framing = http1.UntilClose
	}
	p.persistence(c)
	if h.GetDocument() != nil {
		p.add(h.GetDocument(), s, 1)
	}
	for _, o := range h.GetObjects() {
		p.add(o, s, int(max(1, o.GetCount())))
	}
	return p, p.check(h)
}

// defaultChunk is the contract's (HttpServer.chunk).
const defaultChunk = 16 << 10

// persistence settles what the client says of the connection.
func (p *plan) persistence(c *tcplabv1.HttpClient) {
	old := p.version == http1.HTTP10
	p.client.persistent = !old
	if c != nil && c.Persistent != nil {
		p.client.persistent = c.GetPersistent()
	}
	switch {
	case old && p.client.persistent && c.GetProxyConnection():
		p.client.ask, p.client.asked, p.client.byProxy = http1.FieldProxyConnection, "keep-alive", true
	case old && p.client.persistent:
		p.client.ask, p.client.asked = http1.FieldConnection, "keep-alive"
	case !old && !p.client.persistent:
		p.client.ask, p.client.asked = http1.FieldConnection, "close"
	}
}

func (p *plan) add(o *tcplabv1.HttpObject, s *tcplabv1.HttpServer, count int) {
	made := object{
		method:     methodName(o.GetMethod()),
		size:       o.GetSize(),
		body:       o.GetBody(),
		serverTime: s.GetTime().AsDuration(),
		early:      o.GetEarly(),
		cut:        o.Cut != nil,
		cutAfter:   o.GetCut(),
		cutTimes:   int(o.GetCutTimes()),
	}
	if o.ServerTime != nil {
		made.serverTime = o.GetServerTime().AsDuration()
	}
	for range min(count, maxObjects+1-len(p.objects)) {
		made.target = "/" + strconv.Itoa(len(p.objects))
		p.objects = append(p.objects, made)
	}
}

func methodName(m tcplabv1.HttpMethod) string {
	switch m {
	case tcplabv1.HttpMethod_HTTP_METHOD_HEAD:
		return "HEAD"
	case tcplabv1.HttpMethod_HTTP_METHOD_POST:
		return "POST"
	case tcplabv1.HttpMethod_HTTP_METHOD_PUT:
		return "PUT"
	case tcplabv1.HttpMethod_HTTP_METHOD_DELETE:
		return "DELETE"
	}
	return "GET"
}

// check refuses what package labs would have refused, where it matters here.
func (p *plan) check(h *tcplabv1.Http) error {
	switch load := p.requests > 0 || p.duration > 0; {
	case len(p.objects) == 0:
		return errors.New("the client asks for nothing")
	case len(p.objects) > maxObjects:
		return fmt.Errorf("more than %d objects", maxObjects)
	case load && (p.leading || p.two):
		return errors.New("a load has no document, and is not of HTTP/2")
	case p.two && len(h.GetVia()) > 0:
		return errors.New("HTTP/2 through a proxy")
	case p.client.pipeline > 1 && !p.two && (!p.client.persistent || p.version == http1.HTTP10):
		return errors.New("a pipeline needs persistent connections of HTTP/1.1")
	case p.version == http1.HTTP10 && p.server.framing == http1.Chunked:
		return errors.New("HTTP/1.0 has no chunks")
	}
	for i, o := range p.objects {
		if o.cutAfter > o.size || o.early && o.body == 0 {
			return fmt.Errorf("object %d is cut behind its end, or early without a body", i)
		}
	}
	return nil
}

// isLoad reports whether objects are asked for again and again.
func (p *plan) isLoad() bool { return p.requests > 0 || p.duration > 0 }

// find is the object of a target, or -1.
func (p *plan) find(target []byte) int {
	if len(target) < 2 || target[0] != '/' || len(target) > 1+5 {
		return -1
	}
	n := 0
	for _, c := range target[1:] {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	if n >= len(p.objects) || p.objects[n].target != string(target) {
		return -1
	}
	return n
}
