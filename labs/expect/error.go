package expect

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Error says what is wrong with one expression of an expectation.
type Error struct {
	Field   string // where, measure, predict, that, rival or within.slack
	Offset  int    // byte offset in the expression
	Message string // what is wrong, and what may have been meant
}

// Error joins the field and the message.
func (e *Error) Error() string { return e.Field + ": " + e.Message }

// syntaxError is the first thing that the parser stumbled over.
func syntaxError(src string, issues *cel.Issues) *Error {
	first := issues.Errors()[0]
	offset := offsetOf(src, first.Location.Line(), first.Location.Column())
	message := first.Message
	switch {
	case strings.Contains(message, "limit") || strings.Contains(message, "max recursion"):
		offset, message = 0, "the expression is too long or nested too deeply"
	case offset >= len(src) || strings.Contains(message, "'<EOF>'"):
		offset, message = len(src), "the expression ends too early"
	case strings.Contains(message, "token recognition error"):
		r, _ := utf8.DecodeRuneInString(src[offset:])
		message = fmt.Sprintf("%q does not belong here", r)
	case strings.HasPrefix(message, "Syntax error:"):
		message = fmt.Sprintf("%q does not belong here", word(src[offset:]))
	}
	return &Error{Offset: offset, Message: message}
}

// foreign finds what CEL could build and an expectation never compares: lists, maps and messages.
func foreign(src string, tree *ast.AST) *Error {
	var found *Error
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ListKind, ast.MapKind, ast.StructKind, ast.ComprehensionKind:
			if found == nil {
				found = &Error{Offset: start(src, tree, e), Message: "lists and maps have no place in an expectation"}
			}
		}
	}))
	return found
}

// impossible finds a comparison of a field that is one of a few words with one that is not
// among them: it would be false without a word of why.
func (env *environment) impossible(src string, tree *ast.AST) *Error {
	var found *Error
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if found != nil || e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		if name := e.AsCall().FunctionName(); name != operators.Equals && name != operators.NotEquals {
			return
		}
		for i, side := range e.AsCall().Args() {
			other := e.AsCall().Args()[1-i]
			if side.Kind() != ast.SelectKind || other.Kind() != ast.LiteralKind {
				continue
			}
			object := env.typeOf(side.AsSelect().Operand())
			written, isText := other.AsLiteral().(types.String)
			if object == nil || !isText {
				continue
			}
			f, _ := env.schema.field(object.TypeName(), side.AsSelect().FieldName())
			if len(f.words) == 0 || slices.Contains(f.words, string(written)) {
				continue
			}
			found = &Error{Offset: start(src, tree, other), Message: fmt.Sprintf("%s is never %q%s: it is one of %s",
				pathOf(side), string(written), didYouMean(string(written), f.words), strings.Join(f.words, ", "))}
		}
	}))
	return found
}

// word is the name, number or single sign at the start of s.
func word(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool { return !isNameRune(r) && r != '.' })
	if end < 0 {
		return s
	}
	if end == 0 {
		_, end = utf8.DecodeRuneInString(s)
	}
	return s[:end]
}

// isNameRune reports whether r may stand in a name.
func isNameRune(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// explain tells the first thing that did not type-check in the words of the
// lab file.
func (env *environment) explain(src string, tree *ast.AST, issues *cel.Issues) *Error {
	first := issues.Errors()[0]
	offset := offsetOf(src, first.Location.Line(), first.Location.Column())
	var at ast.Expr
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() == first.ExprID {
			at = e
		}
	}))
	if at == nil {
		return &Error{Offset: offset, Message: first.Message}
	}
	switch at.Kind() {
	case ast.IdentKind, ast.SelectKind:
		return env.explainName(src, tree, at)
	case ast.CallKind:
		return env.explainCall(src, tree, at, offset, first.Message)
	}
	return &Error{Offset: offset, Message: first.Message}
}

// explainName finds which part of a.b.c is not known.
func (env *environment) explainName(src string, tree *ast.AST, e ast.Expr) *Error {
	if e.Kind() == ast.IdentKind {
		offset := start(src, tree, e)
		return &Error{Offset: offset, Message: env.unknownName(e.AsIdent())}
	}
	if e.Kind() != ast.SelectKind {
		offset := start(src, tree, e)
		return &Error{Offset: offset, Message: "this has no fields"}
	}
	operand, name := e.AsSelect().Operand(), e.AsSelect().FieldName()
	object := env.typeOf(operand)
	if object == nil {
		return env.explainName(src, tree, operand)
	}
	offset := start(src, tree, e)
	path := pathOf(operand)
	if object.Kind() != types.StructKind {
		return &Error{Offset: offset, Message: fmt.Sprintf("%s is %s and has no field %s", path, describe(object), name)}
	}
	var what string
	names := env.schema.names(object.TypeName())
	switch object.TypeName() {
	case flowsType, capturedFlowsType:
		what = "the lab has no flow " + name
	case nodesType:
		what = "the lab has no node " + name
	case capturesType:
		what = fmt.Sprintf("the lab captures at no node %s", name)
	case linksType:
		what = "the lab has no link " + name
	case countersType:
		what = fmt.Sprintf("%s is not the name of a kernel counter, such as TcpExtDelayedACKs", name)
	case theoryType:
		for known := range env.functions {
			if f, ok := strings.CutPrefix(known, "theory."); ok {
				names = append(names, f)
			}
		}
		what = "theory has no " + name
	default:
		what = fmt.Sprintf("%s has no field %s", path, name)
	}
	hint := didYouMean(name, names)
	if hint == "" && len(names) > 0 && len(names) <= 12 {
		hint = " (there are " + strings.Join(slices.Sorted(slices.Values(names)), ", ") + ")"
	}
	return &Error{Offset: offset, Message: what + hint}
}

