package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/internal/uml/kernel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) kernelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Build and keep the guest kernels of virtual time",
		Long: `A run in virtual time (tcplab run LAB --virtual) takes a guest kernel: user-mode
Linux with time travel, built from the source of a Debian kernel with the few
things that labs need. It is an ordinary program, and runs as an ordinary user.`,
		Example: `  tcplab kernel build --install
  tcplab kernel list`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.kernelBuildCommand(), a.kernelListCommand(), a.kernelRemoveCommand())
	return cmd
}

// virtualCapability is whether labs can run in virtual time here.
func (a *app) virtualCapability() (*tcplabv1.Capability, error) {
	folders, err := a.kernelFolders()
	if err != nil {
		return nil, err
	}
	c := &tcplabv1.Capability{Name: "virtual", Group: "clock", State: tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT}
	k, err := kernel.Find(folders...)
	if errors.Is(err, kernel.ErrNone) {
		c.State, c.Detail = tcplabv1.CapabilityState_CAPABILITY_STATE_MISSING, err.Error()
		c.Remedy = "Build the guest kernel, which takes some minutes once: tcplab kernel build --install. Labs run by the real clock without it."
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.Detail = fmt.Sprintf("labs run in virtual time: guest kernel %s, configuration %s", k.Release, k.ConfigHash)
	return c, nil
}

func (a *app) kernelBuildCommand() *cobra.Command {
	var o kernel.Options
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the guest kernel, once for each source and configuration",
		Long: `Build compiles the guest kernel, which takes some minutes and 2 GiB of disk while it
lasts. What is built already is found and not built again. Root's kernels serve
all users (/var/cache/tcplab/kernels); an ordinary user has their own
($XDG_CACHE_HOME/tcplab/kernels). TCPLAB_KERNEL_DIR names another folder.

What the build takes and this machine lacks is listed, each with its Debian
package; --install has apt install it. Where a step fails its log is kept.`,
		Example: `  tcplab kernel build --install
  tcplab kernel build --source linux-source-6.1
  tcplab kernel build --source ~/src/linux --jobs 8`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.kernelBuild(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Source, "source", "", "a `package` linux-source-VERSION, an archive or a folder with a kernel's source (default: the newest package there is)")
	flags.BoolVar(&o.Install, "install", false, "have apt install what is missing; takes root")
	flags.BoolVar(&o.Force, "force", false, "build it anew where it is built")
	flags.IntVar(&o.Jobs, "jobs", 0, "how many compilers run at once (default: one a processor)")
	return cmd
}

func (a *app) kernelBuild(ctx context.Context, o kernel.Options) error {
	dir, err := a.kernelFolder()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	interrupted := make(chan struct{})
	go func() {
		select {
		case <-a.Signals:
			close(interrupted)
			stop()
		case <-ctx.Done():
		}
	}()
	begin, said := time.Now(), ""
	o.Progress = func(p kernel.Progress) {
		text := p.Stage
		if p.About > 0 {
			text += fmt.Sprintf(" %d of about %d files", p.Done, p.About)
		}
		if a.Terminal {
			a.errs.paint(fmt.Sprintf("guest kernel: %s  %s", text, roughly(time.Since(begin))))
			return
		}
		// In a pipe a line for each stage, and for each quarter of the longest.
		if p.About > 0 {
			text = fmt.Sprintf("%s, %d %% done", p.Stage, 25*(4*p.Done/p.About))
		}
		if text != said {
			said = text
			a.printf("guest kernel: %s\n", text)
		}
	}
	k, built, err := kernel.Build(ctx, dir, o)
	a.errs.paint("")
	if isClosed(interrupted) {
		return errInterrupted
	}
	if lacks, ok := errors.AsType[*kernel.MissingError](err); ok {
		return &statusError{status: exitHost, message: lacks.Error(), remedy: "as root: tcplab kernel build --install, or " + lacks.Command()}
	}
	if err != nil {
		return &statusError{status: exitTrial, message: err.Error()}
	}
	word := "was built already"
	if built {
		word = "is built, in " + k.Took
	}
	_, err = fmt.Fprintf(a.Out, "%s %s: %s\n", k.Name, word, k.Path)
	return err
}

func (a *app) kernelListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the guest kernels that are built",
		Long:    "List shows this user's guest kernels and the machine's; the first one is what --virtual takes.",
		Example: "  tcplab kernel list -o json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			folders, err := a.kernelFolders()
			if err != nil {
				return err
			}
			all, err := kernel.List(folders...)
			if err != nil {
				return err
			}
			if output == formatJSON {
				return printJSON(a.Out, append([]kernel.Kernel{}, all...))
			}
			if len(all) == 0 {
				_, err := fmt.Fprintln(a.Out, "no guest kernel is built; build one with tcplab kernel build")
				return err
			}
			var rows [][]string
			for _, k := range all {
				use := "another tcplab's"
				if k.Current {
					use = "this tcplab's"
				}
				rows = append(rows, []string{k.Name, k.Release, fmt.Sprint(k.HZ), k.ConfigHash, use, k.Source, quantity(float64(k.Size), "B"), k.Path})
			}
			return printTable(a.Out, []string{"NAME", "RELEASE", "HZ", "CONFIGURATION", "USE", "SOURCE", "SIZE", "PATH"}, rows)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) kernelRemoveCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "remove [NAME]",
		Short:   "Remove a guest kernel",
		Example: "  tcplab kernel remove --all",
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return exactArgs()(cmd, args)
			}
			return exactArgs("a kernel's name")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.kernelFolder()
			if err != nil {
				return err
			}
			kernels, err := kernel.List(dir)
			if err != nil {
				return err
			}
			if !all {
				at := slices.IndexFunc(kernels, func(k kernel.Kernel) bool { return k.Name == args[0] })
				if at < 0 {
					return &statusError{status: exitUsage, message: fmt.Sprintf("there is no guest kernel %s in %s", args[0], dir), remedy: "tcplab kernel list names those there are"}
				}
				kernels = kernels[at : at+1]
			}
			for _, k := range kernels {
				if err := kernel.Remove(k); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(a.Out, "%s is removed\n", k.Name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of this user's")
	return cmd
}
