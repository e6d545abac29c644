package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tcplab/tcplab/labs/draw"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// dryRun prints what a run would do. It touches neither the state directory
// nor the network: its lab stands on a folder that goes again. Where a user may
// build labs in a user namespace of their own, it looks at the host from there.
func (a *app) dryRun(ctx context.Context, f *runFlags, stdin io.Reader, request *tcplabv1.PlanRunRequest) error {
	if status, entered, err := a.enterUserNamespace(ctx, stdin); entered && err == nil {
		if status != 0 {
			return &statusError{status: status}
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "tcplab-plan-")
	if err != nil {
		return fmt.Errorf("make a folder to plan in: %w", err)
	}
	defer os.RemoveAll(dir)
	lab, err := a.openEmbedded(ctx, embeddedOptions{drive: true, stateDir: dir})
	if err != nil {
		return err
	}
	response, err := lab.runs.PlanRun(ctx, request)
	var host *tcplabv1.GetHostResponse
	if err == nil {
		host, err = lab.agent.GetHost(ctx, &tcplabv1.GetHostRequest{})
	}
	if closeErr := lab.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	plan := response.GetPlan()
	if f.output == formatJSON {
		return printMessage(a.Out, plan)
	}
	return a.printPlan(plan, host.GetHost(), request.GetOptions().GetEngine())
}

func (a *app) printPlan(plan *tcplabv1.RunPlan, host *tcplabv1.Host, asked tcplabv1.Engine) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", plan.GetLab(), plan.GetTitle())
	lab := plan.GetPoints()[0].GetLab()
	b.WriteString("Topology\n")
	for line := range strings.Lines(draw.Text(lab, directionWords)) {
		b.WriteString("  " + line)
	}
	if len(plan.GetPoints()) > 1 {
		b.WriteString("  (shapes as at the first parameter point)\n")
	}
	engine := engineWord(asked) + ", as asked"
	if asked == tcplabv1.Engine_ENGINE_AUTO {
		engine = host.GetAutoEngineReason()
	}
	fmt.Fprintf(&b, "\nEngine of shaped links\n  %s\n\nTrials\n", engine)
	points := pointsOf(plan.GetPoints())
	names := varying(paramNames(points), points)
	if same := pointText(without(points[0], names)); same != "" {
		fmt.Fprintf(&b, "  %s\n", same)
	}
	for i, p := range plan.GetPoints() {
		line := "  " + plural(int(plan.GetRepeat()), "trial")
		var values []string
		for _, name := range names {
			values = append(values, name+"="+param(points[i][name]))
		}
		if len(values) > 0 {
			line += " at " + strings.Join(values, " ")
		}
		fmt.Fprintf(&b, "%s, %s each\n", line, about(p.GetEstimate().AsDuration()))
	}
	fmt.Fprintf(&b, "\n%s, %s\n", plural(int(plan.GetTrialsCount()), "trial"), about(plan.GetEstimate().AsDuration()))
	_, err := fmt.Fprint(a.Out, b.String())
	return err
}
