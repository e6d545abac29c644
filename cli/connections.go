package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// printConnections prints what became of the connections of each connect flow: counts of all trials of a
// point together, rates and times of the trial with the median rate. A run without such flows has no such
// table.
func (a *app) printConnections(r *tcplabv1.RunReport) error {
	type group struct {
		point map[string]*structpb.Value
		flows []*tcplabv1.FlowResult
	}
	var groups []*group
	seen := map[string]*group{}
	var points []map[string]*structpb.Value
	for _, trial := range r.GetTrials() {
		points = append(points, trial.GetPoint())
		for _, f := range trial.GetFlows() {
			if f.GetConnections() == nil {
				continue
			}
			key := pointText(trial.GetPoint()) + " " + f.GetName()
			if seen[key] == nil {
				seen[key] = &group{point: trial.GetPoint()}
				groups = append(groups, seen[key])
			}
			seen[key].flows = append(seen[key].flows, f)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	names := varying(paramNames(points), points)
	header := append(append([]string{}, names...), "flow", "made", "failed", "a second", "connect p50", "p99", "errors")
	for i := range header {
		header[i] = strings.ToUpper(header[i])
	}
	var rows [][]string
	for _, g := range groups {
		var row []string
		for _, name := range names {
			row = append(row, param(g.point[name]))
		}
		var made, failed uint64
		errors := &tcplabv1.ConnectionErrors{}
		for _, f := range g.flows {
			made += f.GetConnections().GetMade()
			failed += f.GetConnections().GetFailed()
			addErrors(errors, f.GetConnections().GetErrors())
		}
		slices.SortFunc(g.flows, func(a, b *tcplabv1.FlowResult) int {
			return cmp.Compare(a.GetConnections().GetRate(), b.GetConnections().GetRate())
		})
		median := g.flows[len(g.flows)/2]
		rate, p50, p99 := "", "", ""
		if c := median.GetConnect(); c.GetCount() > 0 {
			rate = strconv.FormatFloat(median.GetConnections().GetRate(), 'f', 0, 64)
			p50, p99 = quantity(c.GetP50().AsDuration().Seconds(), "s"), quantity(c.GetP99().AsDuration().Seconds(), "s")
		}
		rows = append(rows, append(row, median.GetName(), strconv.FormatUint(made, 10), strconv.FormatUint(failed, 10), rate, p50, p99, errorsText(errors)))
	}
	if err := printTable(a.Out, header, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.Out)
	return err
}

// addErrors adds counts to a sum, field by field.
func addErrors(sum, more *tcplabv1.ConnectionErrors) {
	to := sum.ProtoReflect()
	more.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(fd, protoreflect.ValueOfUint64(to.Get(fd).Uint()+v.Uint()))
		return true
	})
}

// errorsText is what failed connections, each with its number: "3 refused, 1 timed out".
func errorsText(e *tcplabv1.ConnectionErrors) string {
	var parts []string
	message := e.ProtoReflect()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		if n := message.Get(fields.Get(i)).Uint(); n > 0 && fields.Get(i).Name() != "total" {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(fields.Get(i).Name()), "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}
