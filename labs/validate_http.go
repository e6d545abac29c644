package labs

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Defaults and bounds of http flows.
const (
	defaultChunk   = 16 << 10
	defaultStreams = 100 // of HTTP/2; RFC 9113, 6.5.2 recommends no less
	maxHTTPObjects = 10_000
)

// completeHTTP fills in what an http flow leaves out.
func completeHTTP(h *tcplabv1.Http) {
	if h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_UNSPECIFIED {
		h.Version = tcplabv1.HttpVersion_HTTP_VERSION_1_1
	}
	two := h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_2
	if h.Client == nil {
		h.Client = &tcplabv1.HttpClient{}
	}
	c := h.Client
	c.Connections = max(1, c.GetConnections())
	if c.Persistent == nil {
		c.Persistent = new(h.GetVersion() != tcplabv1.HttpVersion_HTTP_VERSION_1_0)
	}
	if c.Pipeline == 0 {
		c.Pipeline = 1
		if two {
			c.Pipeline = defaultStreams
		}
	}
	if c.Retries == nil {
		c.Retries = new(uint32(1))
		if two {
			c.Retries = new(uint32(0))
		}
	}
	if h.Server == nil {
		h.Server = &tcplabv1.HttpServer{}
	}
	s := h.Server
	if s.GetFraming() == tcplabv1.HttpFraming_HTTP_FRAMING_UNSPECIFIED {
		s.Framing = tcplabv1.HttpFraming_HTTP_FRAMING_CONTENT_LENGTH
	}
	if s.GetFraming() == tcplabv1.HttpFraming_HTTP_FRAMING_CHUNKED && s.GetChunk() == 0 {
		s.Chunk = defaultChunk
	}
	if s.GetClose() == tcplabv1.HttpClose_HTTP_CLOSE_UNSPECIFIED {
		s.Close = tcplabv1.HttpClose_HTTP_CLOSE_DRAIN
	}
	for _, o := range httpObjects(h) {
		o.Count = max(1, o.GetCount())
		if o.GetMethod() == tcplabv1.HttpMethod_HTTP_METHOD_UNSPECIFIED {
			o.Method = tcplabv1.HttpMethod_HTTP_METHOD_GET
		}
		if o.ServerTime == nil && s.Time != nil {
			o.ServerTime = proto.CloneOf(s.GetTime())
		}
	}
	for _, p := range h.GetVia() {
		if p.GetKind() == tcplabv1.HttpProxyKind_HTTP_PROXY_KIND_UNSPECIFIED {
			p.Kind = tcplabv1.HttpProxyKind_HTTP_PROXY_KIND_SMART
		}
	}
}

// httpObjects are the document, if there is one, and the objects.
func httpObjects(h *tcplabv1.Http) []*tcplabv1.HttpObject {
	var all []*tcplabv1.HttpObject
	if h.GetDocument() != nil {
		all = append(all, h.GetDocument())
	}
	return append(all, h.GetObjects()...)
}

// http checks a flow that is to end within the time. What it says nothing of, Complete
// has filled in.
func (v *validation) http(flow string, f *tcplabv1.Flow, h *tcplabv1.Http, within time.Duration) {
	field := flow + ".http"
	v.httpObjects(field, h)
	v.httpLoad(field, h, within)
	v.httpClient(field, h)
	v.httpServer(field, h)
	if h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_2 {
		v.http2(field, h)
		if f.GetFault() != tcplabv1.FlowFault_FLOW_FAULT_UNSPECIFIED {
			v.add(flow+".fault", "use version 1.1", "the server of HTTP/2 is the standard library's, which makes no such fault")
		}
	}
	if f.GetSocket().GetRcvlowat() > 0 {
		v.add(flow+".socket.rcvlowat", "leave it out", "the end of a message would wait for bytes that nobody sends")
	}
}

func (v *validation) httpObjects(field string, h *tcplabv1.Http) {
	count := 0
	for _, o := range httpObjects(h) {
		count += int(max(1, o.GetCount()))
	}
	switch {
	case count == 0:
		v.add(field, "such as objects: [10kB]", "the client asks for nothing: neither a document nor objects")
	case count > maxHTTPObjects:
		v.add(field+".objects", "a load asks for them again and again: requests, or duration", "%d objects are more than %d", count, maxHTTPObjects)
	}
	if d := h.GetDocument(); d != nil {
		v.httpObject(field+".document", d)
		if d.GetCount() > 1 {
			v.add(field+".document.count", "the others are objects", "there is one document")
		}
	}
	for i, o := range h.GetObjects() {
		v.httpObject(fmt.Sprintf("%s.objects[%d]", field, i), o)
	}
}

