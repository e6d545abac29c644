package expect

import (
	"fmt"
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/labs/unit"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Bounds of an expression: its length, which the contract bounds likewise, in
// characters, and how deeply it may be nested.
const (
	maxLength = 4096
	maxDepth  = 100
)

// reach says which names an expression may use.
type reach int

const (
	parameters   reach = iota // the point and theory: what is known before a run
	predictions               // and the kernel
	measurements              // and flows, counters, links, sockets and captures
	printed                   // of a metric: json, client and server, and nothing else
)

// roots are the names of each reach besides the parameters.
func (r reach) roots() map[string]*types.Type {
	roots := map[string]*types.Type{"theory": types.NewObjectType(theoryType)}
	if r >= predictions {
		roots["kernel"] = messageType((*tcplabv1.Kernel)(nil))
	}
	if r >= measurements {
		roots["flow"] = types.NewObjectType(flowsType)
		roots["counter"] = types.NewObjectType(nodesType)
		roots["link"] = types.NewObjectType(linksType)
		roots["capture"] = types.NewObjectType(capturesType)
		roots["sockets"] = types.NewObjectType(socketsType)
	}
	return roots
}

// environment is what the expressions of one lab are checked and evaluated in.
type environment struct {
	cel       *cel.Env
	schema    *schema
	variables map[string]*types.Type // by name
	units     map[string]string      // of parameters
	values    map[string]any         // of parameters, and theory
	functions map[string][]function  // by name, one an arity
	reach     reach
}

func newEnvironment(lab *tcplabv1.Lab, r reach) (*environment, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("types of expressions: %w", err)
	}
	env := &environment{
		schema:    newSchema(lab, registry),
		variables: r.roots(),
		units:     map[string]string{},
		values:    map[string]any{"theory": theoryObject()},
		functions: map[string][]function{},
		reach:     r,
	}
	for name, v := range lab.GetPoint() {
		if _, taken := measurements.roots()[name]; taken {
			return nil, fmt.Errorf("the parameter %s hides what expressions call %s: choose another name", name, name)
		}
		typ, unit, value, err := parameter(v)
		if err != nil {
			return nil, fmt.Errorf("the parameter %s: %w", name, err)
		}
		env.variables[name], env.units[name], env.values[name] = typ, unit, value
	}
	options := []cel.EnvOption{
		cel.CustomTypeProvider(env.schema),
		cel.CustomTypeAdapter(adapter{registry}),
		cel.ParserExpressionSizeLimit(maxLength),
		cel.ParserRecursionLimit(maxDepth),
		kernelOption(),
	}
	options = append(options, operatorOptions()...)
	options = append(options, seriesOptions()...)
	for _, f := range slices.Concat(mathFunctions(), theoryFunctions()) {
		options = append(options, f.option())
		env.functions[f.name] = append(env.functions[f.name], f)
	}
	for _, name := range slices.Sorted(maps.Keys(env.variables)) {
		options = append(options, cel.Variable(name, env.variables[name]))
	}
	if env.cel, err = cel.NewCustomEnv(options...); err != nil {
		return nil, fmt.Errorf("environment of expressions: %w", err)
	}
	return env, nil
}

// parameter is a parameter's value at the point as expressions see it: a
// quantity as a number in SI units, a boolean, or a text.
func parameter(v *structpb.Value) (typ *types.Type, symbol string, value any, err error) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return types.BoolType, "", types.Bool(kind.BoolValue), nil
	case *structpb.Value_NumberValue:
		value, err = number(kind.NumberValue, "the value")
		return types.DoubleType, "", value, err
	case *structpb.Value_StringValue:
		q, err := unit.Parse(kind.StringValue)
		if err != nil {
			return types.StringType, "", types.String(kind.StringValue), nil //nolint:nilerr // what is no quantity is a text
		}
		return types.DoubleType, q.Dimension.Symbol(), types.Double(q.Value), nil
	}
	return nil, "", nil, fmt.Errorf("%v is no quantity, boolean or text", v)
}

// Reserved reports whether a parameter of this name would hide a name that
// expressions need.
func Reserved(name string) bool {
	_, taken := measurements.roots()[name]
	return taken
}

// operatorOptions declare the operators: arithmetic and order of numbers,
// equality of numbers, texts and conditions, logic. Arithmetic that yields no
// finite number is an error.
func operatorOptions() []cel.EnvOption {
	num, boolean, text := types.DoubleType, types.BoolType, types.StringType
	var options []cel.EnvOption
	for op, eval := range map[string]func(a, b float64) float64{
		operators.Add:      func(a, b float64) float64 { return a + b },
		operators.Subtract: func(a, b float64) float64 { return a - b },
		operators.Multiply: func(a, b float64) float64 { return a * b },
		operators.Divide:   func(a, b float64) float64 { return a / b },
	} {
		f := function{"a " + symbolOf(op) + " b", nil, sameUnit, func(a args) float64 { return eval(a.num(0), a.num(1)) }}
		options = append(options, cel.Function(op, cel.Overload("number"+op, []*types.Type{num, num}, num,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val { return f.call(a, b) }))))
	}
	for op, holds := range comparisons() {
		options = append(options, cel.Function(op, cel.Overload("number"+op, []*types.Type{num, num}, boolean,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val {
				x, xok := a.(types.Double)
				y, yok := b.(types.Double)
				if !xok || !yok {
					return types.MaybeNoSuchOverloadErr(a)
				}
				return types.Bool(holds(float64(x), float64(y)))
			}))))
	}
	// CEL itself evaluates these; they are only declared.
	for _, op := range []string{operators.Equals, operators.NotEquals} {
		options = append(options, cel.Function(op,
			cel.Overload("text"+op, []*types.Type{text, text}, boolean),
			cel.Overload("boolean"+op, []*types.Type{boolean, boolean}, boolean)))
	}
	for _, op := range []string{operators.LogicalAnd, operators.LogicalOr} {
		options = append(options, cel.Function(op, cel.Overload("boolean"+op, []*types.Type{boolean, boolean}, boolean)))
	}
	either := types.NewTypeParamType("T")
	return append(options,
		cel.Function(operators.Conditional, cel.Overload("conditional", []*types.Type{boolean, either, either}, either)),
		cel.Function(operators.Index, cel.Overload("index", []*types.Type{types.NewListType(either), types.IntType}, either)),
		cel.Function(operators.LogicalNot, cel.Overload("not", []*types.Type{boolean}, boolean,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				b, ok := v.(types.Bool)
				if !ok {
					return types.MaybeNoSuchOverloadErr(v)
				}
				return !b
			}))),
		cel.Function(operators.Negate, cel.Overload("negate", []*types.Type{num}, num,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				n, ok := v.(types.Double)
				if !ok {
					return types.MaybeNoSuchOverloadErr(v)
				}
				return -n
			}))))
}

// comparisons are the operators that compare two numbers.
func comparisons() map[string]func(a, b float64) bool {
	return map[string]func(a, b float64) bool{
		operators.Less:          func(a, b float64) bool { return a < b },
		operators.LessEquals:    func(a, b float64) bool { return a <= b },
		operators.Greater:       func(a, b float64) bool { return a > b },
		operators.GreaterEquals: func(a, b float64) bool { return a >= b },
		operators.Equals:        func(a, b float64) bool { return a == b },
		operators.NotEquals:     func(a, b float64) bool { return a != b },
	}
}

// symbolOf is an operator as it is written: "+" for "_+_".
func symbolOf(op string) string {
	if s, ok := operators.FindReverse(op); ok && s != "" {
		return s
	}
	return op
}
