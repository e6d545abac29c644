package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/labs/theory"
	"github.com/tcplab/tcplab/labs/unit"
)

func (a *app) theoryCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:   "theory",
		Short: "Work a prediction out step by step, without a lab",
		Long: `Theory lists the formulas that labs predict with. Behind the name of one it works the
formula out: each step with its value, and what they come to. Lab files know the same
formulas: theory.slow_start(bytes, rtt, rate).`,
		Example: `  tcplab theory
  tcplab theory slow-start --bytes 1MB --rtt 80ms
  tcplab theory write-write-read --rtt 20ms --hz 1000`,
		Args: groupArgs,
		RunE: func(*cobra.Command, []string) error { return a.listTheory(output) },
	}
	outputFlag(cmd, &output)
	for _, f := range theory.Formulas() {
		cmd.AddCommand(a.formulaCommand(f))
	}
	return cmd
}

func (a *app) listTheory(output format) error {
	if output == formatJSON {
		entries := []formulaEntry{}
		for _, f := range theory.Formulas() {
			entries = append(entries, describeFormula(f))
		}
		return printJSON(a.Out, entries)
	}
	var rows [][]string
	for _, f := range theory.Formulas() {
		var params []string
		for _, p := range f.Parameters {
			name := commandWord(p.Name)
			if p.Optional {
				name = "[" + name + "]"
			}
			params = append(params, name)
		}
		rows = append(rows, []string{commandWord(f.Name), strings.Join(params, " "), f.Unit, f.About})
	}
	return printTable(a.Out, []string{"FORMULA", "PARAMETERS", "UNIT", "WHAT IT PREDICTS"}, rows)
}

// formulaEntry is a formula as JSON.
type formulaEntry struct {
	Name       string           `json:"name"`
	About      string           `json:"about"`
	Parameters []parameterEntry `json:"parameters"`
	Unit       string           `json:"unit"`
	Law        string           `json:"law"`
	Valid      string           `json:"valid"`
	Source     string           `json:"source"`
}

type parameterEntry struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Default string `json:"default,omitempty"` // as the flag takes it; none: it is needed
}

func describeFormula(f theory.Formula) formulaEntry {
	e := formulaEntry{Name: f.Name, About: f.About, Unit: f.Unit, Law: f.Law, Valid: f.Valid, Source: f.Source}
	for _, p := range f.Parameters {
		param := parameterEntry{Name: p.Name, About: p.About}
		if p.Optional {
			param.Default = argumentText(p, p.Default)
		}
		e.Parameters = append(e.Parameters, param)
	}
	return e
}

// commandWord is the name of a formula or a parameter on the command line.
func commandWord(name string) string { return strings.ReplaceAll(name, "_", "-") }

func (a *app) formulaCommand(f theory.Formula) *cobra.Command {
	var output format
	arguments := make([]argument, len(f.Parameters))
	example := []string{"  tcplab theory " + commandWord(f.Name)}
	cmd := &cobra.Command{
		Use:     commandWord(f.Name),
		Aliases: []string{f.Name},
		Short:   strings.ToUpper(f.About[:1]) + f.About[1:],
		Long:    fmt.Sprintf("%s:\n\n  %s\n\nValid where: %s.\nSource: %s.", strings.ToUpper(f.About[:1])+f.About[1:], f.Law, f.Valid, f.Source),
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			return a.derive(f, arguments, output)
		},
	}
	for i, p := range f.Parameters {
		about := p.About
		arguments[i] = argument{parameter: p}
		if p.Optional {
			arguments[i].value, arguments[i].given = p.Default, true
		} else {
			about += " (needed)"
			example = append(example, "--"+commandWord(p.Name)+" "+sampleOf(p))
		}
		cmd.Flags().Var(&arguments[i], commandWord(p.Name), about)
	}
	cmd.Example = strings.Join(example, " ")
	outputFlag(cmd, &output)
	return cmd
}

// sampleOf is a value of a parameter, for an example.
func sampleOf(p theory.Parameter) string {
	switch p.Kind {
	case theory.Bytes:
		return "1MB"
	case theory.Time:
		return "80ms"
	case theory.Rate:
		return "100Mbit"
	case theory.Chance:
		return "1%"
	}
	return "4"
}

