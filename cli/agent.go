package cli

import (
	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/internal/identity"
)

// agentFlags are those of `tcplab agent`.
type agentFlags struct {
	join       string
	controller string
	name       string
	listen     string
}

func (a *app) agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Carry labs on this host at a controller's command",
		Long: `Agent serves a controller until it is interrupted; then all labs on this host go. It
dials the controller, so that it works behind NAT and firewalls, and dials again
whenever the connection breaks. With --listen the controller may dial it instead.

The first time it takes a token to join, which is exchanged for a certificate; key and
certificate stay in the state directory (default /var/lib/tcplab/agent). After that
"tcplab agent" alone goes on. What labs may do on this host stands in
/etc/tcplab/agent.yaml, and nothing that a controller sends widens it.`,
		Example: `  tcplab agent --controller lab1.example:7443 --join TOKEN
  tcplab agent
  tcplab agent leave`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.name != "" && !identity.ValidName(f.name) {
				return usageError("--name %q: want 1 to %d of a-z, 0-9, dot, hyphen and underscore", f.name, identity.MaxName)
			}
			if f.listen != "" {
				if err := checkAddress("--listen", f.listen); err != nil {
					return err
				}
			}
			return a.serveAgent(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.join, "join", "", "the `TOKEN` to join with, the first time; - for standard input")
	flags.StringVar(&f.controller, "controller", "", "the controller's `ADDRESS`, host:port, when joining or where it has moved")
	flags.StringVar(&f.name, "name", "", "what this host is called (default: the token's name, or the machine's)")
	flags.StringVar(&f.listen, "listen", "", "`ADDRESS` at which the controller dials this agent; it does not dial then")
	cmd.AddCommand(a.agentLeaveCommand(), a.agentRollbackCommand())
	return cmd
}

func (a *app) agentLeaveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the controller, and forget key and certificate",
		Long: `Leave has the controller revoke this host's certificate and forget the host, undoes what
an agent left at the host's interfaces, and deletes key and certificate. The agent must
have ended. Results that the controller has not fetched stay in the spool.`,
		Example: "  tcplab agent leave",
		Args:    exactArgs(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.leaveAgent(cmd.Context(), force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where the controller does not answer")
	return cmd
}

func (a *app) agentRollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback",
		Short: "Undo what an agent that died left at this host's interfaces",
		Long: `Rollback undoes what the journals of agents that died say they did to this host's own
interfaces. Agents that live are left alone, and where there is nothing to undo
nothing is done. systemd calls it after an agent ended in any way (ExecStopPost).`,
		Example: "  tcplab agent rollback",
		Args:    exactArgs(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.rollbackAgent(cmd.Context()) },
	}
}
