package labs

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// converter turns the typed tree of one point into the contract's Lab, says
// nothing about what is left out (see [Complete]), and notes where in the file
// each field came from.
type converter struct {
	*report
	places map[string]*node // by field path, as in a [Violation]
	files  *attachments
}

func (c *converter) from(n *node, format string, args ...any) {
	if n != nil {
		c.places[fmt.Sprintf(format, args...)] = n
	}
}

func (c *converter) lab(s *labSpec, p *point) *tcplabv1.Lab {
	c.from(s.At, "")
	c.from(s.At.get("name"), "name")
	c.from(s.At.get("title"), "title")
	c.from(s.At.get("params"), "point")
	c.from(s.At.get("topology"), "nodes")
	c.from(s.At.get("nodes"), "nodes")
	c.from(s.At.get("links"), "links")
	c.from(s.At.get("experiments"), "experiments")
	c.from(s.At.get("repeat"), "repeat")
	c.from(s.At.get("expect"), "expectations")
	lab := &tcplabv1.Lab{Name: s.Name, Title: s.Title, Point: p.proto(), Repeat: c.uint32(s.At.get("repeat"), s.Repeat)}
	if s.Repeat != nil && *s.Repeat == 0 {
		c.add(s.At.get("repeat").at, "", "the lab is run at least once")
	}
	for i := range s.Nodes {
		lab.Nodes = append(lab.Nodes, c.node(&s.Nodes[i], fmt.Sprintf("nodes[%d]", i)))
	}
	for i := range s.Links {
		lab.Links = append(lab.Links, c.link(&s.Links[i], fmt.Sprintf("links[%d]", i)))
	}
	for i := range s.Experiments {
		lab.Experiments = append(lab.Experiments, c.experiment(&s.Experiments[i], fmt.Sprintf("experiments[%d]", i)))
	}
	for i := range s.Expect {
		lab.Expectations = append(lab.Expectations, c.expectation(&s.Expect[i], fmt.Sprintf("expectations[%d]", i)))
	}
	return lab
}

func (c *converter) node(s *namedNode, path string) *tcplabv1.Node {
	c.from(s.at, "%s", path)
	c.from(s.spec.At.get("on"), "%s.host", path)
	c.from(s.spec.At.get("kind"), "%s.kind", path)
	c.from(s.spec.At.get("stack"), "%s.stack", path)
	n := &tcplabv1.Node{Name: s.name, Host: s.spec.On}
	if s.spec.Stack != nil {
		n.Stack = tcplabv1.NodeStack(*s.spec.Stack)
	}
	if s.spec.Kind != nil {
		n.Kind = tcplabv1.NodeKind(*s.spec.Kind)
	}
	n.Routes = c.routes(s.spec.Routes, path)
	for _, p := range s.spec.Sysctls {
		if n.Sysctls == nil {
			n.Sysctls = make(map[string]string)
		}
		n.Sysctls[p.key] = p.value
		c.from(&node{at: p.keyAt}, "%s.sysctls[%q]", path, p.key)
	}
	return n
}

func (v *duration) proto() *durationpb.Duration {
	if v == nil {
		return nil
	}
	return durationpb.New(time.Duration(*v))
}

func (c *converter) experiment(s *experimentSpec, path string) *tcplabv1.Experiment {
	c.from(s.At, "%s", path)
	c.from(s.At.get("name"), "%s.name", path)
	c.from(s.At.get("sample"), "%s.sample_interval", path)
	c.from(s.At.get("timeout"), "%s.timeout", path)
	c.from(s.At.get("flows"), "%s.flows", path)
	e := &tcplabv1.Experiment{
		Name: s.Name, SampleInterval: s.Sample.proto(), Timeout: s.Timeout.proto(),
		Capture: c.capture(s.Capture, path+".capture"),
	}
	if s.Observe != nil {
		e.Observe = c.observe(s.Observe, path+".observe")
	}
	for i := range s.Flows {
		e.Flows = append(e.Flows, c.flow(&s.Flows[i], fmt.Sprintf("%s.flows[%d]", path, i)))
	}
	return e
}

