package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) runsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List, show, watch and cancel runs",
		Example: `  tcplab runs list
  tcplab runs show last
  tcplab runs show nagle-7k -o json
  tcplab runs watch last
  tcplab runs cancel last`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.runsListCommand(), a.runsShowCommand(), a.runsWatchCommand(), a.runsCancelCommand())
	return cmd
}

// withRuns calls fn with the service that knows this host's runs: the one
// that drives a run right now, or else one opened for the occasion; or the runs of the context's controller.
func (a *app) withRuns(ctx context.Context, fn func(context.Context, tcplabv1.RunServiceClient) error) error {
	remote, err := a.openContext(ctx)
	if err != nil {
		return err
	}
	if remote != nil {
		defer remote.closeQuietly()
		return fn(ctx, remote.runs)
	}
	lab, err := a.openEmbedded(ctx, embeddedOptions{})
	if err != nil {
		return err
	}
	err = fn(ctx, lab.runs)
	if closeErr := lab.close(); err == nil {
		err = closeErr
	}
	return err
}

func (a *app) runsListCommand() *cobra.Command {
	var output format
	var lab string
	var labels []string
	var most int32
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List runs, newest first",
		Example: "  tcplab runs list --lab nagle --label host=alpha",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := (&runFlags{engine: "auto", labels: labels}).options()
			if err != nil {
				return err
			}
			if most < 1 || most > 1000 {
				return usageError("--most %d: want 1 to 1000", most)
			}
			return a.withRuns(cmd.Context(), func(ctx context.Context, runs tcplabv1.RunServiceClient) error {
				page, err := runs.ListRuns(ctx, &tcplabv1.ListRunsRequest{PageSize: most, Lab: lab, Labels: options.GetLabels()})
				if err != nil {
					return err
				}
				return a.printRuns(page, output)
			})
		},
	}
	cmd.Flags().StringVar(&lab, "lab", "", "only runs of this lab")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only runs with this `name=value`")
	cmd.Flags().Int32Var(&most, "most", 50, "how many runs at the most")
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) printRuns(page *tcplabv1.ListRunsResponse, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, page)
	}
	if len(page.GetRuns()) == 0 {
		a.printf("no runs yet; `tcplab run handshake` makes one\n")
		return nil
	}
	var rows [][]string
	for _, run := range page.GetRuns() {
		elapsed := ""
		if run.GetEndTime() != nil && run.GetStartTime() != nil {
			elapsed = quantity(run.GetEndTime().AsTime().Sub(run.GetStartTime().AsTime()).Seconds(), "s")
		}
		rows = append(rows, []string{
			run.GetId(), stateWord(run.GetState()),
			fmt.Sprintf("%d/%d", run.GetTrialsDone(), run.GetTrialsCount()), engineWord(run.GetEngine()),
			run.GetCreateTime().AsTime().Local().Format(time.DateTime), elapsed, a.verdict(run.GetVerdict()),
		})
	}
	return printTable(a.Out, []string{"RUN", "STATE", "TRIALS", "ENGINE", "CREATED", "TOOK", "VERDICT"}, rows)
}

func (a *app) runsShowCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "show RUN",
		Short:   "Show what a run found",
		Long:    "Show prints a run's report. RUN is its ID, an unambiguous prefix of it, or \"last\".",
		Example: "  tcplab runs show last",
		Args:    exactArgs("a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRuns(cmd.Context(), func(ctx context.Context, runs tcplabv1.RunServiceClient) error {
				got, err := runs.GetRunReport(ctx, &tcplabv1.GetRunReportRequest{RunId: args[0]})
				if err != nil {
					return err
				}
				report := got.GetReport()
				if output == formatTable {
					if _, err := fmt.Fprintf(a.Out, "%s\n\n", strings.TrimSpace(report.GetId()+": "+report.GetTitle())); err != nil {
						return err
					}
				}
				if err := a.printReport(report, output); err != nil {
					return err
				}
				if output == formatTable && report.GetState() == tcplabv1.RunState_RUN_STATE_FAILED {
					_, err = fmt.Fprintf(a.Out, "%s\n", report.GetFailure())
				}
				return err
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) runsCancelCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "cancel RUN",
		Short:   "Stop a run",
		Long:    "Cancel stops a run that is under way or waits. RUN is its ID, an unambiguous prefix of it, or \"last\".",
		Example: "  tcplab runs cancel last",
		Args:    exactArgs("a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRuns(cmd.Context(), func(ctx context.Context, runs tcplabv1.RunServiceClient) error {
				got, err := runs.CancelRun(ctx, &tcplabv1.CancelRunRequest{RunId: args[0]})
				if err != nil {
					return err
				}
				run := got.GetRun()
				if output == formatJSON {
					return printMessage(a.Out, run)
				}
				if run.GetEndTime() != nil && run.GetState() != tcplabv1.RunState_RUN_STATE_CANCELLED {
					_, err = fmt.Fprintf(a.Out, "%s had ended already: %s\n", run.GetId(), stateWord(run.GetState()))
					return err
				}
				_, err = fmt.Fprintf(a.Out, "%s is cancelled\n", run.GetId())
				return err
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
