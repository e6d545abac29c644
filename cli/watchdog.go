package cli

import "github.com/spf13/cobra"

// watchdogName is the command that an agent starts; people have no use for it.
const watchdogName = "watchdog"

// watchdogCommand outlives the agent that starts it, and undoes what that left at
// the host's interfaces.
func (a *app) watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    watchdogName + " DIR PID",
		Short:  "Undo what an agent that dies leaves at the host's interfaces (agents start it)",
		Hidden: true,
		Args:   exactArgs("DIR", "PID"),
		RunE:   func(_ *cobra.Command, args []string) error { return a.watch(args) },
	}
}
