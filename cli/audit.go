package cli

import (
	"time"

	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) auditCommand() *cobra.Command {
	var output format
	var most int32
	cmd := &cobra.Command{
		Use:     "audit",
		Short:   "Show who asked a controller for what, and what came of it",
		Long:    "Audit prints each call that changes something, and each that was refused, newest first.",
		Example: "  tcplab audit --most 20 -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 1 || most > 1000 {
				return usageError("--most %d: want 1 to 1000", most)
			}
			return a.withFleet(cmd.Context(), func(c *connection) error {
				page, err := c.access.ListAuditEntries(cmd.Context(), &tcplabv1.ListAuditEntriesRequest{PageSize: most})
				if err != nil {
					return err
				}
				if output == formatJSON {
					return printMessage(a.Out, page)
				}
				var rows [][]string
				for _, e := range page.GetEntries() {
					rows = append(rows, []string{e.GetTime().AsTime().Local().Format(time.DateTime), e.GetWho(), e.GetAddress(), e.GetMethod(), e.GetTarget(), e.GetOutcome(), e.GetDetail()})
				}
				return printTable(a.Out, []string{"TIME", "WHO", "FROM", "WHAT", "OF", "OUTCOME", "WHY"}, rows)
			})
		},
	}
	cmd.Flags().Int32Var(&most, "most", 50, "how many at the most")
	outputFlag(cmd, &output)
	return cmd
}
