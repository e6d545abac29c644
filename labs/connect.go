package labs

import (
	"net/netip"
	"slices"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type connectSpec struct {
	At          *node       `yaml:"-"`
	From        string      `yaml:"from" jsonschema:"required" jsonschema_description:"The node that connects."`
	To          string      `yaml:"to" jsonschema:"required" jsonschema_description:"The node that listens."`
	Count       *count      `yaml:"count" jsonschema_description:"Connections to begin, 1 to 10000000. Default: 1, or with the flow's duration as many as it leaves time for."`
	Rate        *frequency  `yaml:"rate" jsonschema_description:"Connections a second at which they are due, whether or not others have ended; latency counts from then. Default: one begins as soon as concurrency permits."`
	Concurrency *count      `yaml:"concurrency" jsonschema_description:"Connections that may be under way at once, 1 to 100000. Default 1, or with a rate 10000."`
	Requests    *count      `yaml:"requests" jsonschema_description:"Exchanges of a request and its reply on each connection, up to 1000000. Default 1 where there is a request, else 0."`
	Request     *size       `yaml:"request" jsonschema_description:"Bytes of each request, 1B to 16MiB. Default: none, the connection is only made and ended."`
	Reply       *size       `yaml:"reply" jsonschema_description:"Bytes of each reply, 1B to 16MiB. With request."`
	Hold        *duration   `yaml:"hold" jsonschema_description:"How long a connection idles before it is ended, up to 24h. Default 0."`
	Close       *closeOrder `yaml:"close" jsonschema_description:"Who ends each connection: client (default) or server, in order; client_abort or server_abort, with a reset."`
	Backlog     *count      `yaml:"backlog" jsonschema_description:"Connections that may wait at the server to be accepted, 1 to 65535; net.core.somaxconn limits it. Default 4096."`
	Timeout     *duration   `yaml:"timeout" jsonschema_description:"How long a handshake may take, up to 24h. Default: the kernel's limit (net.ipv4.tcp_syn_retries)."`
}

type closeOrder tcplabv1.ConnectClose

func (v *closeOrder) read(d *decoder, n *node) { *v = closeOrder(d.choice(n, closeChoices())) }

func closeChoices() []string {
	return choices(tcplabv1.ConnectClose(0).Descriptor(), "CONNECT_CLOSE_")
}

// Defaults of the contract's Connect.
const (
	defaultBacklog      = 4096
	openLoopConcurrency = 10_000
)

func (c *converter) connect(s *connectSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".connect"
	c.from(s.At, "%s", path)
	c.fields(s.At, path, "count", "count", "rate", "rate", "concurrency", "concurrency", "requests", "requests", "request", "request",
		"reply", "reply", "hold", "hold", "close", "close", "backlog", "backlog", "timeout", "connect_timeout")
	k := &tcplabv1.Connect{
		Count:          c.uint32(s.At.get("count"), s.Count),
		Concurrency:    c.uint32(s.At.get("concurrency"), s.Concurrency),
		Requests:       c.uint32(s.At.get("requests"), s.Requests),
		Request:        c.uint32(s.At.get("request"), s.Request),
		Reply:          c.uint32(s.At.get("reply"), s.Reply),
		Hold:           s.Hold.proto(),
		Backlog:        c.uint32(s.At.get("backlog"), s.Backlog),
		ConnectTimeout: s.Timeout.proto(),
	}
	for key, v := range map[string]*count{"count": s.Count, "concurrency": s.Concurrency, "backlog": s.Backlog} {
		if v != nil && *v == 0 {
			c.add(s.At.get(key).at, "", "want at least one")
		}
	}
	if s.Rate != nil {
		k.Rate = float64(*s.Rate)
	}
	if s.Close != nil {
		k.Close = tcplabv1.ConnectClose(*s.Close)
	}
	if s.Requests == nil && k.GetRequest() > 0 {
		k.Requests = 1
	}
	f.Kind = &tcplabv1.Flow_Connect{Connect: k}
}

func completeConnect(f *tcplabv1.Flow, k *tcplabv1.Connect) {
	if k.GetCount() == 0 && f.GetDuration() == nil {
		k.Count = 1
	}
	switch {
	case k.GetConcurrency() > 0:
	case k.GetRate() > 0:
		k.Concurrency = openLoopConcurrency
	default:
		k.Concurrency = 1
	}
	if k.GetClose() == tcplabv1.ConnectClose_CONNECT_CLOSE_UNSPECIFIED {
		k.Close = tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT
	}
	if k.GetBacklog() == 0 {
		k.Backlog = defaultBacklog
	}
}

// connect checks connections that are to be begun, and held, within the time.
func (v *validation) connect(field string, f *tcplabv1.Flow, within time.Duration) {
	k := f.GetConnect()
	asks := k.GetRequests() > 0
	switch {
	case asks && k.GetRequest() == 0:
		v.add(field+".requests", "say how long one is: request: 100B", "there are requests of no bytes")
	case asks && k.GetReply() == 0:
		v.add(field+".request", "such as reply: 100B", "a request has no reply")
	case !asks && k.GetRequest() > 0:
		v.add(field+".request", "leave it out, or ask for requests", "there are no requests of this size")
	case !asks && k.GetReply() > 0:
		v.add(field+".reply", "say what is asked: request: 100B", "there is a reply without a request")
	}
	if !asks && f.GetSocket().GetFastOpen() {
		v.add(field, "give it a request", "fast_open connects with the first write, and nothing is written")
	}
	if !asks && f.GetFault() == tcplabv1.FlowFault_FLOW_FAULT_RESET {
		v.add(field, "give it a request", "the server is to reset what it has read from, and nothing is written")
	}
	if hold := k.GetHold().AsDuration(); hold >= within {
		v.add(field+".hold", "raise the experiment's timeout", "a connection idles for %v, and the experiment ends after %v", hold, within)
	} else if last := float64(k.GetCount()-1) / k.GetRate(); k.GetRate() > 0 && k.GetCount() > 1 && f.GetDuration() == nil && last+hold.Seconds() >= within.Seconds() {
		v.add(field+".rate", "raise the experiment's timeout, or the rate", "the last connection is due after %.6g s, and the experiment ends after %v", last, within)
	}
}

// source checks the address from which a flow connects.
func (v *validation) source(field string, f *tcplabv1.Flow) {
	if f.GetSource() == "" {
		return
	}
	addr, err := netip.ParseAddr(f.GetSource())
	six := f.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6
	switch {
	case err != nil || addr.Zone() != "" || addr.Is4In6():
		v.add(field, "such as 10.0.0.1", "%q is not an IP address", f.GetSource())
		return
	case addr.Is6() != six:
		v.add(field, "set family: ipv6 for one with colons", "%s is not an address of the flow's family", addr)
		return
	}
	var known []string
	assigned := true
	for _, l := range v.lab.GetLinks() {
		for _, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			if end.GetNode() != f.GetClient() {
				continue
			}
			assigned = assigned && len(end.GetAddresses()) > 0
			for _, text := range end.GetAddresses() {
				if prefix, err := netip.ParsePrefix(text); err == nil {
					known = append(known, prefix.Addr().String())
				}
			}
		}
	}
	// An address that is to be assigned cannot be known to the lab's author.
	if !slices.Contains(known, addr.String()) && (assigned || len(known) == 0) {
		v.add(field, "give the node the address on a link: addresses", "%s has no address %s", f.GetClient(), addr)
	}
}
