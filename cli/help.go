package cli

import (
	"github.com/spf13/cobra"
)

// helpCommand is what `tcplab help runs show` runs.
func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Say how a command is used",
		Example: "  tcplab help runs show",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError("there is no command %q; `%s --help` lists them", args[0], cmd.Root().CommandPath())
			}
			if err := groupArgs(found, rest); err != nil {
				return err
			}
			found.InitDefaultHelpFlag() // as if it ran
			return found.Help()
		},
	}
}

// groupArgs refuses what is left where a group of commands has no such command.
func groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("there is no command %q; `%s --help` lists them", args[0], cmd.CommandPath())
	}
	return nil
}
