package cli

import (
	"fmt"
	"os"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) doctorCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, and what to do about what it cannot",
		Long: `Doctor tries what labs need of a host: privilege, queueing disciplines, ports,
congestion controls, clocks. It says which engine "auto" takes and why, and
for each thing missing what to do about it. It exits 3 where no lab can run.`,
		Example: "  tcplab doctor -o json | jq .auto_engine",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What an ordinary user can do here is what a run could do, in a user
			// namespace of its own.
			if status, entered, err := a.enterUserNamespace(cmd.Context()); entered {
				if err == nil && status != 0 {
					err = &statusError{status: status}
				}
				return err
			}
			dir, err := os.MkdirTemp("", "tcplab-doctor-")
			if err != nil {
				return fmt.Errorf("make a folder to look from: %w", err)
			}
			defer os.RemoveAll(dir)
			lab, err := a.openEmbedded(cmd.Context(), embeddedOptions{drive: true, stateDir: dir})
			if err != nil {
				return err
			}
			got, err := lab.agent.GetHost(cmd.Context(), &tcplabv1.GetHostRequest{})
			if closeErr := lab.close(); err == nil {
				err = closeErr
			}
			if err != nil {
				return err
			}
			host := got.GetHost()
			if output == formatJSON {
				err = printMessage(a.Out, host)
			} else {
				err = a.printHost(host)
			}
			if err != nil {
				return err
			}
			for _, c := range host.GetCapabilities() {
				if c.GetState() == tcplabv1.CapabilityState_CAPABILITY_STATE_REQUIRED {
					return &statusError{status: exitHost, message: "no lab can run here: " + c.GetName() + ": " + c.GetDetail(), remedy: c.GetRemedy()}
				}
			}
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) printHost(host *tcplabv1.Host) error {
	var b strings.Builder
	k := host.GetKernel()
	fmt.Fprintf(&b, "%s: Linux %s, HZ %d, %s; tcplab %s\n", host.GetName(), k.GetRelease(), k.GetHz(), plural(int(host.GetCpus()), "CPU"), host.GetAgentVersion())
	fmt.Fprintf(&b, "congestion control: %s (default %s)\n", strings.Join(k.GetCongestionControls(), ", "), k.GetDefaultCongestionControl())
	fmt.Fprintf(&b, "engine auto takes %s\n", host.GetAutoEngineReason())
	group, width := "", 0
	for _, c := range host.GetCapabilities() {
		width = max(width, len(c.GetName()))
	}
	for _, c := range host.GetCapabilities() {
		if c.GetGroup() != group {
			group = c.GetGroup()
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		mark, colour := "✓", lipgloss.Green
		switch c.GetState() {
		case tcplabv1.CapabilityState_CAPABILITY_STATE_MISSING:
			mark, colour = "–", lipgloss.Yellow
		case tcplabv1.CapabilityState_CAPABILITY_STATE_REQUIRED:
			mark, colour = "✗", lipgloss.Red
		}
		line := fmt.Sprintf("  %s %-*s  %s", a.style(lipgloss.NewStyle().Foreground(colour), mark), width, c.GetName(), c.GetDetail())
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		if c.GetRemedy() != "" {
			fmt.Fprintf(&b, "    %*s  to do: %s\n", width, "", c.GetRemedy())
		}
	}
	_, err := fmt.Fprint(a.Out, b.String())
	return err
}
