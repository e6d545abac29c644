package labs

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type dnsSpec struct {
	At       *node      `yaml:"-"`
	From     string     `yaml:"from" jsonschema:"required" jsonschema_description:"The node that looks names up."`
	To       string     `yaml:"to" jsonschema:"required" jsonschema_description:"The node that is the name server."`
	Records  recordMap  `yaml:"records" jsonschema_description:"Names beside those of the nodes: addresses, or nodes, of each."`
	TTL      *duration  `yaml:"ttl" jsonschema_description:"Time that answers say they may be kept, whole seconds up to 24h. Default 60s."`
	Delay    *duration  `yaml:"delay" jsonschema_description:"What the server waits before each answer, up to 1h. Default 0."`
	Lose     []count    `yaml:"lose" jsonschema_description:"Queries that get no answer, by their number from 1."`
	Silent   *toggle    `yaml:"silent" jsonschema_description:"No query gets an answer. Default false."`
	Lookups  []string   `yaml:"lookups" jsonschema_description:"Names to look up, in turn. Default: none, the flow only serves."`
	Count    *count     `yaml:"count" jsonschema_description:"Lookups in all. Default: each name once, or with the flow's duration as many as it leaves time for."`
	Rate     *frequency `yaml:"rate" jsonschema_description:"Lookups a second at which they are due, whether or not the one before has ended; latency counts from then. Default: each begins when the one before has ended."`
	Type     *dnsType   `yaml:"type" jsonschema_description:"What is asked for: a (IPv4 addresses) or aaaa (IPv6). Default: as the flow's family."`
	Timeout  *duration  `yaml:"timeout" jsonschema_description:"How long an answer may take before the question is sent again, up to 1h. Default 5s."`
	Attempts *count     `yaml:"attempts" jsonschema_description:"How often the question is sent in all, 1 to 100. Default 2."`
	TCP      *toggle    `yaml:"tcp" jsonschema_description:"Ask over TCP at once. Default false: over UDP, and over TCP where the answer was cut short."`
}

// resolveSpec is how a flow finds its server.
type resolveSpec struct {
	At       *node     `yaml:"-"`
	Server   string    `yaml:"at" jsonschema:"required" jsonschema_description:"The node whose name server is asked: that of a dns flow of the same experiment."`
	Name     string    `yaml:"name" jsonschema_description:"The name. Default: that of the flow's server."`
	Type     *dnsType  `yaml:"type" jsonschema_description:"What is asked for: a (IPv4 addresses) or aaaa (IPv6). Default: as the flow's family."`
	Timeout  *duration `yaml:"timeout" jsonschema_description:"How long an answer may take before the question is sent again, up to 1h. Default 5s."`
	Attempts *count    `yaml:"attempts" jsonschema_description:"How often the question is sent in all, 1 to 100. Default 2."`
	TCP      *toggle   `yaml:"tcp" jsonschema_description:"Ask over TCP at once. Default false."`
}

// dnsType is what is asked of a name.
type dnsType tcplabv1.DnsType

func (v *dnsType) read(d *decoder, n *node) { *v = dnsType(d.choice(n, dnsTypeChoices())) }

func (dnsType) JSONSchema() *jsonschema.Schema { return choiceSchema(dnsTypeChoices()) }

func dnsTypeChoices() []string { return choices(tcplabv1.DnsType(0).Descriptor(), "DNS_TYPE_") }

// recordMap holds the addresses of names, in the file's order.
type recordMap []record

type record struct {
	name      string
	at        *node // of the name
	value     *node
	addresses []string
}

func (v *recordMap) read(d *decoder, n *node) {
	if n.kind != mapping {
		d.add(n.at, "such as {www.example: [10.1.0.1, server]}", "want a mapping from names to addresses, not %s", n.describe())
		return
	}
	for _, p := range n.pairs {
		r := record{name: p.key, at: &node{at: p.at, text: p.key}, value: p.value}
		d.decode(p.value, reflect.ValueOf(&r.addresses).Elem())
		*v = append(*v, r)
	}
}

func (recordMap) JSONSchema() *jsonschema.Schema { return addressMap{}.JSONSchema() }

// JSONSchemaExtend lets one name, or one number, stand for a list of one.
func (dnsSpec) JSONSchemaExtend(s *jsonschema.Schema) {
	orOne(s, "lookups", &jsonschema.Schema{Type: "string"})
	orOne(s, "lose", count(0).JSONSchema())
}

