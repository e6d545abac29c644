package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) hostsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "List, show, drain, label and remove the hosts of a fleet",
		Example: `  tcplab hosts list
  tcplab hosts show host-a
  tcplab hosts label host-a zone=a rack=
  tcplab hosts drain host-a`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.hostsListCommand(), a.hostsShowCommand(), a.hostsDrainCommand(), a.hostsLabelCommand(), a.hostsListenCommand(), a.hostsRemoveCommand())
	return cmd
}

func (a *app) hostsListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List hosts",
		Example: "  tcplab hosts list -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				all := &tcplabv1.ListHostsResponse{}
				for token := ""; ; {
					page, err := c.hosts.ListHosts(cmd.Context(), &tcplabv1.ListHostsRequest{PageToken: token, PageSize: 1000})
					if err != nil {
						return err
					}
					all.Hosts = append(all.Hosts, page.GetHosts()...)
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				return a.printHosts(all, output)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) printHosts(all *tcplabv1.ListHostsResponse, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, all)
	}
	if len(all.GetHosts()) == 0 {
		a.printf("no host has joined; `tcplab token create` lets one in\n")
		return nil
	}
	var rows [][]string
	for _, h := range all.GetHosts() {
		rows = append(rows, []string{
			h.GetName(), hostState(h), h.GetAddress(), engineWord(h.GetHost().GetAutoEngine()), h.GetHost().GetKernel().GetRelease(),
			fmt.Sprint(h.GetHost().GetCpus()), fmt.Sprint(len(h.GetUses())), labelText(h.GetLabels()), h.GetHost().GetAgentVersion(),
		})
	}
	return printTable(a.Out, []string{"HOST", "STATE", "ADDRESS", "ENGINE", "KERNEL", "CPUS", "USES", "LABELS", "VERSION"}, rows)
}

// hostState is how a host is, in words.
func hostState(h *tcplabv1.FleetHost) string {
	state := "away"
	if h.GetConnected() {
		state = "connected"
	}
	if h.GetDrained() {
		state += ", drained"
	}
	return state
}

func labelText(labels map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, name+"="+labels[name])
	}
	return strings.Join(words, " ")
}

func (a *app) hostsShowCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:               "show HOST",
		Short:             "Show what is known of a host",
		Example:           "  tcplab hosts show host-a -o json | jq .clock",
		Args:              exactArgs("a host"),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				got, err := c.hosts.GetHost(cmd.Context(), &tcplabv1.HostServiceGetHostRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if output == formatJSON {
					return printMessage(a.Out, got.GetHost())
				}
				return a.printFleetHost(got.GetHost())
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) printFleetHost(h *tcplabv1.FleetHost) error {
	rows := [][]string{
		{"state", fmt.Sprintf("%s since %s", hostState(h), h.GetSince().AsTime().Local().Format(time.DateTime))},
		{"joined", h.GetCreateTime().AsTime().Local().Format(time.DateTime)},
	}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("address", h.GetAddress())
	add("listens", h.GetListenAddress())
	add("labels", labelText(h.GetLabels()))
	add("uses", strings.Join(h.GetUses(), " "))
	if c := h.GetClock(); c != nil {
		add("clock", fmt.Sprintf("%v from the controller's, ± %v; round trip %v, drift %.1f ppm",
			c.GetOffset().AsDuration(), c.GetError().AsDuration(), c.GetRoundTrip().AsDuration(), c.GetDrift()*1e6))
	}
	if err := printTable(a.Out, []string{"HOST", h.GetName()}, rows); err != nil {
		return err
	}
	if len(h.GetHost().GetCapabilities()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return a.printHost(h.GetHost())
}

// completeHosts completes the names of hosts.
func (a *app) completeHosts(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), listWithin)
	defer cancel()
	err := a.withFleet(ctx, func(c *connection) error {
		page, err := c.hosts.ListHosts(ctx, &tcplabv1.ListHostsRequest{PageSize: 1000})
		for _, h := range page.GetHosts() {
			names = append(names, h.GetName())
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// updateHost changes a host.
func (a *app) updateHost(ctx context.Context, request *tcplabv1.UpdateHostRequest) error {
	return a.withFleet(ctx, func(c *connection) error {
		_, err := c.hosts.UpdateHost(ctx, request)
		return err
	})
}

func (a *app) hostsDrainCommand() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:               "drain HOST",
		Short:             "Let a host take no new labs",
		Long:              "Drain keeps new labs from a host. What stands and runs on it goes on. --undo lets it take labs again.",
		Example:           "  tcplab hosts drain host-a",
		Args:              exactArgs("a host"),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			drained := !undo
			return a.updateHost(cmd.Context(), &tcplabv1.UpdateHostRequest{Name: args[0], Drained: &drained})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it take labs again")
	return cmd
}

func (a *app) hostsLabelCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "label HOST NAME=VALUE...",
		Short:             "Set or remove labels by which labs find hosts",
		Long:              "Label sets labels; NAME= removes one. A node with `on: zone=a` goes to a host that has the label.",
		Example:           "  tcplab hosts label host-a zone=a rack=",
		ValidArgsFunction: a.completeHosts,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError("`%s` takes a host and labels; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &tcplabv1.UpdateHostRequest{Name: args[0], Labels: make(map[string]string)}
			for _, label := range args[1:] {
				name, value, ok := strings.Cut(label, "=")
				if !ok || name == "" {
					return usageError("label %q: want name=value, or name= to remove it", label)
				}
				request.Labels[name] = value
			}
			return a.updateHost(cmd.Context(), request)
		},
	}
}

func (a *app) hostsListenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "listen HOST [ADDRESS]",
		Short: "Have the controller dial a host whose agent listens",
		Long: `Listen tells the controller where an agent listens (tcplab agent --listen), so that
it dials the agent and not the agent it. Without ADDRESS it does so no more.`,
		Example:           "  tcplab hosts listen host-a 192.0.2.7:7444",
		ValidArgsFunction: a.completeHosts,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError("`%s` takes a host and an address; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			address := ""
			if len(args) == 2 {
				address = args[1]
				if err := checkAddress("ADDRESS", address); err != nil {
					return err
				}
			}
			return a.updateHost(cmd.Context(), &tcplabv1.UpdateHostRequest{Name: args[0], ListenAddress: &address})
		},
	}
}

func (a *app) hostsRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "remove HOST",
		Short:             "Revoke a host's certificate, and forget the host",
		Long:              "Remove ends a host's sessions at once. What stands on it goes when its lease ends.",
		Example:           "  tcplab hosts remove host-a",
		Args:              exactArgs("a host"),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFleet(cmd.Context(), func(c *connection) error {
				_, err := c.hosts.RemoveHost(cmd.Context(), &tcplabv1.RemoveHostRequest{Name: args[0]})
				return err
			})
		},
	}
}
