package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	loopback  = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func newNode(t testing.TB) *netns.Handle {
	t.Helper()
	need.NetNS(t)
	node, err := netns.New("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return node
}

// zoneOf knows a name with both kinds of addresses, one with many, and one with none.
func zoneOf() Zone {
	many := make([]netip.Addr, 60)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})
	}
	return Zone{TTL: time.Minute, Names: map[string][]netip.Addr{
		"www.Example": {netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3"), netip.MustParseAddr("10.1.2.4")},
		"many":        many, "empty": nil,
	}}
}

func serving(t testing.TB, node *netns.Handle, zone Zone) *Server {
	t.Helper()
	s, err := Serve(t.Context(), node, zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return s
}

func TestLookup(t *testing.T) {
	node := newNode(t)
	serving(t, node, zoneOf())
	for name, c := range map[string]struct {
		query     Query
		addresses string
		code      string
		truncated bool
	}{
		"a":                  {Query{Name: "www.example"}, "[10.1.2.3 10.1.2.4]", "NOERROR", false},
		"aaaa":               {Query{Name: "WWW.EXAMPLE.", IPv6: true}, "[fd00::3]", "NOERROR", false},
		"over IPv6":          {Query{Name: "www.example", Server: loopback6}, "[10.1.2.3 10.1.2.4]", "NOERROR", false},
		"over TCP":           {Query{Name: "www.example", TCP: true}, "[10.1.2.3 10.1.2.4]", "NOERROR", false},
		"over TCP and IPv6":  {Query{Name: "www.example", TCP: true, Server: loopback6}, "[10.1.2.3 10.1.2.4]", "NOERROR", false},
		"too long for a UDP": {Query{Name: "many"}, fmt.Sprint(zoneOf().Names["many"]), "NOERROR", true},
		"no such name":       {Query{Name: "nobody"}, "[]", "NXDOMAIN", false},
		"no such address":    {Query{Name: "many", IPv6: true}, "[]", "NOERROR", false},
		"no address":         {Query{Name: "empty"}, "[]", "NOERROR", false},
		"no name":            {Query{Name: ""}, "[]", "", false},
		"too long a name":    {Query{Name: strings.Repeat("a", 64)}, "[]", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c.query.Node = node
			if !c.query.Server.IsValid() {
				c.query.Server = loopback
			}
			answer, err := Lookup(t.Context(), c.query)
			if got := fmt.Sprint(answer.Addresses); got != c.addresses || answer.Code != c.code || answer.Truncated != c.truncated {
				t.Errorf("%v %s, truncated %v; want %s %s", got, answer.Code, answer.Truncated, c.addresses, c.code)
			}
			var wrong *net.DNSError
			if (err == nil) != (c.addresses != "[]") || err != nil && (!errors.As(err, &wrong) || !wrong.IsNotFound) {
				t.Errorf("%v", err)
			}
			if c.code != "" && (answer.Took <= 0 || answer.Sent != 1 && !c.query.TCP) {
				t.Errorf("sent %d times, in %v", answer.Sent, answer.Took)
			}
		})
	}
}

// A question without an answer is sent again, and its time says so.
func TestRetransmission(t *testing.T) {
	node := newNode(t)
	zone := zoneOf()
	zone.Lose = []uint32{1, 2}
	s := serving(t, node, zone)
	const timeout = 100 * time.Millisecond
	answer, err := Lookup(t.Context(), Query{Node: node, Server: loopback, Name: "www.example", Timeout: timeout, Attempts: 3})
	if err != nil || answer.Sent != 3 || answer.Took < 2*timeout {
		t.Errorf("sent %d times in %v: %v", answer.Sent, answer.Took, err)
	}
	if queries, lost := s.Counts(); queries != 3 || lost != 2 {
		t.Errorf("the server has read %d and lost %d", queries, lost)
	}
}

func TestDelay(t *testing.T) {
	node := newNode(t)
	zone := zoneOf()
	zone.Delay = 50 * time.Millisecond
	serving(t, node, zone)
	answer, err := Lookup(t.Context(), Query{Node: node, Server: loopback, Name: "www.example"})
	if err != nil || answer.Took < zone.Delay {
		t.Errorf("in %v: %v", answer.Took, err)
	}
}

