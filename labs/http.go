package labs

import (
	"fmt"
	"reflect"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type httpSpec struct {
	At       *node           `yaml:"-"`
	From     string          `yaml:"from" jsonschema:"required" jsonschema_description:"The node of the client."`
	To       string          `yaml:"to" jsonschema:"required" jsonschema_description:"The node of the server."`
	Via      []httpProxy     `yaml:"via" jsonschema:"maxItems=8" jsonschema_description:"Proxies on the way, in order from the client: nodes, or mappings. Not with version 2."`
	Version  *httpVersion    `yaml:"version" jsonschema_description:"1.0, 1.1 (default), or 2 (without TLS, by prior knowledge)."`
	Document *httpObject     `yaml:"document" jsonschema_description:"What is fetched first, alone: its size, or a mapping."`
	Objects  []httpObject    `yaml:"objects" jsonschema_description:"What is fetched then: sizes, or mappings; 10000 at most."`
	Requests *count          `yaml:"requests" jsonschema_description:"A load instead of a page: so many requests in all, the objects over and over, up to 100000000."`
	Duration *duration       `yaml:"duration" jsonschema_description:"A load instead of a page: requests for that long, the objects over and over, up to 24h."`
	Client   *httpClientSpec `yaml:"client" jsonschema_description:"What the client does with connections."`
	Server   *httpServerSpec `yaml:"server" jsonschema_description:"What the server does."`
}

type httpClientSpec struct {
	At              *node     `yaml:"-"`
	Connections     *count    `yaml:"connections" jsonschema_description:"Connections at the same time, 1 to 1024. Default 1."`
	Persistent      *toggle   `yaml:"persistent" jsonschema_description:"Connections stay open for further requests. Default true; with version 1.0 false."`
	Pipeline        *count    `yaml:"pipeline" jsonschema_description:"Requests that a connection may have under way, 1 to 1000; with version 2 streams. Default 1; with version 2 100."`
	Retries         *count    `yaml:"retries" jsonschema_description:"How often a request is sent again whose answer was lost, 0 to 10; a POST never is. Default 1."`
	Timeout         *duration `yaml:"timeout" jsonschema_description:"How long the client waits for a connection, and for the next byte of an answer, up to 1h. Default: without end."`
	ThinkTime       *duration `yaml:"think_time" jsonschema_description:"What the client waits on a connection between an answer and its next request, up to 1h. Default 0."`
	ProxyConnection *toggle   `yaml:"proxy_connection" jsonschema_description:"Ask for a persistent connection by Proxy-Connection, instead of Connection. Only with version 1.0 and via. Default false."`
	HalfClose       *toggle   `yaml:"half_close" jsonschema_description:"End the client's side of a connection with its last request, and read on. Not with via or version 2. Default false."`
	Head            *size     `yaml:"head" jsonschema_description:"Bytes of a request's head, filled up, up to 60000B. Default: as short as it is."`
}

type httpServerSpec struct {
	At          *node        `yaml:"-"`
	Time        *duration    `yaml:"time" jsonschema_description:"What the server waits between a request and its answer, up to 1h. Default 0."`
	Framing     *httpFraming `yaml:"framing" jsonschema_description:"How the end of a body is told: content_length (default), chunked (not in version 1.0), or close_delimited."`
	Chunk       *size        `yaml:"chunk" jsonschema_description:"Bytes of each chunk, 1B to 16MiB. Only with chunked. Default 16KiB."`
	IdleTimeout *duration    `yaml:"idle_timeout" jsonschema_description:"After how long without a request the server ends a connection, up to 1h. Default: never."`
	MaxRequests *count       `yaml:"max_requests" jsonschema_description:"Requests that a connection may carry. Default: any number."`
	Close       *httpClose   `yaml:"close" jsonschema_description:"How the server ends a connection: drain (default: its own side, and it reads on to the peer's end), full (both sides at once), or reset."`
	Head        *size        `yaml:"head" jsonschema_description:"Bytes of an answer's head, filled up, up to 60000B. Default: as short as it is."`
	KeepAlive   *toggle      `yaml:"keep_alive" jsonschema_description:"Whether the server keeps a connection open for a client that asks for it. Default true."`
}

type httpObjectSpec struct {
	At         *node       `yaml:"-"`
	Size       *size       `yaml:"size" jsonschema_description:"Bytes of the answer's body, up to 1TiB. Default 0."`
	Count      *count      `yaml:"count" jsonschema_description:"So many objects like this. Default 1."`
	Method     *httpMethod `yaml:"method" jsonschema_description:"GET (default), HEAD, POST, PUT, or DELETE."`
	Body       *size       `yaml:"body" jsonschema_description:"Bytes of the request's body, up to 1TiB. Only with POST and PUT. Default 0."`
	ServerTime *duration   `yaml:"server_time" jsonschema_description:"What the server waits between the request and its answer, up to 1h. Default: the server's time."`
	Cut        *size       `yaml:"cut" jsonschema_description:"The server carries the request out, sends so many bytes of the answer's body, and ends the connection; 0B: it sends nothing, the answer is lost. Default: the answer is whole."`
	CutTimes   *count      `yaml:"cut_times" jsonschema_description:"How often each such object is cut, from the first time that it is asked for. Only with cut. Default: every time."`
	Early      *toggle     `yaml:"early" jsonschema_description:"The server answers when it has the head, leaves the body unread, and ends the connection. Only with body. Default false."`
}

type httpProxySpec struct {
	At          *node          `yaml:"-"`
	Node        string         `yaml:"node" jsonschema:"required" jsonschema_description:"The node of the proxy."`
	Kind        *httpProxyKind `yaml:"kind" jsonschema_description:"smart (default): knows what is meant for one hop alone. dumb: passes everything on as it came, until the next hop ends the connection."`
	IdleTimeout *duration      `yaml:"idle_timeout" jsonschema_description:"After how long without a request a smart proxy ends the client's connection, up to 1h. Default: never."`
}

// httpObject is an object: its size alone, or a mapping.
type httpObject struct{ spec httpObjectSpec }

func (v *httpObject) read(d *decoder, n *node) {
	if n.kind == mapping {
		d.decode(n, reflect.ValueOf(&v.spec).Elem())
		return
	}
	d.decode(n, reflect.ValueOf(&v.spec.Size).Elem())
}

// httpProxy is a proxy: its node alone, or a mapping.
type httpProxy struct{ spec httpProxySpec }

func (v *httpProxy) read(d *decoder, n *node) {
	if n.kind == mapping {
		d.decode(n, reflect.ValueOf(&v.spec).Elem())
		return
	}
	d.decode(n, reflect.ValueOf(&v.spec.Node).Elem())
}

// The choices of an http flow.
type (
	httpVersion   tcplabv1.HttpVersion
	httpMethod    tcplabv1.HttpMethod
	httpFraming   tcplabv1.HttpFraming
	httpClose     tcplabv1.HttpClose
	httpProxyKind tcplabv1.HttpProxyKind
)

func (v *httpVersion) read(d *decoder, n *node) { *v = httpVersion(d.choice(n, httpVersionChoices())) }

func (v *httpMethod) read(d *decoder, n *node) { *v = httpMethod(d.choice(n, httpMethodChoices())) }

func (v *httpFraming) read(d *decoder, n *node) { *v = httpFraming(d.choice(n, httpFramingChoices())) }
func (v *httpClose) read(d *decoder, n *node)   { *v = httpClose(d.choice(n, httpCloseChoices())) }
func (v *httpProxyKind) read(d *decoder, n *node) {
	*v = httpProxyKind(d.choice(n, httpProxyKindChoices()))
}

func httpVersionChoices() []string {
	return choices(tcplabv1.HttpVersion(0).Descriptor(), "HTTP_VERSION_", "1_0", "1.0", "1_1", "1.1")
}

func httpMethodChoices() []string {
	return choices(tcplabv1.HttpMethod(0).Descriptor(), "HTTP_METHOD_",
		"get", "GET", "head", "HEAD", "post", "POST", "put", "PUT", "delete", "DELETE")
}

func httpFramingChoices() []string {
	return choices(tcplabv1.HttpFraming(0).Descriptor(), "HTTP_FRAMING_")
}

func httpCloseChoices() []string {
	return choices(tcplabv1.HttpClose(0).Descriptor(), "HTTP_CLOSE_")
}

func httpProxyKindChoices() []string {
	return choices(tcplabv1.HttpProxyKind(0).Descriptor(), "HTTP_PROXY_KIND_")
}

func (c *converter) http(s *httpSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".http"
	h := &tcplabv1.Http{Requests: c.positive(s.At.get("requests"), s.Requests), Duration: s.Duration.proto()}
	f.Kind = &tcplabv1.Flow_Http{Http: h}
	c.from(s.At, "%s", path)
	for _, key := range []string{"via", "version", "document", "objects", "requests", "duration", "client", "server"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	if s.Version != nil {
		h.Version = tcplabv1.HttpVersion(*s.Version)
	}
	for i := range s.Via {
		at := s.At.get("via").item(i)
		h.Via = append(h.Via, c.httpProxy(&s.Via[i].spec, at, fmt.Sprintf("%s.via[%d]", path, i)))
	}
	if s.Document != nil {
		h.Document = c.httpObject(&s.Document.spec, path+".document")
	}
	for i := range s.Objects {
		at := fmt.Sprintf("%s.objects[%d]", path, i)
		c.from(s.At.get("objects").item(i), "%s", at)
		h.Objects = append(h.Objects, c.httpObject(&s.Objects[i].spec, at))
	}
	if s.Client != nil {
		h.Client = c.httpClient(s.Client, path+".client")
	}
	if s.Server != nil {
		h.Server = c.httpServer(s.Server, path+".server")
	}
}

func (c *converter) httpProxy(s *httpProxySpec, at *node, path string) *tcplabv1.HttpProxy {
	c.from(at, "%s", path)
	c.from(at, "%s.node", path)
	for _, key := range []string{"node", "kind", "idle_timeout"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	p := &tcplabv1.HttpProxy{Node: s.Node, IdleTimeout: s.IdleTimeout.proto()}
	if s.Kind != nil {
		p.Kind = tcplabv1.HttpProxyKind(*s.Kind)
	}
	return p
}

func (c *converter) httpObject(s *httpObjectSpec, path string) *tcplabv1.HttpObject {
	for _, key := range []string{"size", "count", "method", "body", "server_time", "cut", "cut_times", "early"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	o := &tcplabv1.HttpObject{
		Count:      c.positive(s.At.get("count"), s.Count),
		ServerTime: s.ServerTime.proto(),
		CutTimes:   c.positive(s.At.get("cut_times"), s.CutTimes),
		Early:      s.Early != nil && bool(*s.Early),
	}
	if s.Size != nil {
		o.Size = uint64(*s.Size)
	}
	if s.Method != nil {
		o.Method = tcplabv1.HttpMethod(*s.Method)
	}
	if s.Body != nil {
		o.Body = uint64(*s.Body)
	}
	if s.Cut != nil {
		o.Cut = new(uint64(*s.Cut))
	}
	return o
}

func (c *converter) httpClient(s *httpClientSpec, path string) *tcplabv1.HttpClient {
	for _, key := range []string{"connections", "persistent", "pipeline", "retries", "timeout", "think_time", "proxy_connection", "half_close", "head"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	o := &tcplabv1.HttpClient{
		Connections:     c.positive(s.At.get("connections"), s.Connections),
		Pipeline:        c.positive(s.At.get("pipeline"), s.Pipeline),
		Timeout:         s.Timeout.proto(),
		ThinkTime:       s.ThinkTime.proto(),
		ProxyConnection: s.ProxyConnection != nil && bool(*s.ProxyConnection),
		HalfClose:       s.HalfClose != nil && bool(*s.HalfClose),
		Head:            c.uint32(s.At.get("head"), s.Head),
	}
	if s.Persistent != nil {
		o.Persistent = new(bool(*s.Persistent))
	}
	if s.Retries != nil {
		o.Retries = new(c.uint32(s.At.get("retries"), s.Retries))
	}
	return o
}

func (c *converter) httpServer(s *httpServerSpec, path string) *tcplabv1.HttpServer {
	for _, key := range []string{"time", "framing", "chunk", "idle_timeout", "max_requests", "close", "head"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	c.from(s.At.get("keep_alive"), "%s.no_keep_alive", path)
	o := &tcplabv1.HttpServer{
		Time:        s.Time.proto(),
		Chunk:       c.uint32(s.At.get("chunk"), s.Chunk),
		IdleTimeout: s.IdleTimeout.proto(),
		MaxRequests: c.positive(s.At.get("max_requests"), s.MaxRequests),
		Head:        c.uint32(s.At.get("head"), s.Head),
		NoKeepAlive: s.KeepAlive != nil && !bool(*s.KeepAlive),
	}
	if s.Chunk != nil && *s.Chunk == 0 {
		c.add(s.At.get("chunk").at, "", "a chunk of no bytes is the last")
	}
	if s.Framing != nil {
		o.Framing = tcplabv1.HttpFraming(*s.Framing)
	}
	if s.Close != nil {
		o.Close = tcplabv1.HttpClose(*s.Close)
	}
	return o
}

// positive is a count in 32 bits that is at least 1 where the file has it; 0 where it
// has none.
func (c *converter) positive(n *node, v *count) uint32 {
	if v != nil && *v == 0 {
		c.add(n.at, "leave the key out for its default", "want at least 1")
	}
	return c.uint32(n, v)
}
