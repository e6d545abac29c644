package cli

import (
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/internal/identity"
)

// controllerFlags are those of `tcplab controller`.
type controllerFlags struct {
	listen []string
	name   string
	life   time.Duration
	lease  time.Duration
}

func (a *app) controllerCommand() *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Command a fleet of hosts, for users elsewhere",
		Long: `Controller serves users and agents by mutual TLS until it is interrupted. At its first
start it makes its certificate authority in the state directory (default
/var/lib/tcplab/controller). Root of this machine needs no certificate: it speaks to the
controller by a socket there, and lets in everybody else.

Runs outlive it: one that starts again takes up those under way.`,
		Example: `  tcplab controller --listen :7443
  tcplab controller --listen 10.0.0.1:7443    # then, as root there: tcplab user invite alice --role admin`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !identity.ValidName(f.name) {
				return usageError("--name %q: want 1 to %d of a-z, 0-9, dot, hyphen and underscore", f.name, identity.MaxName)
			}
			if f.life < 0 || f.lease < time.Second || f.lease > 24*time.Hour {
				return usageError("--certificate-life wants a time above 0, and --lease 1s to 24h")
			}
			return a.serveController(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.listen, "listen", []string{":" + defaultPort}, "`ADDRESS` to serve users and agents at")
	flags.StringVar(&f.name, "name", machineName(), "what it is called in its certificate")
	flags.DurationVar(&f.life, "certificate-life", 30*24*time.Hour, "how long certificates last, which are renewed at half of it")
	flags.DurationVar(&f.lease, "lease", time.Minute, "how long a host keeps a lab without hearing of the controller")
	return cmd
}

// machineName is this machine's name as a program can be called after it.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	name = regexp.MustCompile(`[^a-z0-9._-]`).ReplaceAllString(strings.ToLower(name), "-")
	name = strings.TrimLeft(name, "._-")
	if len(name) > identity.MaxName {
		name = name[:identity.MaxName]
	}
	if name == "" {
		return "localhost"
	}
	return name
}
