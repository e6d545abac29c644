package expect

import (
	"fmt"
	"maps"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"cel.dev/cel-go/common/types/ref"
)

// expression is a checked expression, ready to be evaluated.
type expression struct {
	env     *environment
	program cel.Program
	checked *ast.AST
	unit    string
}

// compile parses, checks and plans src, which must be of the type want. The
// error is an [*Error] without its Field.
func (env *environment) compile(src string, want *types.Type) (*expression, error) {
	parsed, issues := env.cel.Parse(src)
	if issues.Err() != nil {
		return nil, syntaxError(src, issues)
	}
	tree := parsed.NativeRep()
	if err := foreign(src, tree); err != nil {
		return nil, err
	}
	normalize(tree)
	checked, issues := env.cel.Check(parsed)
	if issues.Err() != nil {
		return nil, env.explain(src, tree, issues)
	}
	tree = checked.NativeRep()
	if err := env.impossible(src, tree); err != nil {
		return nil, err
	}
	if got := tree.GetType(tree.Expr().ID()); !got.IsExactType(want) {
		return nil, &Error{Message: fmt.Sprintf("%s is needed, this is %s", describe(want), describe(got))}
	}
	return env.plan(tree, tree.Expr())
}

// plan makes a part of a checked tree an expression of its own.
func (env *environment) plan(tree *ast.AST, part ast.Expr) (*expression, error) {
	checked := ast.NewCheckedAST(ast.NewAST(part, tree.SourceInfo()), tree.TypeMap(), tree.ReferenceMap())
	program, err := env.cel.PlanProgram(checked)
	if err != nil {
		return nil, &Error{Message: err.Error()}
	}
	return &expression{env: env, program: program, checked: checked, unit: env.unit(part)}, nil
}

// sides splits a comparison of two numbers; ok is false of anything else.
func (x *expression) sides() (left, right *expression, op string, ok bool, err error) {
	root := x.checked.Expr()
	if root.Kind() != ast.CallKind || len(root.AsCall().Args()) != 2 {
		return nil, nil, "", false, nil
	}
	op = root.AsCall().FunctionName()
	if _, isComparison := comparisons()[op]; !isComparison {
		return nil, nil, "", false, nil
	}
	args := root.AsCall().Args()
	if x.checked.GetType(args[0].ID()) != types.DoubleType {
		return nil, nil, "", false, nil
	}
	if left, err = x.env.plan(x.checked, args[0]); err != nil {
		return nil, nil, "", false, err
	}
	right, err = x.env.plan(x.checked, args[1])
	return left, right, op, err == nil, err
}

func (x *expression) number(measured map[string]any) (float64, error) {
	v, err := x.eval(measured)
	if err != nil {
		return 0, err
	}
	n, ok := v.(types.Double)
	if !ok {
		return 0, fmt.Errorf("%s is needed, this is %v", describe(types.DoubleType), v)
	}
	return float64(n), nil
}

func (x *expression) holds(measured map[string]any) (bool, error) {
	v, err := x.eval(measured)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("%s is needed, this is %v", describe(types.BoolType), v)
	}
	return bool(b), nil
}

// eval evaluates with the point's parameters and what was measured.
func (x *expression) eval(measured map[string]any) (ref.Val, error) {
	variables := make(map[string]any, len(x.env.values)+len(measured))
	maps.Copy(variables, x.env.values)
	maps.Copy(variables, measured)
	v, _, err := x.program.Eval(variables)
	return v, err
}

// normalize makes every number a double, except the index of a list, and
// counter["node-1"] the same as counter.node-1 would be, could one write that.
func normalize(tree *ast.AST) {
	factory := ast.NewExprFactory()
	indexes := map[int64]bool{}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			call := e.AsCall()
			if call.FunctionName() != operators.Index || len(call.Args()) != 2 {
				return
			}
			object, index := call.Args()[0], call.Args()[1]
			if index.Kind() != ast.LiteralKind {
				return
			}
			if name, ok := index.AsLiteral().(types.String); ok {
				e.SetKindCase(factory.NewSelect(e.ID(), object, string(name)))
				return
			}
			indexes[index.ID()] = true
		case ast.LiteralKind:
			if indexes[e.ID()] {
				return
			}
			switch v := e.AsLiteral().(type) {
			case types.Int:
				e.SetKindCase(factory.NewLiteral(e.ID(), types.Double(v)))
			case types.Uint:
				e.SetKindCase(factory.NewLiteral(e.ID(), types.Double(v)))
			}
		}
	}))
}

