package expect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names of the object types of exec flows and their metrics.
const (
	programType  = "Program"                  // of a metric's client and server
	execPrefix   = "tcplab.v1.FlowResult of " // and the flow: a FlowResult with metrics
	metricPrefix = "metrics of "              // and the flow: one field a metric
)

// Metric is a number to be found in what programs printed (Exec.metrics), checked and ready.
// Its expression has the numbers, operators and functions of expectations, and knows
//
//	json              the JSON that the client's program, or the only one, printed
//	client, server    .json, .status, .elapsed (s) of each program
//	size(list)        the length of a list of it; json.intervals[0].sum
type Metric struct {
	source  string
	program cel.Program
}

// Printed is what became of one program, for its metrics.
type Printed struct {
	JSON    any // as encoding/json decodes it into an any; nil where it is none
	NoJSON  error
	Status  int
	Elapsed time.Duration
}

// CompileMetric checks a metric's expression. A wrong one is an [*Error].
func CompileMetric(source string) (*Metric, error) {
	env, err := newMetricEnvironment()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.cel.Parse(source)
	if issues.Err() != nil {
		return nil, named("metrics", syntaxError(source, issues))
	}
	tree := parsed.NativeRep()
	if err := foreign(source, tree); err != nil {
		err.Message = "lists and maps cannot be made in a metric"
		return nil, named("metrics", err)
	}
	normalize(tree)
	checked, issues := env.cel.Check(parsed)
	if issues.Err() != nil {
		return nil, named("metrics", env.explain(source, tree, issues))
	}
	switch got := checked.OutputType(); got.Kind() {
	case types.DynKind, types.DoubleKind:
	default:
		return nil, &Error{Field: "metrics", Message: fmt.Sprintf("%s is needed, this is %s", describe(types.DoubleType), describe(got))}
	}
	program, err := env.cel.Program(checked)
	if err != nil {
		return nil, &Error{Field: "metrics", Message: err.Error()}
	}
	return &Metric{source: source, program: program}, nil
}

func newMetricEnvironment() (*environment, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("types of metrics: %w", err)
	}
	program := types.NewObjectType(programType)
	env := &environment{
		schema:    newSchema(&tcplabv1.Lab{}, registry),
		variables: map[string]*types.Type{"json": types.DynType, "client": program, "server": program},
		functions: map[string][]function{},
		reach:     printed,
	}
	options := []cel.EnvOption{
		cel.CustomTypeProvider(env.schema),
		cel.CustomTypeAdapter(adapter{registry}),
		cel.ParserExpressionSizeLimit(maxLength),
		cel.ParserRecursionLimit(maxDepth),
		cel.Function("size", cel.Overload("size_list", []*types.Type{types.NewListType(types.DynType)}, types.DoubleType,
			cel.UnaryBinding(func(list ref.Val) ref.Val {
				if list.Type() != types.ListType {
					return types.NewErr("size(list): this is no list")
				}
				return types.Double(length(list))
			}))),
	}
	options = append(options, operatorOptions()...)
	for _, f := range mathFunctions() {
		options = append(options, f.option())
		env.functions[f.name] = append(env.functions[f.name], f)
	}
	for name, typ := range env.variables {
		options = append(options, cel.Variable(name, typ))
	}
	if env.cel, err = cel.NewCustomEnv(options...); err != nil {
		return nil, fmt.Errorf("environment of metrics: %w", err)
	}
	return env, nil
}

// Find evaluates the metric. client and server are nil where the flow has no such program.
func (m *Metric) Find(client, server *Printed) (float64, error) {
	first := client
	if first == nil {
		first = server
	}
	variables := map[string]any{
		"client": printedObject("client", client),
		"server": printedObject("server", server),
	}
	if first != nil && first.NoJSON == nil {
		variables["json"] = first.JSON
	}
	v, _, err := m.program.Eval(variables)
	if err != nil && first != nil && first.NoJSON != nil && strings.Contains(err.Error(), "no such attribute") {
		err = first.NoJSON
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", m.source, err)
	}
	switch v := v.(type) {
	case types.Double:
		if _, err := number(float64(v), "it"); err != nil {
			return 0, fmt.Errorf("%s: %w", m.source, err)
		}
		return float64(v), nil
	case types.Null:
		return 0, fmt.Errorf("%s: it is null", m.source)
	}
	return 0, fmt.Errorf("%s: %s is needed, this is %s", m.source, describe(types.DoubleType), v.Type().TypeName())
}

// printedObject is `client` or `server` of a metric.
func printedObject(end string, p *Printed) *object {
	return &object{typ: types.NewObjectType(programType), get: func(name string) (any, error) {
		switch {
		case p == nil:
			return nil, fmt.Errorf("the flow has no program at its %s", end)
		case name == "status":
			return types.Double(p.Status), nil
		case name == "elapsed":
			return types.Double(p.Elapsed.Seconds()), nil
		case p.NoJSON != nil:
			return nil, p.NoJSON
		}
		v := types.DefaultTypeAdapter.NativeToValue(p.JSON)
		if types.IsError(v) {
			return nil, errors.New("its JSON is of no known kind")
		}
		return v, nil
	}}
}

// programField is a field of what a metric knows of a program.
func programField(name string) (field, bool) {
	switch name {
	case "json":
		return field{typ: types.DynType}, true
	case "status":
		return field{typ: types.DoubleType}, true
	case "elapsed":
		return field{typ: types.DoubleType, unit: "s"}, true
	}
	return field{}, false
}

// metricsOf names the metrics of the lab's exec flows that have any, by flow.
func metricsOf(lab *tcplabv1.Lab) map[string][]string {
	all := make(map[string][]string)
	for _, e := range lab.GetExperiments() {
		for _, f := range e.GetFlows() {
			for name := range f.GetExec().GetMetrics() {
				all[f.GetName()] = append(all[f.GetName()], name)
			}
			slices.Sort(all[f.GetName()])
		}
	}
	return all
}

// execField is a field of an exec flow, or of its metrics; ours is false of all other objects.
func (s *schema) execField(object, name string) (f field, ok, ours bool) {
	if flow, is := strings.CutPrefix(object, execPrefix); is {
		if name == "metrics" {
			return field{typ: types.NewObjectType(metricPrefix + flow)}, true, true
		}
		f, ok = s.field(messageType((*tcplabv1.FlowResult)(nil)).TypeName(), name)
		return f, ok, true
	}
	if flow, is := strings.CutPrefix(object, metricPrefix); is {
		return field{typ: types.DoubleType, unit: metricUnit(name)}, slices.Contains(s.metrics[flow], name), true
	}
	return field{}, false, false
}

// metricUnit is the unit of a metric by its name's ending (Exec.metrics).
func metricUnit(name string) string {
	for ending, unit := range map[string]string{"_bps": "bit/s", "_bytes": "B", "_seconds": "s"} {
		if strings.HasSuffix(name, ending) {
			return unit
		}
	}
	return ""
}

// metricsObject is flow.NAME.metrics of one trial.
func metricsObject(flow *tcplabv1.FlowResult) *object {
	return &object{typ: types.NewObjectType(metricPrefix + flow.GetName()), get: func(name string) (any, error) {
		v, found := flow.GetExec().GetMetrics()[name]
		if !found {
			return nil, fmt.Errorf("flow.%s.metrics.%s was not found", flow.GetName(), name)
		}
		return number(v, "flow."+flow.GetName()+".metrics."+name)
	}}
}