// unknownName says why a name that starts an expression is not known.
func (env *environment) unknownName(name string) string {
	if _, ok := measurements.roots()[name]; ok {
		switch env.reach {
		case printed:
			return name + " is not known to a metric: json, client and server are"
		case parameters:
			return name + " is not known before the run: only parameters and theory are"
		}
		return name + " is what was measured: a prediction uses parameters, theory and kernel"
	}
	names := slices.Concat(slices.Collect(maps.Keys(env.variables)), slices.Collect(maps.Keys(env.functions)))
	return "unknown name " + name + didYouMean(name, names)
}

// explainCall says why a function or an operator cannot be applied.
func (env *environment) explainCall(src string, tree *ast.AST, e ast.Expr, offset int, message string) *Error {
	name := functionName(e)
	given := ""
	if _, list, ok := strings.Cut(message, "applied to '"); ok {
		given = inWords(strings.TrimSuffix(list, "'"))
	}
	if symbol, ok := operators.FindReverse(e.AsCall().FunctionName()); ok && symbol != "" {
		return &Error{Offset: offset, Message: fmt.Sprintf("%s cannot be applied to %s", symbol, given)}
	}
	switch e.AsCall().FunctionName() {
	case operators.Conditional:
		return &Error{Offset: offset, Message: "a ? b : c needs a condition, and b and c alike; given are " + given}
	case operators.Index:
		return &Error{Offset: offset, Message: "[…] takes a whole number behind a series, or a name in quotes behind an object; given are " + given}
	}
	// The tree places a call at its parenthesis.
	for offset > 0 && offset <= len(src) && strings.ContainsRune("( \t\n", rune(src[min(offset, len(src)-1)])) {
		offset--
	}
	for offset > 0 && (isNameRune(rune(src[offset-1])) || src[offset-1] == '.') {
		offset--
	}
	if known := env.functions[name]; len(known) > 0 {
		var forms []string
		for _, f := range known {
			forms = append(forms, f.signature())
		}
		return &Error{Offset: offset, Message: fmt.Sprintf("it is called %s; given are %s", strings.Join(forms, " or "), given)}
	}
	switch name {
	case "at", "size", "kernel.at_least":
		form := map[string]string{"at": "at(series, t)", "size": "size(series)", "kernel.at_least": "kernel.at_least(major, minor)"}[name]
		return &Error{Offset: offset, Message: fmt.Sprintf("it is called %s; given are %s", form, given)}
	}
	if call := e.AsCall(); call.IsMemberFunction() && env.typeOf(call.Target()) == nil {
		return env.explainName(src, tree, call.Target())
	}
	names := append(slices.Collect(maps.Keys(env.functions)), "at", "size", "kernel.at_least")
	return &Error{Offset: offset, Message: "unknown function " + name + didYouMean(name, names)}
}

// inWords turns "(double, string)" into "(a number, a text)".
func inWords(list string) string {
	if _, after, ok := strings.Cut(list, ".("); ok { // behind a method's receiver
		list = "(" + after
	}
	for _, t := range []*types.Type{types.DoubleType, types.IntType, types.BoolType, types.StringType, seriesType(), policyType()} {
		list = strings.ReplaceAll(list, cel.FormatCELType(t), describe(t))
	}
	return list
}

// pathOf writes a chain of names as the author did.
func pathOf(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent()
	case ast.SelectKind:
		return pathOf(e.AsSelect().Operand()) + "." + e.AsSelect().FieldName()
	case ast.CallKind:
		if args := e.AsCall().Args(); e.AsCall().FunctionName() == operators.Index && len(args) == 2 {
			return fmt.Sprintf("%s[%v]", pathOf(args[0]), args[1].AsLiteral())
		}
	}
	return "this"
}

// start is the byte offset at which a name or field is written.
func start(src string, tree *ast.AST, e ast.Expr) int {
	location := tree.SourceInfo().GetStartLocation(e.ID())
	offset := offsetOf(src, location.Line(), location.Column())
	// A field is placed at the dot or bracket before it.
	for offset < len(src) && e.Kind() == ast.SelectKind && strings.ContainsRune(".[\"' \t\n", rune(src[offset])) {
		offset++
	}
	return offset
}

// offsetOf is the byte offset of a line, from 1, and column, from 0 in runes.
func offsetOf(src string, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		next := strings.IndexByte(src[offset:], '\n')
		if next < 0 {
			break
		}
		offset += next + 1
	}
	for ; column > 0 && offset < len(src); column-- {
		_, size := utf8.DecodeRuneInString(src[offset:])
		offset += size
	}
	return offset
}
