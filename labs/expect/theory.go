package expect

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/common/types"

	"github.com/tcplab/tcplab/labs/theory"
)

// policyType is the type of theory.nagle and its like. No number can stand for
// one.
func policyType() *types.Type { return types.NewOpaqueType("policy") }

// constant is a name below theory.
type constant struct {
	typ   *types.Type
	unit  string
	value any // theory.Policy or float64
}

// theoryConstants are the names that stand below theory without arguments.
func theoryConstants() map[string]constant {
	policy := func(p theory.Policy) constant { return constant{typ: policyType(), value: p} }
	count := func(n float64) constant { return constant{typ: types.DoubleType, value: n} }
	return map[string]constant{
		"no_delay":       policy(theory.NoDelay),
		"quick_ack":      policy(theory.QuickACK),
		"nagle":          policy(theory.Nagle),
		"initial_window": count(theory.InitialWindow),
		"infinite":       count(theory.Infinite),
		"mss":            {typ: types.DoubleType, unit: "B", value: float64(theory.MSS)},
		"delayed_ack":    {typ: types.DoubleType, unit: "s", value: theory.DelayedACKMin.Seconds()},
		"time_wait":      {typ: types.DoubleType, unit: "s", value: theory.TimeWait.Seconds()},
	}
}

// theoryObject is `theory`.
func theoryObject() *object {
	constants := theoryConstants()
	return &object{typ: types.NewObjectType(theoryType), get: func(name string) (any, error) {
		c := constants[name]
		if v, ok := c.value.(float64); ok {
			return number(v, "theory."+name)
		}
		return &object{typ: c.typ, value: c.value}, nil
	}}
}

// theoryFunctions lends package theory's formulas to expressions. Durations are in
// seconds, rates in bit/s, sizes in bytes; a rate of 0 is no bottleneck. No parameter is optional.
func theoryFunctions() []function {
	var out []function
	for _, formula := range theory.Formulas() {
		var params []string
		for _, p := range formula.Parameters {
			params = append(params, p.Name)
		}
		out = append(out, function{"theory." + formula.Name, params, formula.Unit, func(a args) float64 {
			values := make([]float64, len(formula.Parameters))
			for i, p := range formula.Parameters {
				if p.Kind == theory.PolicyName {
					values[i] = float64(a.policy(i))
				} else {
					values[i] = a.num(i)
				}
			}
			if *a.err != nil {
				return 0
			}
			derivation, err := formula.Derive(values...)
			if wrong, ok := errors.AsType[*theory.ArgumentError](err); ok {
				err = fmt.Errorf("argument %d %w", wrong.Index+1, wrong.Reason)
			}
			*a.err = err
			return derivation.Result
		}})
	}
	return out
}
