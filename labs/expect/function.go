package expect

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tcplab/tcplab/labs/theory"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// sameUnit says that a function's result has the unit of its arguments.
const sameUnit = "="

// function is a pure function of numbers. The parameter named policy is one of
// the constants of that type.
type function struct {
	name   string
	params []string
	unit   string // of the result; sameUnit: that of the arguments
	eval   func(args) float64
}

// signature is the function as a message shows it: "theory.rounds(bytes)".
func (f function) signature() string {
	if f.params == nil { // an operator
		return f.name
	}
	return f.name + "(" + strings.Join(f.params, ", ") + ")"
}

// args are a function's arguments. A value out of the range of Go's types
// makes the call fail in [function.call].
type args struct {
	values []ref.Val
	err    *error
}

func (a args) num(i int) float64 {
	v, ok := a.values[i].(types.Double)
	if !ok {
		*a.err = fmt.Errorf("argument %d is no number", i+1)
	}
	return float64(v)
}

func (a args) policy(i int) theory.Policy {
	if o, ok := a.values[i].(*object); ok {
		if p, ok := o.value.(theory.Policy); ok {
			return p
		}
	}
	*a.err = fmt.Errorf("argument %d is no policy such as theory.nagle", i+1)
	return 0
}

// call evaluates the function; a result that is no finite number is an error.
func (f function) call(values ...ref.Val) ref.Val {
	var err error
	result := f.eval(args{values: values, err: &err})
	if err == nil && (math.IsNaN(result) || math.IsInf(result, 0)) {
		err = fmt.Errorf("the result is %v", result)
	}
	if err != nil {
		return types.WrapErr(fmt.Errorf("%s: %w", f.signature(), err))
	}
	return types.Double(result)
}

// option declares the function.
func (f function) option() cel.EnvOption {
	var params []*types.Type
	for _, p := range f.params {
		if p == "policy" {
			params = append(params, policyType())
		} else {
			params = append(params, types.DoubleType)
		}
	}
	id := strings.ReplaceAll(f.name, ".", "_") + "_" + strconv.Itoa(len(params))
	binding := cel.FunctionBinding(f.call)
	switch len(params) {
	case 1:
		binding = cel.UnaryBinding(func(a ref.Val) ref.Val { return f.call(a) })
	case 2:
		binding = cel.BinaryBinding(func(a, b ref.Val) ref.Val { return f.call(a, b) })
	}
	return cel.Function(f.name, cel.Overload(id, params, types.DoubleType, binding))
}

// mathFunctions are the functions of plain numbers.
func mathFunctions() []function {
	unary := func(name, unit string, f func(float64) float64) function {
		return function{name, []string{"x"}, unit, func(a args) float64 { return f(a.num(0)) }}
	}
	fold := func(name string, n int, f func(a, b float64) float64) function {
		return function{name, []string{"a", "b", "c", "d"}[:n], sameUnit, func(a args) float64 {
			v := a.num(0)
			for i := 1; i < n; i++ {
				v = f(v, a.num(i))
			}
			return v
		}}
	}
	return []function{
		unary("ceil", sameUnit, math.Ceil),
		unary("floor", sameUnit, math.Floor),
		unary("round", sameUnit, math.Round),
		unary("abs", sameUnit, math.Abs),
		unary("log2", "", math.Log2),
		unary("sqrt", "", math.Sqrt),
		{"pow", []string{"x", "y"}, "", func(a args) float64 { return math.Pow(a.num(0), a.num(1)) }},
		fold("min", 2, math.Min), fold("min", 3, math.Min), fold("min", 4, math.Min),
		fold("max", 2, math.Max), fold("max", 3, math.Max), fold("max", 4, math.Max),
	}
}

// seriesType is the type of a cwnd_series.
func seriesType() *types.Type { return types.NewListType(messageType((*tcplabv1.CwndChange)(nil))) }

// seriesOptions declare size(series) and at(series, t).
func seriesOptions() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Function("size", cel.Overload("size_series", []*types.Type{seriesType()}, types.DoubleType,
			cel.UnaryBinding(func(list ref.Val) ref.Val {
				return types.Double(length(list))
			}))),
		cel.Function("at", cel.Overload("at_series", []*types.Type{seriesType(), types.DoubleType}, types.DoubleType,
			cel.BinaryBinding(windowAt))),
	}
}

func length(list ref.Val) int {
	l, ok := list.(traits.Lister)
	if !ok {
		return 0
	}
	n, ok := l.Size().(types.Int)
	if !ok {
		return 0
	}
	return int(n)
}

// windowAt is the congestion window of a series in force t seconds after
// connect(2): that of the last change at or before t.
func windowAt(list, t ref.Val) ref.Val {
	l, ok := list.(traits.Lister)
	if !ok || length(list) == 0 {
		return types.NewErr("at(series, t): the series is empty: no TCP_INFO was sampled")
	}
	when, ok := t.(types.Double)
	if !ok {
		return types.NewErr("at(series, t): t is no number")
	}
	var window any
	for i := range length(list) {
		change, ok := l.Get(types.Int(i)).(*object)
		if !ok {
			return types.NewErr("at(series, t): the series holds no changes of a congestion window")
		}
		at, err := change.get("at")
		if err != nil {
			return types.WrapErr(err)
		}
		if from, ok := at.(types.Double); !ok || from > when {
			if window == nil {
				return types.NewErr("at(series, t): nothing is known at %v s: the first sample is from %v s", float64(when), at)
			}
			break
		}
		if window, err = change.get("snd_cwnd"); err != nil {
			return types.WrapErr(err)
		}
	}
	v, ok := window.(ref.Val)
	if !ok {
		return types.NewErr("at(series, t): no window")
	}
	return v
}

// kernelOption declares kernel.at_least(major, minor).
func kernelOption() cel.EnvOption {
	return cel.Function("at_least", cel.MemberOverload("kernel_at_least",
		[]*types.Type{messageType((*tcplabv1.Kernel)(nil)), types.DoubleType, types.DoubleType}, types.BoolType,
		cel.FunctionBinding(func(values ...ref.Val) ref.Val {
			kernel, ok := values[0].(*object)
			if !ok {
				return types.NewErr("at_least is asked of kernel")
			}
			release, err := kernel.get("release")
			if err != nil {
				return types.WrapErr(err)
			}
			var is, want [2]int
			if _, err := fmt.Sscanf(fmt.Sprint(release), "%d.%d", &is[0], &is[1]); err != nil {
				return types.NewErr("kernel.release is %q, which is no version", release)
			}
			for i := range want {
				v, ok := values[i+1].(types.Double)
				if !ok || v != types.Double(math.Trunc(float64(v))) || math.Abs(float64(v)) > 1e6 {
					return types.NewErr("kernel.at_least(major, minor): %v is no version", values[i+1])
				}
				want[i] = int(v)
			}
			return types.Bool(is[0] > want[0] || is[0] == want[0] && is[1] >= want[1])
		})))
}