// derive works a formula out and prints how.
func (a *app) derive(f theory.Formula, arguments []argument, output format) error {
	var given []string
	values := make([]float64, len(arguments))
	for i, arg := range arguments {
		if !arg.given {
			return usageError("--%s is needed: %s", commandWord(arg.parameter.Name), arg.parameter.About)
		}
		values[i] = arg.value
		given = append(given, commandWord(arg.parameter.Name)+" "+arg.String())
	}
	derivation, err := f.Derive(values...)
	if wrong, ok := errors.AsType[*theory.ArgumentError](err); ok {
		return usageError("--%s %s", commandWord(wrong.Parameter.Name), wrong.Reason)
	}
	if err != nil {
		return usageError("%s: %v", commandWord(f.Name), err)
	}
	if output == formatJSON {
		return printJSON(a.Out, derivationEntry(f, values, derivation))
	}
	if _, err := fmt.Fprintf(a.Out, "%s: %s\n\n  %s\n\nAt %s:\n\n", commandWord(f.Name), f.About, f.Law, strings.Join(given, ", ")); err != nil {
		return err
	}
	header, rows := []string{"STEP", "HOW", "VALUE"}, [][]string{}
	if derivation.Sum {
		header = append(header, "SUM")
	}
	sum := 0.0
	for _, s := range derivation.Steps {
		row := []string{s.What, s.Law, quantity(s.Value, s.Unit)}
		if sum += s.Value; derivation.Sum {
			row = append(row, quantity(sum, s.Unit))
		}
		rows = append(rows, row)
	}
	if err := printTable(a.Out, header, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "\n%s = %s\nValid where: %s.\nSource: %s.\n", commandWord(f.Name), quantity(derivation.Result, f.Unit), f.Valid, f.Source)
	return err
}

// derivationJSON is a derivation as JSON: values in SI units.
type derivationJSON struct {
	Formula   string         `json:"formula"`
	Arguments map[string]any `json:"arguments"`
	Steps     []stepJSON     `json:"steps"`
	Sum       bool           `json:"sum"`
	Result    float64        `json:"result"`
	Unit      string         `json:"unit"`
}

type stepJSON struct {
	What  string  `json:"what"`
	Law   string  `json:"law"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func derivationEntry(f theory.Formula, values []float64, d theory.Derivation) derivationJSON {
	out := derivationJSON{Formula: f.Name, Arguments: map[string]any{}, Steps: []stepJSON{}, Sum: d.Sum, Result: d.Result, Unit: f.Unit}
	for i, p := range f.Parameters {
		out.Arguments[p.Name] = values[i]
		if p.Kind == theory.PolicyName {
			out.Arguments[p.Name] = theory.Policy(values[i]).String()
		}
	}
	for _, s := range d.Steps {
		out.Steps = append(out.Steps, stepJSON(s))
	}
	return out
}

// argument is the flag of one parameter.
type argument struct {
	parameter theory.Parameter
	value     float64
	given     bool
}

// Type names the value in help.
func (g *argument) Type() string {
	switch g.parameter.Kind {
	case theory.Bytes:
		return "size"
	case theory.Time:
		return "time"
	case theory.Rate:
		return "rate"
	case theory.Chance:
		return "share"
	case theory.PolicyName:
		return "policy"
	}
	return "number"
}

// String is the value as one would type it; empty where there is none.
func (g *argument) String() string {
	if !g.given {
		return ""
	}
	return argumentText(g.parameter, g.value)
}

func argumentText(p theory.Parameter, v float64) string {
	switch {
	case p.Kind == theory.PolicyName:
		return theory.Policy(v).String()
	case p.Kind == theory.Rate && v == 0:
		return "unlimited"
	}
	return unit.Format(unit.Quantity{Value: v, Dimension: dimensionOf(p.Kind)})
}

func dimensionOf(k theory.Kind) unit.Dimension {
	switch k {
	case theory.Bytes:
		return unit.Size
	case theory.Time:
		return unit.Duration
	case theory.Rate:
		return unit.Rate
	case theory.Chance:
		return unit.Ratio
	}
	return unit.Scalar
}

// Set parses the flag: a quantity as in a lab file.
func (g *argument) Set(s string) error {
	want := dimensionOf(g.parameter.Kind)
	switch {
	case g.parameter.Kind == theory.PolicyName:
		for _, p := range theory.Policies() {
			if s == p.String() || s == commandWord(p.String()) {
				g.value, g.given = float64(p), true
				return nil
			}
		}
		return fmt.Errorf("want %s", g.parameter.About)
	case g.parameter.Kind == theory.Rate && s == "unlimited":
		g.value, g.given = 0, true
		return nil
	}
	q, err := unit.Parse(s)
	if err != nil {
		if wrong, ok := errors.AsType[*unit.Error](err); ok {
			return fmt.Errorf("it %s; want %s, such as %s", wrong.Reason, want, want.Example())
		}
		return err
	}
	plain := q.Dimension == unit.Scalar && (want == unit.Size || want == unit.Ratio || q.Value == 0)
	if q.Dimension != want && !plain {
		return fmt.Errorf("want %s, such as %s", want, want.Example())
	}
	g.value, g.given = q.Value, true
	return nil
}
