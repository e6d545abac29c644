package labs

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/labs/expect"
	"github.com/tcplab/tcplab/labs/unit"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Violation is a rule that a Lab breaks.
type Violation struct {
	Field   string // path in the Lab: "links[0].forward.shape.loss"; empty: the whole
	Message string // what is wrong
	Hint    string // what may have been meant, or what to do; may be empty
	Offset  int    // in an expression: the byte that the message is about
}

// String is the violation on one line: "field: message (hint)".
func (v Violation) String() string {
	s := v.Message
	if v.Field != "" {
		s = v.Field + ": " + s
	}
	if v.Hint != "" {
		s += " (" + v.Hint + ")"
	}
	return s
}

// Violations are the rules that a Lab breaks.
type Violations []Violation

// Error prints one violation a line.
func (vs Violations) Error() string {
	lines := make([]string, len(vs))
	for i, v := range vs {
		lines[i] = v.String()
	}
	return strings.Join(lines, "\n")
}

// Validate checks a Lab that came over the wire, or from [File.Expand]: the
// contract's own rules, that names are unique and known, that links and shapes
// do not contradict themselves, that flows can reach their servers, and that
// expectations type-check. What [Assign] fills in may be missing, what
// [Complete] does may not where the contract wants it. The error is [Violations].
func Validate(lab *tcplabv1.Lab) error {
	return validateAll(lab, toRun, make(map[string]bool))
}

// ValidateStanding is [Validate] for a lab that shall stand and not be run: it
// need not have experiments.
func ValidateStanding(lab *tcplabv1.Lab) error {
	return validateAll(lab, toStand, make(map[string]bool))
}

// purpose is what a lab is for.
type purpose bool

const (
	toRun   purpose = false // it needs experiments
	toStand purpose = true  // it may do without
)

// validateAll is Validate, but for expectations that are in checked already.
func validateAll(lab *tcplabv1.Lab, to purpose, checked map[string]bool) error {
	v := &validation{lab: lab, purpose: to, nodes: make(map[string]*tcplabv1.Node)}
	v.names()
	v.links()
	v.addresses()
	v.routes()
	v.experiments()
	v.contract()
	if len(v.found) == 0 { // expressions see the names that were just checked
		v.expectations(checked)
	}
	if len(v.found) == 0 {
		return nil
	}
	return v.found
}

type validation struct {
	lab     *tcplabv1.Lab
	purpose purpose
	nodes   map[string]*tcplabv1.Node // by name
	found   Violations

	sysctls map[string]bool // that a node has; read when one asks
}

