package cli

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// printOutcomes prints the flows that did not complete, with how they ended and, of the first
// trial where it did so, why, unless the run's failure tells it. A run whose flows all completed has no such table.
func (a *app) printOutcomes(r *tcplabv1.RunReport) error {
	type ending struct {
		point map[string]*structpb.Value
		flow  *tcplabv1.FlowResult
		times int
	}
	var endings []*ending
	seen := map[string]*ending{}
	var points []map[string]*structpb.Value
	for _, trial := range r.GetTrials() {
		points = append(points, trial.GetPoint())
		for _, f := range trial.GetFlows() {
			if f.GetOutcome() == tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED || f.GetError() == "" {
				continue
			}
			key := pointText(trial.GetPoint()) + " " + f.GetName() + " " + f.GetOutcome().String()
			if seen[key] == nil {
				seen[key] = &ending{point: trial.GetPoint(), flow: f}
				endings = append(endings, seen[key])
			}
			seen[key].times++
		}
	}
	if len(endings) == 0 {
		return nil
	}
	names := varying(paramNames(points), points)
	header := append(append([]string{}, names...), "flow", "outcome", "trials", "why")
	for i := range header {
		header[i] = strings.ToUpper(header[i])
	}
	var rows [][]string
	for _, e := range endings {
		var row []string
		for _, name := range names {
			row = append(row, param(e.point[name]))
		}
		why := e.flow.GetError()
		if strings.Contains(r.GetFailure(), why) {
			why = ""
		}
		rows = append(rows, append(row, e.flow.GetName(), outcomeWord(e.flow.GetOutcome()), strconv.Itoa(e.times), why))
	}
	if err := printTable(a.Out, header, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.Out)
	return err
}

// outcomeWord is how a flow ended, for people.
func outcomeWord(o tcplabv1.FlowOutcome) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(o.String(), "FLOW_OUTCOME_")), "_", " ")
}
