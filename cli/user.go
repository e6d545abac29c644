package cli

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Let people and programs into a controller, and out",
		Example: `  tcplab user invite alice --role operator --exec
  tcplab user list
  tcplab user remove alice`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.userInviteCommand(), a.userListCommand(), a.userUpdateCommand(), a.userRemoveCommand())
	return cmd
}

// roleFlags are those of a user's rights.
type roleFlags struct {
	role string
	exec bool
}

func (f *roleFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.role, "role", "viewer", "what the user may do: viewer (see), operator (run labs, have them stand, change links), admin (all)")
	cmd.Flags().BoolVar(&f.exec, "exec", false, "and run programs in nodes, where a host's own policy permits it")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) userInviteCommand() *cobra.Command {
	var ttl time.Duration
	var rights roleFlags
	var output format
	cmd := &cobra.Command{
		Use:     "invite NAME",
		Short:   "Make a token with which one user joins, once",
		Long:    "Invite prints a token for `tcplab context add`. It works once, until it expires.",
		Example: "  tcplab user invite alice --role operator --exec --ttl 24h",
		Args:    exactArgs("the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			role, err := parseRole(rights.role)
			if err != nil {
				return err
			}
			return a.withFleet(cmd.Context(), func(c *connection) error {
				created, err := c.access.CreateToken(cmd.Context(), &tcplabv1.CreateTokenRequest{
					Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_USER, Name: args[0], Role: role, Exec: rights.exec, Ttl: durationpb.New(ttl),
				})
				if err != nil {
					return err
				}
				return a.printToken(created, output, "on "+args[0]+"'s machine: tcplab context add NAME --controller ADDRESS --join TOKEN")
			})
		},
	}
	rights.add(cmd)
	cmd.Flags().DurationVar(&ttl, "ttl", defaultTTL, "how long the token works, 1s to 720h")
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) userListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users",
		Example: "  tcplab user list -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				all := &tcplabv1.ListUsersResponse{}
				for token := ""; ; {
					page, err := c.access.ListUsers(cmd.Context(), &tcplabv1.ListUsersRequest{PageToken: token})
					if err != nil {
						return err
					}
					all.Users = append(all.Users, page.GetUsers()...)
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				return a.printUsers(all, output)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) printUsers(all *tcplabv1.ListUsersResponse, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, all)
	}
	var rows [][]string
	for _, u := range all.GetUsers() {
		exec := ""
		if u.GetExec() {
			exec = "yes"
		}
		rows = append(rows, []string{u.GetName(), roleWord(u.GetRole()), exec, u.GetCreateTime().AsTime().Local().Format(time.DateTime), u.GetCreator()})
	}
	return printTable(a.Out, []string{"USER", "ROLE", "EXEC", "SINCE", "BY"}, rows)
}

func (a *app) userUpdateCommand() *cobra.Command {
	var rights roleFlags
	cmd := &cobra.Command{
		Use:     "update NAME",
		Short:   "Change what a user may do",
		Long:    "Update sets a user's rights to what the flags say. It holds from the next call on; where a right is taken the user's streams end.",
		Example: "  tcplab user update alice --role viewer",
		Args:    exactArgs("the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			role, err := parseRole(rights.role)
			if err != nil {
				return err
			}
			return a.withFleet(cmd.Context(), func(c *connection) error {
				_, err := c.access.UpdateUser(cmd.Context(), &tcplabv1.UpdateUserRequest{Name: args[0], Role: role, Exec: rights.exec})
				return err
			})
		},
	}
	rights.add(cmd)
	return cmd
}

func (a *app) userRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "Revoke a user's certificate, and end its streams",
		Example: "  tcplab user remove alice",
		Args:    exactArgs("the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				_, err := c.access.RemoveUser(cmd.Context(), &tcplabv1.RemoveUserRequest{Name: args[0]})
				return err
			})
		},
	}
}