func (v *validation) add(field, hint, format string, args ...any) {
	v.found = append(v.found, Violation{Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// contract adds what protovalidate finds, where nothing better was said of the
// same field or of one inside it.
func (v *validation) contract() {
	err := protovalidate.Validate(v.lab)
	var broken *protovalidate.ValidationError
	switch {
	case err == nil:
		return
	case !errors.As(err, &broken):
		v.add("", "", "the rules of the contract cannot be applied: %s", err)
		return
	}
	for _, b := range broken.Violations {
		field := protovalidate.FieldPathString(b.Proto.GetField())
		told := slices.ContainsFunc(v.found, func(known Violation) bool {
			return known.Field == field || strings.HasPrefix(known.Field, field+".") || strings.HasPrefix(known.Field, field+"[")
		})
		if !told {
			message := b.Proto.GetMessage() // "must be …", "value must be …", or a sentence
			if strings.HasPrefix(message, "must ") || strings.HasPrefix(message, "does ") {
				message = "value " + message
			}
			v.add(field, "", "%s", message)
		}
	}
}

var (
	labName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	flowName   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
	congestion = regexp.MustCompile(`^[a-z0-9_-]{1,15}$`)
	sysctlName = regexp.MustCompile(`^net(\.[A-Za-z0-9_-]+)+$`)
)

const (
	maxSysctl    = 4096 // bytes of a sysctl's value
	maxParamText = 4096 // bytes of a parameter's text
)

const (
	nameHint = "use 1 to 40 of a-z, 0-9 and hyphen, starting with a letter"
	flowHint = "use 1 to 40 of a-z, 0-9 and underscore, starting with a letter"
)

func (v *validation) names() {
	if !labName.MatchString(v.lab.GetName()) {
		v.add("name", nameHint, "%q cannot be a lab's name", v.lab.GetName())
	}
	for name, value := range v.lab.GetPoint() {
		v.parameter(name, value)
	}
	if len(v.lab.GetNodes()) == 0 {
		v.add("nodes", "such as [client, server]", "the lab has no nodes")
	}
	for i, n := range v.lab.GetNodes() {
		field, name := fmt.Sprintf("nodes[%d]", i), n.GetName()
		switch {
		case !labName.MatchString(name):
			v.add(field+".name", nameHint, "%q cannot be a node's name", name)
		case name == "localhost":
			v.add(field+".name", "", "a node cannot be called localhost: names resolve in every node, and that one is taken")
		case v.nodes[name] != nil:
			v.add(field+".name", "", "the node %q is there twice", name)
		}
		v.nodes[name] = n
		v.stack(field, n)
		for key, value := range n.GetSysctls() {
			v.sysctl(fmt.Sprintf("%s.sysctls[%q]", field, key), n, key, value)
		}
	}
}

func (v *validation) parameter(name string, value *structpb.Value) {
	field := fmt.Sprintf("point[%q]", name)
	switch {
	case !parameterName.MatchString(name):
		v.add(field, flowHint, "%q cannot be a parameter's name", name)
	case expect.Reserved(name):
		v.add(field, "choose another name", "the parameter %q hides what expressions call %s", name, name)
	}
	switch x := value.GetKind().(type) {
	case *structpb.Value_BoolValue:
	case *structpb.Value_NumberValue:
		if math.IsNaN(x.NumberValue) || math.IsInf(x.NumberValue, 0) {
			v.add(field, "", "the parameter %q is not a finite number", name)
		}
	case *structpb.Value_StringValue:
		if len(x.StringValue) > maxParamText {
			v.add(field, "", "the parameter %q is longer than %d bytes", name, maxParamText)
		}
	default:
		v.add(field, "", "the parameter %q is not a quantity, number, boolean or text", name)
	}
}

// typeOfValue names a parameter's type and unit as expressions see them.
func typeOfValue(value *structpb.Value) string {
	if s, ok := value.GetKind().(*structpb.Value_StringValue); ok {
		if q, err := unit.Parse(s.StringValue); err == nil {
			return "number" + q.Dimension.Symbol()
		}
	}
	return fmt.Sprintf("%T", value.GetKind())
}

func (v *validation) sysctl(field string, n *tcplabv1.Node, key, value string) {
	switch {
	case !strings.HasPrefix(key, "net."):
		v.add(field, "a node has its own network, and shares everything else with its host", "the sysctl %q is not one of net.", key)
	case !sysctlName.MatchString(key):
		v.add(field, "such as net.ipv4.tcp_rmem", "%q is not a sysctl's name", key)
	default:
		v.sysctlNamed(field, n, key)
	}
	switch {
	case strings.TrimSpace(value) == "":
		v.add(field, "", "the sysctl %s has no value", key)
	case strings.ContainsAny(value, "\n\x00") || len(value) > maxSysctl:
		v.add(field, "", "the value of %s is not one line of at most %d bytes", key, maxSysctl)
	}
}

// known checks that a node exists.
func (v *validation) known(field, name string) bool {
	if v.nodes[name] != nil {
		return true
	}
	names := make([]string, 0, len(v.nodes))
	for _, n := range v.lab.GetNodes() {
		names = append(names, n.GetName())
	}
	hint := didYouMean(name, names)
	if hint == "" && len(names) <= 10 {
		hint = "the nodes are " + strings.Join(names, ", ")
	}
	v.add(field, hint, "unknown node %q", name)
	return false
}

func (v *validation) experiments() {
	if len(v.lab.GetExperiments()) == 0 && v.purpose == toRun {
		v.add("experiments", "a run needs at least one flow; without any the lab can stand: tcplab up", "the lab has no experiments")
	}
	reach := newReach(v.lab)
	names, flows := make(map[string]bool), make(map[string]bool)
	for i, e := range v.lab.GetExperiments() {
		field := fmt.Sprintf("experiments[%d]", i)
		switch {
		case e.GetName() == "" && len(v.lab.GetExperiments()) > 1:
			v.add(field, "", "where there are several experiments, each needs a name")
		case names[e.GetName()]:
			v.add(field+".name", "", "the experiment %q is there twice", e.GetName())
		case e.GetName() != "" && !labName.MatchString(e.GetName()):
			v.add(field+".name", nameHint, "%q cannot be an experiment's name", e.GetName())
		}
		names[e.GetName()] = true
		timeout := DefaultTimeout
		if e.GetTimeout() != nil {
			timeout = e.GetTimeout().AsDuration()
		}
		v.capture(field+".capture", e.GetCapture())
		if len(e.GetFlows()) == 0 {
			v.add(field+".flows", "", "the experiment has no flows")
		}
		for j, f := range e.GetFlows() {
			field := fmt.Sprintf("%s.flows[%d]", field, j)
			switch {
			case !flowName.MatchString(f.GetName()):
				v.add(field+".name", flowHint, "%q cannot be a flow's name", f.GetName())
			case flows[f.GetName()]:
				v.add(field+".name", "flow.NAME must mean one flow of the lab", "the flow %q is there twice", f.GetName())
			}
			flows[f.GetName()] = true
			v.flow(field, f, timeout, reach)
			if f.GetResolve() != nil {
				v.resolve(field+".resolve", f, e, reach)
			}
		}
		v.afterward(field, e)
	}
}

func (v *validation) flow(field string, f *tcplabv1.Flow, timeout time.Duration, reach *reach) {
	if v.ends(field, f) {
		v.way(field, f, reach)
	}
	v.order(field, f, timeout)
	within := timeout - f.GetStart().AsDuration()
	if f.GetDuration() != nil { // it ends by itself, whatever is still to be done
		within = math.MaxInt64
	}
	if b := f.GetBulk(); b != nil {
		if b.GetSteady() != nil {
			within = math.MaxInt64
		}
		v.bulk(field+".bulk", b, within)
	}
	if t := f.GetTransaction(); t != nil {
		v.transaction(field+".transaction", t, within)
	}
	if b := f.GetBurst(); b != nil {
		v.burst(field+".burst", b, within)
	}
	if f.GetConnect() != nil {
		v.connect(field+".connect", f, timeout-f.GetStart().AsDuration())
	}
	if h := f.GetHttp(); h != nil {
		v.http(field, f, h, timeout-f.GetStart().AsDuration())
	}
	v.source(field+".source", f)
	if f.GetDns() != nil {
		v.dns(field+".dns", f, within)
	}
	if f.GetExec() != nil {
		v.exec(field+".exec", f, timeout)
	}
	v.socket(field+".socket", f)
}

// ends checks the nodes that take part in a flow.
func (v *validation) ends(field string, f *tcplabv1.Flow) bool {
	ok := true
	ends := [][2]string{{"client", f.GetClient()}, {"server", f.GetServer()}}
	for i, p := range f.GetHttp().GetVia() {
		ends = append(ends, [2]string{fmt.Sprintf("http.via[%d].node", i), p.GetNode()})
	}
	for _, end := range ends {
		switch {
		case !v.known(field+"."+end[0], end[1]):
			ok = false
		case v.nodes[end[1]].GetKind() == tcplabv1.NodeKind_NODE_KIND_SWITCH:
			v.add(field+"."+end[0], "", "%q is a switch: it has no address, so no flow starts or ends there", end[1])
			ok = false
		case !isOwn(v.nodes[end[1]]):
			v.foreignEnd(field+"."+end[0], v.nodes[end[1]])
			ok = false
		}
	}
	return ok
}

// way checks that each of a flow's nodes can reach the next.
func (v *validation) way(field string, f *tcplabv1.Flow, reach *reach) {
	nodes := nodesOf(f)
	for i, to := range nodes[1:] {
		from, at := nodes[i], field+".server"
		if i+2 < len(nodes) {
			at = fmt.Sprintf("%s.http.via[%d].node", field, i)
		}
		switch {
		case len(nodes) == 2 && from == to:
			v.add(at, "", "the flow goes from %q to itself", from)
		case slices.Contains(nodes[:i+1], to):
			v.add(at, "", "the flow comes to %q twice", to)
		case !reach.reaches(from, to):
			v.add(at, "link them, directly or through routers and switches; an endpoint forwards nothing", "%q cannot be reached from %q", to, from)
		}
	}
}

// nodesOf are the nodes that take part in a flow, from the client to the server.
func nodesOf(f *tcplabv1.Flow) []string {
	nodes := []string{f.GetClient()}
	for _, p := range f.GetHttp().GetVia() {
		nodes = append(nodes, p.GetNode())
	}
	return append(nodes, f.GetServer())
}

// transaction checks transactions that, at a rate, are to end within the time.
func (v *validation) transaction(field string, t *tcplabv1.Transaction, within time.Duration) {
	if count, connections := max(1, t.GetCount()), t.GetConnections(); count < connections {
		v.add(field+".connections", "raise count", "%d transactions are less than one for each of %d connections", count, connections)
	}
	v.openLoop(field, t, within)
}

// openLoop checks transactions at a rate that are to end within the time.
func (v *validation) openLoop(field string, t *tcplabv1.Transaction, within time.Duration) {
	if t.GetRate() == 0 {
		if len(t.GetRateSchedule()) > 0 {
			v.add(field+".rate_schedule", "give it a rate", "without a rate each request begins when the one before has ended")
		}
		return
	}
	if t.GetThinkTime().AsDuration() > 0 {
		v.add(field+".think_time", "leave one of them out", "with a rate the client does not think: the rate says when requests are due")
	}
	p := v.pace(field+".rate_schedule", t.GetRate(), t.GetRateSchedule())
	if p == nil {
		return
	}
	// The first is due at once.
	if last := p.Due(float64(max(1, t.GetCount()) - 1)); last >= within {
		v.add(field+".rate", "raise the experiment's timeout, or the rate", "the last request is due after %.6g s, and the experiment ends after %v", last.Seconds(), within)
	}
}

func (v *validation) expectations(checked map[string]bool) {
	names := make(map[string]bool)
	for i, e := range v.lab.GetExpectations() {
		field := fmt.Sprintf("expectations[%d]", i)
		if names[e.GetName()] {
			v.add(field+".name", "", "the expectation %q is there twice", e.GetName())
		}
		names[e.GetName()] = true
		before := len(v.found)
		v.expectation(field, e)
		key := expectationTypes(v.lab, e)
		if len(v.found) > before || checked[key] {
			continue
		}
		checked[key] = true
		_, err := expect.Compile(v.lab, e)
		var wrong *expect.Error
		switch {
		case err == nil:
		case errors.As(err, &wrong):
			v.found = append(v.found, Violation{
				Field: field + "." + strings.ReplaceAll(wrong.Field, "within.slack", "within_slack"), Message: wrong.Message, Offset: wrong.Offset,
			})
		default:
			v.add(field, "", "%s", err)
		}
	}
}

// expectation checks that the parts belong together.
func (v *validation) expectation(field string, e *tcplabv1.Expectation) {
	compares := e.GetMeasure() != "" || e.GetPredict() != ""
	permits := e.GetWithinRatio() > 0 || e.GetWithinSlack() != ""
	switch {
	case !compares && e.GetThat() == "":
		v.add(field, "give it measure and predict, or that", "the expectation asks nothing")
	case compares && e.GetThat() != "":
		v.add(field+".that", "make two expectations of it", "an expectation has measure and predict, or that, not both")
	case compares && e.GetMeasure() == "":
		v.add(field, "", "the expectation predicts, but measures nothing")
	case compares && e.GetPredict() == "":
		v.add(field, "", "the expectation measures, but predicts nothing")
	case compares && !permits:
		v.add(field, "such as within: {ratio: 3%, slack: 2ms}", "how far measured may be from predicted is missing")
	case !compares && permits:
		v.add(field+".within_ratio", "", "a condition holds or not: within goes with measure and predict")
	case !compares && e.GetRival() != "":
		v.add(field+".rival", "", "a rival prediction goes with measure and predict")
	}
}