func (c *converter) flow(s *flowSpec, path string) *tcplabv1.Flow {
	c.from(s.At, "%s", path)
	c.from(s.At.get("name"), "%s.name", path)
	c.fields(s.At, path, "family", "family", "source", "source")
	f := &tcplabv1.Flow{Name: s.Name, Source: s.Source}
	c.order(&s.orderSpec, s.At, f, path)
	if s.Family != nil {
		f.Family = tcplabv1.IpFamily(*s.Family)
	}
	kinds := 0
	for _, key := range flowKinds() {
		if s.At.get(key) != nil {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		c.add(s.At.at, "make several flows of it", "a flow is one of %s, not several", strings.Join(flowKinds(), ", "))
	case s.Bulk != nil:
		c.bulk(s.Bulk, f, path)
	case s.Transaction != nil:
		c.transaction(s.Transaction, f, path)
	case s.Burst != nil:
		c.burst(s.Burst, f, path)
	case s.Connect != nil:
		c.connect(s.Connect, f, path)
	case s.DNS != nil:
		c.dns(s.DNS, f, path)
	case s.Exec != nil:
		c.exec(s.Exec, f, path)
	case s.HTTP != nil:
		c.http(s.HTTP, f, path)
	default:
		c.add(s.At.at, "give it one of "+strings.Join(flowKinds(), ", "), "the flow does nothing")
	}
	f.Resolve = c.resolve(s.Resolve, path+".resolve")
	if s.Socket != nil {
		f.Socket = c.socket(s.Socket, path+".socket")
	}
	return f
}

// flowKinds are the keys of what a flow does.
func flowKinds() []string {
	return []string{"bulk", "transaction", "burst", "connect", "http", "dns", "exec"}
}

func (c *converter) ends(n *node, path string) {
	c.from(n.get("from"), "%s.client", path)
	c.from(n.get("to"), "%s.server", path)
}

func (c *converter) transaction(s *transactionSpec, f *tcplabv1.Flow, path string) {
	c.ends(s.At, path)
	f.Client, f.Server = s.From, s.To
	path += ".transaction"
	t := &tcplabv1.Transaction{
		Count:       c.uint32(s.At.get("count"), s.Count),
		Connections: c.uint32(s.At.get("connections"), s.Connections),
		ThinkTime:   s.ThinkTime.proto(),
		ServerTime:  s.ServerTime.proto(),
	}
	if s.Count != nil && *s.Count == 0 {
		c.add(s.At.get("count").at, "", "want at least one transaction")
	}
	if s.Connections != nil && *s.Connections == 0 {
		c.add(s.At.get("connections").at, "", "want at least one connection")
	}
	if s.Rate != nil {
		t.Rate = float64(*s.Rate)
	}
	for i, step := range s.Schedule {
		t.RateSchedule = append(t.RateSchedule, c.step(step.At, step.Time, (*float64)(step.Rate), fmt.Sprintf("%s.rate_schedule[%d]", path, i)))
	}
	c.from(s.At.get("schedule"), "%s.rate_schedule", path)
	if s.Reply != nil {
		t.Reply = uint64(*s.Reply)
	}
	writes := s.At.get("writes")
	for i, w := range s.Writes {
		t.Writes = append(t.Writes, c.uint32(writes.item(i), &w))
		c.from(writes.item(i), "%s.writes[%d]", path, i)
	}
	f.Kind = &tcplabv1.Flow_Transaction{Transaction: t}
	c.from(s.At, "%s", path)
	c.from(writes, "%s.writes", path)
	for _, key := range []string{"reply", "count", "connections", "think_time", "server_time", "rate"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
}

func (c *converter) expectation(s *expectSpec, path string) *tcplabv1.Expectation {
	c.from(s.At, "%s", path)
	for _, key := range []string{"name", "where", "measure", "predict", "that", "over", "rival", "source"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	e := &tcplabv1.Expectation{
		Name: s.Name, Where: s.Where, Measure: s.Measure, Predict: string(s.Predict),
		That: s.That, Rival: string(s.Rival), Source: s.Source,
	}
	if s.Over != nil {
		e.Over = tcplabv1.Over(*s.Over)
	}
	if w := s.Within; w != nil {
		c.from(w.At, "%s.within_ratio", path)
		c.from(w.At.get("ratio"), "%s.within_ratio", path)
		c.from(w.At.get("slack"), "%s.within_slack", path)
		if w.Ratio != nil {
			e.WithinRatio = float64(*w.Ratio)
		}
		e.WithinSlack = string(w.Slack)
	}
	return e
}

// uint32 is a whole number that the contract keeps in 32 bits; 0 where the
// file has none.
func (c *converter) uint32(n *node, v interface{ bits() (uint64, bool) }) uint32 {
	value, ok := v.bits()
	if ok && value > math.MaxUint32 {
		c.add(n.at, "", "%s is too large", n.text)
		return 0
	}
	return uint32(value)
}

func (v *count) bits() (uint64, bool) {
	if v == nil {
		return 0, false
	}
	return uint64(*v), true
}

func (v *size) bits() (uint64, bool) {
	if v == nil {
		return 0, false
	}
	return uint64(*v), true
}