// A silent server, one that is not there, and the end of a context end a lookup in its time.
func TestLookupFails(t *testing.T) {
	node := newNode(t)
	zone := zoneOf()
	zone.Silent = true
	serving(t, node, zone)
	for _, tcp := range []bool{false, true} {
		_, err := Lookup(t.Context(), Query{Node: node, Server: loopback, Name: "www.example", Timeout: 30 * time.Millisecond, Attempts: 2, TCP: tcp})
		var wrong *net.DNSError
		if !errors.As(err, &wrong) || !wrong.IsTimeout || flow.OutcomeOf(err) != tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT {
			t.Errorf("silent: %v", err)
		}
		_, err = Lookup(t.Context(), Query{Node: node, Server: loopback, Name: "www.example", TCP: tcp, port: 54})
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		_, err = Lookup(t.Context(), Query{Node: node, Server: netip.MustParseAddr("10.9.9.9"), Name: "www.example", TCP: tcp})
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("no way: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begin := time.Now()
		_, err = Lookup(ctx, Query{Node: node, Server: loopback, Name: "www.example", Timeout: time.Minute, TCP: tcp})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 20*time.Second {
			t.Errorf("stopped: %v after %v", err, time.Since(begin))
		}
	}
}

// A port that is taken is told, and nothing is left open.
func TestPortTaken(t *testing.T) {
	node := newNode(t)
	s := serving(t, node, zoneOf())
	if _, err := Serve(t.Context(), node, zoneOf()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err == nil {
		serving(t, node, zoneOf())
	}
}

func TestFlow(t *testing.T) {
	for name, c := range map[string]struct {
		dns     *tcplabv1.Dns
		outcome tcplabv1.FlowOutcome
		want    *tcplabv1.DnsResult
		answers uint32
		text    string
	}{
		"in turn": {
			dns:  &tcplabv1.Dns{Lookups: []string{"server", "www.example"}, Count: 5, Records: []*tcplabv1.DnsRecord{{Name: "www.example", Addresses: []string{"server", "10.1.1.1"}}}},
			want: &tcplabv1.DnsResult{Lookups: 5, Found: 5, Queries: 5}, answers: 5,
		},
		"not found": {
			dns: &tcplabv1.Dns{Lookups: []string{"server", "nobody"}, Count: 4}, outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND,
			want: &tcplabv1.DnsResult{Lookups: 4, Found: 2, NotFound: 2, Queries: 4}, answers: 4, text: "lookup 2: lookup nobody on 127.0.0.1: there is no such name",
		},
		"silent": {
			dns:     &tcplabv1.Dns{Lookups: []string{"server"}, Silent: true, Query: &tcplabv1.DnsQuery{Timeout: durationpb.New(20 * time.Millisecond), Attempts: 3}},
			outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT, want: &tcplabv1.DnsResult{Lookups: 1, TimedOut: 1, Retransmissions: 2, Queries: 3, Lost: 3}, text: "no answer within",
		},
		"lost": {
			dns:  &tcplabv1.Dns{Lookups: []string{"server"}, Count: 2, Lose: []uint32{2}, Query: &tcplabv1.DnsQuery{Timeout: durationpb.New(50 * time.Millisecond)}},
			want: &tcplabv1.DnsResult{Lookups: 2, Found: 2, Retransmissions: 1, Queries: 3, Lost: 1}, answers: 2,
		},
		"serves": {dns: &tcplabv1.Dns{}, want: &tcplabv1.DnsResult{}},
		"at a rate": {
			dns:  &tcplabv1.Dns{Lookups: []string{"server"}, Count: 3, Rate: 50},
			want: &tcplabv1.DnsResult{Lookups: 3, Found: 3, Queries: 3}, answers: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			node := newNode(t)
			f, err := New(&tcplabv1.Flow{Name: "names", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Dns{Dns: c.dns}}, Config{
				Client: node, Server: node, Address: loopback, Nodes: map[string][]netip.Addr{"server": {loopback, loopback6}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			r := f.Run(t.Context())
			took := time.Since(begin)
			if err := errors.Join(f.Close(), f.Close()); err != nil {
				t.Error(err)
			}
			if c.outcome == 0 {
				c.outcome = tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
			}
			got := r.GetDns()
			got.Rcodes = nil
			if r.GetOutcome() != c.outcome || !strings.Contains(r.GetError(), c.text) || got.String() != c.want.String() || r.GetLatency().GetCount() != c.answers {
				t.Errorf("%s %q: %v and %d answers; want %s %q: %v", r.GetOutcome(), r.GetError(), got, r.GetLatency().GetCount(), c.outcome, c.text, c.want)
			}
			if c.dns.GetRate() > 0 && (took < 40*time.Millisecond || r.GetUncorrected().GetCount() != 3) {
				t.Errorf("at a rate it took %v; uncorrected %v", took, r.GetUncorrected())
			}
		})
	}
}

// other is a flow that would connect.
type other struct{ ran bool }

func (o *other) Listen(context.Context) error { return nil }
func (o *other) Close() error                 { return nil }
func (o *other) Run(context.Context) *tcplabv1.FlowResult {
	o.ran = true
	return &tcplabv1.FlowResult{Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED}
}

// A flow that looks its server up begins after that, and not at all where the name does not
// lead there.
func TestResolving(t *testing.T) {
	node := newNode(t)
	serving(t, node, Zone{Names: map[string][]netip.Addr{"server": {loopback6, netip.MustParseAddr("10.1.1.1"), loopback}, "elsewhere": {netip.MustParseAddr("10.1.1.1")}}})
	for name, want := range map[string]tcplabv1.FlowOutcome{
		"":          tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED, // the server's own
		"server":    tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED,
		"elsewhere": tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND,
		"nobody":    tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND,
	} {
		o := &other{}
		spec := &tcplabv1.Flow{Name: "get", Server: "server", Resolve: &tcplabv1.Resolve{At: "node", Name: name}, Kind: &tcplabv1.Flow_Bulk{}}
		r := NewResolving(o, spec, Query{Node: node, Server: loopback}, loopback).Run(t.Context())
		if r.GetOutcome() != want || o.ran != (want == tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED) || r.GetResolve().GetCount() != 1 || r.GetResolve().GetMax().AsDuration() <= 0 {
			t.Errorf("%q: %s (%s), ran %v, %v", name, r.GetOutcome(), r.GetError(), o.ran, r.GetResolve())
		}
	}
}

// Close ends a lookup that waits.
func TestClose(t *testing.T) {
	node := newNode(t)
	f, err := New(&tcplabv1.Flow{Name: "names", Kind: &tcplabv1.Flow_Dns{Dns: &tcplabv1.Dns{
		Lookups: []string{"x"}, Delay: durationpb.New(time.Hour), Query: &tcplabv1.DnsQuery{Timeout: durationpb.New(time.Hour)},
	}}}, Config{Client: node, Server: node, Address: loopback})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan *tcplabv1.FlowResult, 1)
	go func() { ended <- f.Run(t.Context()) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for queries := uint64(0); queries == 0; queries, _ = f.server.Counts() {
		<-tick.C
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if r := <-ended; r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED {
		t.Errorf("%s: %s", r.GetOutcome(), r.GetError())
	}
}

// newLookupOf is a lookup that asks nobody.
func newLookupOf(name string) *lookup {
	l := &lookup{Query: Query{Name: name, Server: loopback}, question: new(mdns.Msg).SetQuestion(mdns.Fqdn(name), mdns.TypeA)}
	l.question.Id = 7
	l.packed, _ = l.question.Pack()
	return l
}

// Whatever comes as an answer is read or passed over.
func FuzzAnswer(f *testing.F) {
	l := newLookupOf("www.example")
	s := &Server{names: map[string][]netip.Addr{"www.example.": {loopback}}}
	packed, err := s.answer(l.question).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(l.packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLookupOf("www.example")
		if len(b) > 1 {
			l.question.Id = uint16(b[0])<<8 | uint16(b[1])
		}
		if m, ok := l.parse(b); ok {
			err := l.take(m)
			if (err == nil) != (len(l.answer.Addresses) > 0) && m.Rcode == 0 {
				t.Errorf("%v: %v", l.answer, err)
			}
		}
	})
}
