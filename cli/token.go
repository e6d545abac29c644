package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultTTL is how long a token works that says nothing else (CreateTokenRequest.ttl).
const defaultTTL = 10 * time.Minute

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Let hosts into a fleet",
		Example: `  tcplab token create --ttl 10m --host host-a
  tcplab token list`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenDeleteCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var ttl time.Duration
	var host string
	var output format
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token with which one host joins, once",
		Long: `Create prints a token that works once, until it expires. It pins the controller's
certificate authority, so that the host that joins with it knows whom it joins. With
--host it is for that name alone, and a host of that name that is in already joins anew.`,
		Example: "  tcplab token create --ttl 10m --host host-a",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				created, err := c.access.CreateToken(cmd.Context(), &tcplabv1.CreateTokenRequest{
					Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: host, Ttl: durationpb.New(ttl),
				})
				if err != nil {
					return err
				}
				return a.printToken(created, output, "on the host: tcplab agent --controller ADDRESS --join TOKEN")
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", defaultTTL, "how long it works, 1s to 720h")
	cmd.Flags().StringVar(&host, "host", "", "the `NAME` of the host that it is for (default: the host chooses)")
	outputFlag(cmd, &output)
	return cmd
}

// printToken prints a token, alone on standard output, and how it is used beside.
func (a *app) printToken(created *tcplabv1.CreateTokenResponse, f format, use string) error {
	if f == formatJSON {
		return printMessage(a.Out, created)
	}
	if _, err := fmt.Fprintln(a.Out, created.GetSecret()); err != nil {
		return err
	}
	a.printf("works once, until %s; %s\n", created.GetToken().GetExpireTime().AsTime().Local().Format(time.DateTime), use)
	return nil
}

func (a *app) tokenListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens that still work, without their secrets",
		Example: "  tcplab token list -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				all := &tcplabv1.ListTokensResponse{}
				for token := ""; ; {
					page, err := c.access.ListTokens(cmd.Context(), &tcplabv1.ListTokensRequest{PageToken: token})
					if err != nil {
						return err
					}
					all.Tokens = append(all.Tokens, page.GetTokens()...)
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				if output == formatJSON {
					return printMessage(a.Out, all)
				}
				var rows [][]string
				for _, t := range all.GetTokens() {
					p := t.GetPrincipal()
					role := ""
					if p.GetRole() != 0 {
						role = roleWord(p.GetRole())
					}
					rows = append(rows, []string{
						t.GetId(), enumWord(p.GetKind(), "PRINCIPAL_KIND_"), p.GetName(), role, p.GetCreator(),
						t.GetExpireTime().AsTime().Local().Format(time.DateTime),
					})
				}
				return printTable(a.Out, []string{"TOKEN", "FOR", "NAME", "ROLE", "BY", "UNTIL"}, rows)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) tokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "delete TOKEN",
		Short:   "Make a token void",
		Long:    "Delete makes a token void that was not used yet. TOKEN is its ID, as list prints it.",
		Example: "  tcplab token delete 5f2c9a10bb37",
		Args:    exactArgs("a token's ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				_, err := c.access.DeleteToken(cmd.Context(), &tcplabv1.DeleteTokenRequest{Id: strings.TrimSpace(args[0])})
				return err
			})
		},
	}
}
