package cli

import "github.com/spf13/cobra"

// holdCommand is what `tcplab up` starts: nobody types it.
func (a *app) holdCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "hold NAME",
		Hidden: true,
		Args:   exactArgs("a name"),
		RunE:   func(cmd *cobra.Command, args []string) error { return a.hold(cmd.Context(), args[0]) },
	}
}
