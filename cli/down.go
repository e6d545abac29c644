package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (a *app) downCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down NAME...|--all",
		Short: "Take standing labs away",
		Long: `Down ends the programs in a standing lab and takes the lab away. It returns when
nothing of it is left, which is within a second.`,
		Example: `  tcplab down handshake
  tcplab down --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usageError("`%s` takes the names of standing labs, or --all; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeStanding,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if all {
				var err error
				if names, err = a.standingLabs(); err != nil {
					return err
				}
			}
			return a.down(cmd.Context(), names)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of this user's")
	return cmd
}

// down takes labs away, all at once, and says which are gone.
func (a *app) down(ctx context.Context, names []string) error {
	errs := make([]error, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() error {
			errs[i] = a.takeDown(ctx, name)
			return nil
		})
	}
	_ = group.Wait()
	for i, name := range names {
		if errs[i] != nil {
			continue
		}
		if _, err := fmt.Fprintf(a.Out, "%s is down\n", name); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// completeStanding completes the names of standing labs.
func (a *app) completeStanding(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := a.standingLabs()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