func (c *converter) dns(s *dnsSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".dns"
	c.from(s.At, "%s", path)
	for _, key := range []string{"records", "ttl", "delay", "lose", "silent", "lookups", "count", "rate"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	d := &tcplabv1.Dns{
		Ttl: s.TTL.proto(), Delay: s.Delay.proto(), Silent: s.Silent != nil && bool(*s.Silent), Lookups: s.Lookups,
		Count: c.uint32(s.At.get("count"), s.Count), Query: c.query(s.At, s.Type, s.Timeout, s.Attempts, s.TCP, path+".query"),
	}
	if s.Count != nil && *s.Count == 0 {
		c.add(s.At.get("count").at, "leave lookups out, and the flow only serves", "want at least one lookup")
	}
	if s.Rate != nil {
		d.Rate = float64(*s.Rate)
	}
	for i, r := range s.Records {
		d.Records = append(d.Records, &tcplabv1.DnsRecord{Name: r.name, Addresses: r.addresses})
		c.from(r.at, "%s.records[%d]", path, i)
		for j := range r.addresses {
			at := r.value
			if r.value.kind == sequence {
				at = r.value.item(j)
			}
			c.from(at, "%s.records[%d].addresses[%d]", path, i, j)
		}
	}
	for i := range s.Lookups {
		c.from(s.At.get("lookups").item(i), "%s.lookups[%d]", path, i)
	}
	for i, n := range s.Lose {
		d.Lose = append(d.Lose, c.uint32(s.At.get("lose").item(i), &n))
		c.from(s.At.get("lose").item(i), "%s.lose[%d]", path, i)
	}
	f.Kind = &tcplabv1.Flow_Dns{Dns: d}
}

// query is how names are looked up; nil where the file does not say.
func (c *converter) query(at *node, kind *dnsType, timeout *duration, attempts *count, tcp *toggle, path string) *tcplabv1.DnsQuery {
	for _, key := range []string{"type", "timeout", "attempts", "tcp"} {
		c.from(at.get(key), "%s.%s", path, key)
	}
	q := &tcplabv1.DnsQuery{Timeout: timeout.proto(), Attempts: c.uint32(at.get("attempts"), attempts), Tcp: tcp != nil && bool(*tcp)}
	if attempts != nil && *attempts == 0 {
		c.add(at.get("attempts").at, "", "want at least one attempt")
	}
	if kind != nil {
		q.Type = tcplabv1.DnsType(*kind)
	}
	return q
}

func (c *converter) resolve(s *resolveSpec, path string) *tcplabv1.Resolve {
	if s == nil {
		return nil
	}
	c.from(s.At, "%s", path)
	for _, key := range []string{"at", "name"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	return &tcplabv1.Resolve{At: s.Server, Name: s.Name, Query: c.query(s.At, s.Type, s.Timeout, s.Attempts, s.TCP, path+".query")}
}

// Defaults of name servers and lookups: the contract's, and resolv.conf(5)'s.
const (
	defaultTTL            = time.Minute
	defaultLookupTimeout  = 5 * time.Second
	defaultLookupAttempts = 2
)

func completeDNS(f *tcplabv1.Flow) {
	if d := f.GetDns(); d != nil {
		if d.GetTtl() == nil {
			d.Ttl = durationpb.New(defaultTTL)
		}
		if d.Query == nil {
			d.Query = &tcplabv1.DnsQuery{}
		}
		if d.GetCount() == 0 && f.GetDuration() == nil {
			d.Count = uint32(len(d.GetLookups()))
		}
		completeQuery(f, d.Query)
	}
	if r := f.GetResolve(); r != nil {
		if r.Query == nil {
			r.Query = &tcplabv1.DnsQuery{}
		}
		if r.GetName() == "" {
			r.Name = f.GetServer()
		}
		completeQuery(f, r.Query)
	}
}

func completeQuery(f *tcplabv1.Flow, q *tcplabv1.DnsQuery) {
	if q.GetType() == tcplabv1.DnsType_DNS_TYPE_UNSPECIFIED {
		q.Type = tcplabv1.DnsType_DNS_TYPE_A
		if f.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_IPV6 {
			q.Type = tcplabv1.DnsType_DNS_TYPE_AAAA
		}
	}
	if q.GetTimeout() == nil {
		q.Timeout = durationpb.New(defaultLookupTimeout)
	}
	if q.GetAttempts() == 0 {
		q.Attempts = defaultLookupAttempts
	}
}

// domainName is a name of labels as hosts have them, and underscores.
var domainName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)

const maxDomainName = 253

func (v *validation) domainName(field, name string) {
	if len(name) > maxDomainName || !domainName.MatchString(name) {
		v.add(field, "such as www.example: labels of 1 to 63 of a-z, 0-9, hyphen and underscore, without a dot at the end", "%q cannot be a domain name", name)
	}
}

// dns checks a dns flow that is to end within the time.
func (v *validation) dns(field string, f *tcplabv1.Flow, within time.Duration) {
	d := f.GetDns()
	flow := strings.TrimSuffix(field, ".dns")
	if f.GetSocket() != nil {
		v.add(flow+".socket", "leave it out", "lookups go over UDP, and none of these options is for them")
	}
	if f.GetSource() != "" {
		v.add(flow+".source", "leave it out", "lookups are sent from the address of the route to the name server")
	}
	seen := make(map[string]bool)
	for i, r := range d.GetRecords() {
		at := fmt.Sprintf("%s.records[%d]", field, i)
		v.domainName(at, r.GetName())
		if lower := strings.ToLower(r.GetName()); seen[lower] {
			v.add(at, "case does not matter in names", "the name %q is there twice", r.GetName())
		} else {
			seen[lower] = true
		}
		for j, text := range r.GetAddresses() {
			if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
				continue
			}
			if v.nodes[text] == nil {
				names := make([]string, 0, len(v.nodes))
				for _, n := range v.lab.GetNodes() {
					names = append(names, n.GetName())
				}
				hint := didYouMean(text, names)
				if hint == "" {
					hint = "such as 10.1.0.1, or a node's name"
				}
				v.add(fmt.Sprintf("%s.addresses[%d]", at, j), hint, "%q is no address, and no node", text)
			}
		}
	}
	for i, name := range d.GetLookups() {
		v.domainName(fmt.Sprintf("%s.lookups[%d]", field, i), name)
	}
	if ttl := d.GetTtl().AsDuration(); ttl%time.Second != 0 {
		v.add(field+".ttl", "", "%v is not a whole number of seconds", ttl)
	}
	if len(d.GetLookups()) == 0 {
		if d.GetCount() > 0 {
			v.add(field+".count", "add lookups: [name]", "the flow looks nothing up")
		}
		if d.GetRate() > 0 {
			v.add(field+".rate", "add lookups: [name]", "the flow looks nothing up")
		}
	}
	if last := float64(d.GetCount()) - 1; d.GetRate() > 0 && last > 0 && last/d.GetRate() >= within.Seconds() {
		v.add(field+".rate", "raise the experiment's timeout, or the rate", "the last lookup is due after %.6g s, and the experiment ends after %v", last/d.GetRate(), within)
	}
}