// typeOf is the type of a name or of a field of it, before the tree is
// checked; nil where it is neither or not declared.
func (env *environment) typeOf(e ast.Expr) *types.Type {
	switch e.Kind() {
	case ast.IdentKind:
		return env.variables[e.AsIdent()]
	case ast.SelectKind:
		operand := env.typeOf(e.AsSelect().Operand())
		if operand == nil || operand.Kind() != types.StructKind {
			return nil
		}
		if f, ok := env.schema.field(operand.TypeName(), e.AsSelect().FieldName()); ok {
			return f.typ
		}
	case ast.CallKind:
		if call := e.AsCall(); call.FunctionName() == operators.Index && len(call.Args()) == 2 {
			if list := env.typeOf(call.Args()[0]); list != nil && list.Kind() == types.ListKind {
				return list.Parameters()[0]
			}
		}
	}
	return nil
}

// unit infers the unit of a number: fields and parameters know theirs, sums and the like keep it,
// a quotient of equals has none, and a size by a rate is a time. Where a product
// makes no unit of these, there is none.
func (env *environment) unit(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return env.units[e.AsIdent()]
	case ast.SelectKind:
		if operand := env.typeOf(e.AsSelect().Operand()); operand != nil {
			f, _ := env.schema.field(operand.TypeName(), e.AsSelect().FieldName())
			return f.unit
		}
	case ast.CallKind:
		call := e.AsCall()
		var units []string
		for _, arg := range call.Args() {
			units = append(units, env.unit(arg))
		}
		switch call.FunctionName() {
		case operators.Add, operators.Subtract, operators.Negate:
			return first(units)
		case operators.Conditional:
			return first(units[1:])
		case operators.Multiply:
			switch a, b := units[0], units[1]; {
			case a == "" || b == "":
				return a + b
			case a+b == "sbit/s" || a+b == "bit/ss":
				return "B"
			}
			return ""
		case operators.Divide:
			switch a, b := units[0], units[1]; {
			case b == "":
				return a
			case a == "B" && b == "bit/s":
				return "s"
			case a == "B" && b == "s":
				return "bit/s"
			}
			return ""
		}
		// A function's forms differ in their arguments and have one unit.
		if forms := env.functions[functionName(e)]; len(forms) > 0 {
			if forms[0].unit == sameUnit {
				return first(units)
			}
			return forms[0].unit
		}
	}
	return ""
}

// functionName is a call's full name: theory.rounds, though the tree may hold
// it as a method of theory.
func functionName(e ast.Expr) string {
	call := e.AsCall()
	if !call.IsMemberFunction() {
		return call.FunctionName()
	}
	if call.Target().Kind() == ast.IdentKind {
		return call.Target().AsIdent() + "." + call.FunctionName()
	}
	return call.FunctionName()
}

// first is the first unit that is one.
func first(units []string) string {
	for _, u := range units {
		if u != "" {
			return u
		}
	}
	return ""
}

// describe names a type in the words of the lab file.
func describe(t *types.Type) string {
	switch t.Kind() {
	case types.DoubleKind, types.IntKind, types.UintKind:
		return "a number"
	case types.BoolKind:
		return "a condition (true or false)"
	case types.StringKind:
		return "a text"
	case types.ListKind:
		return "a series"
	case types.OpaqueKind:
		return "a " + t.TypeName()
	case types.StructKind:
		return "the object " + strings.TrimPrefix(t.TypeName(), "tcplab.v1.")
	}
	return t.TypeName()
}
