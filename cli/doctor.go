package cli

import (
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
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
			if status, entered, err := a.enterUserNamespace(cmd.Context(), a.In); entered {
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
			virtual, err := a.virtualCapability()
			if err != nil {
				return err
			}
			host.Capabilities = append(host.Capabilities, virtual)
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
	width := 0
	for _, c := range host.GetCapabilities() {
		width = max(width, len(c.GetName()))
	}
	for group := range groups(host.GetCapabilities()) {
		fmt.Fprintf(&b, "\n%s\n", group[0].GetGroup())
		for _, c := range group {
			line := fmt.Sprintf("  %s %-*s  %s", a.mark(c.GetState()), width, c.GetName(), c.GetDetail())
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		for _, r := range remedies(group) {
			const indent = "      "
			text := wrap(fmt.Sprintf("To do about %s: %s", strings.Join(r.about, ", "), r.text), doctorColumns-len(indent))
			b.WriteString("    " + strings.ReplaceAll(text, "\n", "\n"+indent) + "\n")
		}
	}
	_, err := fmt.Fprint(a.Out, b.String())
	return err
}

// wrap breaks a text into lines between words, and never at a hyphen: what is to be typed stays whole.
func wrap(text string, columns int) string {
	const unbreakable = "\u2011"
	return strings.ReplaceAll(ansi.Wordwrap(strings.ReplaceAll(text, "-", unbreakable), columns, ""), unbreakable, "-")
}

// doctorColumns is the width to which doctor wraps what there is to do.
const doctorColumns = 100

// mark is a capability's state as a sign.
func (a *app) mark(state tcplabv1.CapabilityState) string {
	switch state {
	case tcplabv1.CapabilityState_CAPABILITY_STATE_MISSING:
		return a.style(lipgloss.NewStyle().Foreground(lipgloss.Yellow), "–")
	case tcplabv1.CapabilityState_CAPABILITY_STATE_REQUIRED:
		return a.style(lipgloss.NewStyle().Foreground(lipgloss.Red), "✗")
	default:
		return a.style(lipgloss.NewStyle().Foreground(lipgloss.Green), "✓")
	}
}

// groups yields runs of capabilities that belong to one group.
func groups(all []*tcplabv1.Capability) iter.Seq[[]*tcplabv1.Capability] {
	return func(yield func([]*tcplabv1.Capability) bool) {
		for len(all) > 0 {
			n := 1
			for n < len(all) && all[n].GetGroup() == all[0].GetGroup() {
				n++
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// remedy is something to do, and the capabilities that it brings.
type remedy struct {
	text  string
	about []string
}

// remedies lists each thing to do once.
func remedies(group []*tcplabv1.Capability) []remedy {
	var all []remedy
	for _, c := range group {
		if c.GetRemedy() == "" {
			continue
		}
		i := slices.IndexFunc(all, func(r remedy) bool { return r.text == c.GetRemedy() })
		if i < 0 {
			i = len(all)
			all = append(all, remedy{text: c.GetRemedy()})
		}
		all[i].about = append(all[i].about, c.GetName())
	}
	return all
}