func (v *validation) httpObject(field string, o *tcplabv1.HttpObject) {
	sends := o.GetMethod() == tcplabv1.HttpMethod_HTTP_METHOD_POST || o.GetMethod() == tcplabv1.HttpMethod_HTTP_METHOD_PUT
	switch {
	case o.GetBody() > 0 && !sends:
		v.add(field+".body", "method: POST, or PUT", "a request of this method has no body")
	case o.GetEarly() && o.GetBody() == 0:
		v.add(field+".early", "give the request a body", "an answer is early where there is a body to leave unread")
	}
	switch {
	case o.Cut == nil && o.GetCutTimes() > 0:
		v.add(field+".cut_times", "", "how much of the answer is sent is missing: cut")
	case o.GetCut() > o.GetSize():
		v.add(field+".cut", "", "an answer of %d bytes cannot be cut after %d", o.GetSize(), o.GetCut())
	case o.GetCut() > 0 && o.GetMethod() == tcplabv1.HttpMethod_HTTP_METHOD_HEAD:
		v.add(field+".cut", "cut: 0B loses the answer", "the answer to HEAD has no body to be cut")
	}
}

func (v *validation) httpLoad(field string, h *tcplabv1.Http, within time.Duration) {
	d := h.GetDuration().AsDuration()
	switch {
	case h.GetRequests() == 0 && d == 0:
		return
	case h.GetRequests() > 0 && d > 0:
		v.add(field+".duration", "", "give requests or duration, not both")
	case h.GetDocument() != nil:
		v.add(field+".document", "make it one of the objects", "a load has no document")
	case h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_2:
		v.add(field+".version", "use 1.1, or a page", "HTTP/2 loads no server here")
	case d >= within:
		v.add(field+".duration", "raise the experiment's timeout", "the load lasts %v, and the experiment ends after %v", d, within)
	}
}

func (v *validation) httpClient(field string, h *tcplabv1.Http) {
	c, client := h.GetClient(), field+".client"
	old := h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_1_0
	if c.GetPipeline() > 1 {
		switch {
		case old:
			v.add(client+".pipeline", "version: 1.1", "HTTP/1.0 has no pipelines")
		case c.Persistent != nil && !c.GetPersistent():
			v.add(client+".pipeline", "persistent: true", "a pipeline needs a connection that stays open")
		case c.GetThinkTime().AsDuration() > 0:
			v.add(client+".think_time", "leave one of them out", "in a pipeline the client does not think")
		}
	}
	if c.GetProxyConnection() && (!old || len(h.GetVia()) == 0 || !c.GetPersistent()) {
		v.add(client+".proxy_connection", "", "Proxy-Connection is what a client of HTTP/1.0 asks a proxy by for a persistent connection: version 1.0, via and persistent: true")
	}
	if c.GetHalfClose() && len(h.GetVia()) > 0 {
		v.add(client+".half_close", "leave the proxies out", "a proxy takes a client that has ended its side for gone")
	}
}

func (v *validation) httpServer(field string, h *tcplabv1.Http) {
	s, server := h.GetServer(), field+".server"
	chunked := s.GetFraming() == tcplabv1.HttpFraming_HTTP_FRAMING_CHUNKED
	switch {
	case chunked && h.GetVersion() == tcplabv1.HttpVersion_HTTP_VERSION_1_0:
		v.add(server+".framing", "version: 1.1, or close_delimited", "HTTP/1.0 has no chunks")
	case !chunked && s.GetChunk() > 0:
		v.add(server+".chunk", "framing: chunked", "the server sends no chunks")
	}
}

// http2 checks what HTTP/2 has no use for.
func (v *validation) http2(field string, h *tcplabv1.Http) {
	refuse := func(refused bool, at, what string) {
		if refused {
			v.add(field+"."+at, "leave it out, or use version 1.1", "with HTTP/2 there is no %s", what)
		}
	}
	c, s := h.GetClient(), h.GetServer()
	refuse(len(h.GetVia()) > 0, "via", "proxy here")
	refuse(c.GetConnections() > 1, "client.connections", "second connection")
	refuse(c.Persistent != nil && !c.GetPersistent(), "client.persistent", "connection for each request")
	refuse(c.GetRetries() > 0, "client.retries", "retry here")
	refuse(c.GetTimeout().AsDuration() > 0, "client.timeout", "timeout of the client here")
	refuse(c.GetThinkTime().AsDuration() > 0, "client.think_time", "thinking client here")
	refuse(c.GetHalfClose(), "client.half_close", "half-close")
	refuse(c.GetHead() > 0, "client.head", "head to fill up: it is compressed")
	refuse(s.GetFraming() > tcplabv1.HttpFraming_HTTP_FRAMING_CONTENT_LENGTH, "server.framing", "choice of a body's end")
	refuse(s.GetIdleTimeout().AsDuration() > 0, "server.idle_timeout", "idle timeout here")
	refuse(s.GetMaxRequests() > 0, "server.max_requests", "limit of requests here")
	refuse(s.GetClose() > tcplabv1.HttpClose_HTTP_CLOSE_DRAIN, "server.close", "choice of how the server closes")
	refuse(s.GetHead() > 0, "server.head", "head to fill up: it is compressed")
	refuse(s.GetNoKeepAlive(), "server.no_keep_alive", "connection for each request")
	for i, o := range h.GetObjects() {
		at := fmt.Sprintf("objects[%d]", i)
		refuse(o.Cut != nil, at+".cut", "cut answer here")
		refuse(o.GetEarly(), at+".early", "early answer here")
	}
	if d := h.GetDocument(); d != nil {
		refuse(d.Cut != nil, "document.cut", "cut answer here")
		refuse(d.GetEarly(), "document.early", "early answer here")
	}
}