// resolve checks how a flow finds its server: by a name server of the same experiment.
func (v *validation) resolve(field string, f *tcplabv1.Flow, e *tcplabv1.Experiment, reach *reach) {
	r := f.GetResolve()
	if f.GetDns() != nil || f.GetExec() != nil {
		v.add(field, "leave it out", "a flow of this kind does not connect by itself")
		return
	}
	if r.GetName() != "" {
		v.domainName(field+".name", r.GetName())
	}
	var servers []string
	for _, other := range e.GetFlows() {
		if other.GetDns() != nil && !slices.Contains(servers, other.GetServer()) {
			servers = append(servers, other.GetServer())
		}
	}
	switch {
	case !v.known(field+".at", r.GetAt()):
	case !slices.Contains(servers, r.GetAt()):
		hint := "add a flow {name: names, dns: {from: " + f.GetClient() + ", to: " + r.GetAt() + "}}"
		if len(servers) > 0 {
			hint = "name servers are " + strings.Join(servers, ", ")
		}
		v.add(field+".at", hint, "no dns flow of this experiment has its name server at %q", r.GetAt())
	case r.GetAt() == f.GetClient():
		v.add(field+".at", "", "the flow's client would ask itself")
	case !reach.reaches(f.GetClient(), r.GetAt()):
		v.add(field+".at", "link them, directly or through routers and switches", "%q cannot be reached from %q", r.GetAt(), f.GetClient())
	}
}
