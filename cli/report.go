package cli

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// printReport prints what a run found.
func (a *app) printReport(r *tcplabv1.RunReport, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, r)
	}
	// Whoever cancelled a run waits for no tables.
	if r.GetState() == tcplabv1.RunState_RUN_STATE_CANCELLED {
		return a.printVerdict(r)
	}
	if err := a.printExpectations(r); err != nil {
		return err
	}
	if err := a.printOutcomes(r); err != nil {
		return err
	}
	if err := a.printConnections(r); err != nil {
		return err
	}
	if err := a.printLinks(r); err != nil {
		return err
	}
	if err := a.printLateness(r); err != nil {
		return err
	}
	for _, trial := range r.GetTrials() {
		if err := a.printNotWhole(trial.GetCaptures()); err != nil {
			return err
		}
	}
	return a.printVerdict(r)
}

func (a *app) printExpectations(r *tcplabv1.RunReport) error {
	if len(r.GetExpectations()) == 0 {
		return nil
	}
	var points []map[string]*structpb.Value
	for _, e := range r.GetExpectations() {
		points = append(points, e.GetPoint())
	}
	names := varying(paramNames(points), points)
	header := append(append([]string{}, names...), "expectation", "measured", "predicted", "permitted", "verdict")
	for i := range header {
		header[i] = strings.ToUpper(header[i])
	}
	var rows [][]string
	for _, e := range r.GetExpectations() {
		var row []string
		for _, name := range names {
			row = append(row, param(e.GetPoint()[name]))
		}
		measured, predicted, permitted := "", "", ""
		// A condition that compares no two numbers has none to show.
		if len(e.GetRepetitions()) > 0 {
			measured, predicted = quantity(e.GetMeasured(), e.GetUnit()), quantity(e.GetPredicted(), e.GetUnit())
		}
		if e.GetPermitted() > 0 {
			permitted = "± " + quantity(e.GetPermitted(), e.GetUnit())
		}
		rows = append(rows, append(row, e.GetName(), measured, predicted, permitted, a.verdict(e.GetVerdict())))
	}
	if err := printTable(a.Out, header, rows); err != nil {
		return err
	}
	var details []string
	same := constant(points)
	for _, e := range r.GetExpectations() {
		if e.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED && e.GetDetail() != "" {
			details = append(details, fmt.Sprintf("  %s%s: %s\n", e.GetName(), parenthesis(pointText(without(e.GetPoint(), same))), e.GetDetail()))
		}
	}
	_, err := fmt.Fprint(a.Out, strings.Join(details, ""), "\n")
	return err
}

// printLinks prints each direction of each link, and each path of it, once, from the first trial
// that has it at each distinct shape; and why what could not be proven was not.
func (a *app) printLinks(r *tcplabv1.RunReport) error {
	seen := map[string]bool{}
	var table proofs
	for _, trial := range r.GetTrials() {
		for _, l := range trial.GetLinks() {
			key := l.GetName() + " " + arrow(l) + l.GetSpec().String()
			if seen[key] && l.GetVerdict() != tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
				continue
			}
			seen[key] = true
			table.add(l)
			if l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_UNPROVEN {
				table.explain(l)
			}
		}
	}
	if len(table.rows) == 0 {
		return nil
	}
	if err := table.print(a.Out); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.Out)
	return err
}

func (a *app) printVerdict(r *tcplabv1.RunReport) error {
	var parts []string
	if n := len(r.GetExpectations()); n > 0 {
		held := 0
		for _, e := range r.GetExpectations() {
			if e.GetVerdict() == tcplabv1.Verdict_VERDICT_PASSED {
				held++
			}
		}
		parts = append(parts, fmt.Sprintf("%d of %d expectations hold", held, n))
	}
	done := 0
	for _, trial := range r.GetTrials() {
		if trial.GetState() == tcplabv1.RunState_RUN_STATE_SUCCEEDED {
			done++
		}
	}
	parts = append(parts, fmt.Sprintf("%s done in %s", plural(done, "trial"), seconds(r.GetElapsed())))
	if r.GetKernel() != "" {
		parts = append(parts, "Linux "+r.GetKernel())
	}
	if v := r.GetVirtualTime(); v != nil {
		parts = append(parts, fmt.Sprintf("%s (configuration %s), %.2g times as fast as the clock", timeWord(r.GetTime()), v.GetConfigHash(), v.GetSpeedup()))
	}
	parts = append(parts, fmt.Sprintf("seed %d", r.GetSeed()))
	word := a.verdict(r.GetVerdict())
	if r.GetState() != tcplabv1.RunState_RUN_STATE_SUCCEEDED {
		word = stateWord(r.GetState())
	}
	_, err := fmt.Fprintf(a.Out, "%s %s: %s\n", r.GetId(), word, strings.Join(parts, "; "))
	return err
}

// timeWord is the clock by which a run went, in words.
func timeWord(mode tcplabv1.TimeMode) string {
	if mode == tcplabv1.TimeMode_TIME_MODE_RELAXED {
		return "relaxed virtual time"
	}
	return "virtual time"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verdict is the verdict's word, in its colour.
func (a *app) verdict(v tcplabv1.Verdict) string {
	style := lipgloss.NewStyle().Bold(true)
	switch v {
	case tcplabv1.Verdict_VERDICT_PASSED:
		style = style.Foreground(lipgloss.Green)
	case tcplabv1.Verdict_VERDICT_FAILED:
		style = style.Foreground(lipgloss.Red)
	}
	return a.style(style, verdictWord(v))
}
