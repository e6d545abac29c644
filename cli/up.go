package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// deploymentName is what a standing lab can be called (CreateDeploymentRequest.name).
const deploymentName = `^[a-z][a-z0-9-]{0,39}$`

type upFlags struct {
	name   string
	set    []string
	engine string
	seed   uint64
	output format
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up LAB|FILE",
		Short: "Have a lab stand, to work in it",
		Long: `Up builds the lab's nodes and links, proves that each link does what the lab
says, and returns. The lab stands until it is taken down, or the process that
holds it ends; nothing of it is left then, however that was. The lab's
experiments are not run, and need not be there.

LAB is the name of a lab that is built in (tcplab lab list); FILE is a lab file,
recognised by a slash, a dot or "-" for standard input. Labs of one user have
names of their own; they are found in $XDG_RUNTIME_DIR/tcplab, root's in
/run/tcplab, and where ` + runtimeDirVar + ` says otherwise there.

Exit status: 0 it stands; 2 wrong usage or lab, or the name stands already;
3 this host cannot carry it; 4 a link is not what it should be; 130 interrupted.`,
		Example: `  tcplab up handshake
  tcplab up ./mine.yaml --name office --set rtt=80ms
  tcplab up handshake --name fast --engine wire -o json | jq .nodes`,
		Args: exactArgs("the name of a lab or a lab file"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return labNames(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.up(cmd.Context(), args[0], &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "what to call it (default: as the lab)")
	flags.StringArrayVar(&f.set, "set", nil, "`name=value` of a parameter")
	flags.StringVar(&f.engine, "engine", "auto", "what shapes the links: auto, netem or wire")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of everything random (default: drawn)")
	outputFlag(cmd, &f.output)
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{"auto", "netem", "wire"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) up(ctx context.Context, arg string, f *upFlags) error {
	overrides, err := parseOverrides(f.set)
	if err != nil {
		return err
	}
	options, err := (&runFlags{engine: f.engine}).options()
	if err != nil {
		return err
	}
	// A mistake is told before anything is started.
	file, err := a.labFile(arg, overrides)
	if err != nil {
		return err
	}
	lab, err := file.Stand(overrides)
	if err != nil {
		return err
	}
	name := f.name
	if name == "" {
		name = lab.GetName()
	}
	if !regexp.MustCompile(deploymentName).MatchString(name) {
		return usageError("--name %q: want 1 to 40 of a-z, 0-9 and hyphen, starting with a letter", name)
	}
	request := &tcplabv1.CreateDeploymentRequest{
		RequestId: rand.Text(), Name: name, Engine: options.GetEngine(), Seed: f.seed,
		LabSource: &tcplabv1.CreateDeploymentRequest_Source{Source: labSourceMessage(file.Source())},
	}
	for _, o := range overrides {
		request.Overrides = append(request.Overrides, &tcplabv1.ParamOverride{Name: o.Name, Values: o.Values})
	}
	ctx, interrupted, stop := a.untilInterrupted(ctx)
	defer stop()
	standing, err := a.makeStand(ctx, name, request)
	if err != nil {
		if isClosed(interrupted) {
			return errInterrupted
		}
		return err
	}
	return a.printDeployment(standing, f.output)
}

// untilInterrupted is ctx, which a signal ends too; then interrupted is closed.
func (a *app) untilInterrupted(ctx context.Context) (_ context.Context, interrupted <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-a.Signals:
			close(done)
			cancel()
			if a.Release != nil {
				// Should the stop hang, the next signal ends it.
				time.AfterFunc(stopWithin, a.Release)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, done, cancel
}

func (a *app) printDeployment(d *tcplabv1.Deployment, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s stands: %s, %s\n\n", d.GetName(), plural(len(d.GetNodes()), "node"), plural(len(d.GetLinks()), "link"))
	kinds := make(map[string]tcplabv1.NodeKind)
	for _, n := range d.GetLab().GetNodes() {
		kinds[n.GetName()] = n.GetKind()
	}
	var nodes [][]string
	for _, n := range d.GetNodes() {
		nodes = append(nodes, []string{n.GetName(), kindWord(kinds[n.GetName()]), strings.Join(n.GetAddresses(), " ")})
	}
	err := printTable(&b, []string{"NODE", "KIND", "ADDRESSES"}, nodes)
	if len(d.GetLinks()) > 0 {
		var links [][]string
		for _, l := range d.GetLinks() {
			for _, r := range l.GetReports() {
				links = append(links, []string{l.GetName() + " " + arrow(r), engineWord(r.GetEngine()), shapeText(r.GetSpec()), linkWord(r.GetVerdict())})
			}
		}
		b.WriteByte('\n')
		err = errors.Join(err, printTable(&b, []string{"LINK", "ENGINE", "SHAPE", "PROOF"}, links))
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(a.Out, b.String()); err != nil {
		return err
	}
	a.goOn(d)
	return nil
}

// goOn says what can be done with a lab that stands.
func (a *app) goOn(d *tcplabv1.Deployment) {
	a.printf("\n")
	for _, reason := range d.GetEngineReasons() {
		a.printf("%s\n", reason)
	}
	if len(d.GetEngineReasons()) > 0 {
		a.printf("\n")
	}
	node, link := "", ""
	for _, n := range d.GetNodes() {
		if len(n.GetAddresses()) > 0 {
			node = n.GetName()
			break
		}
	}
	if len(d.GetLinks()) > 0 {
		link = d.GetLinks()[0].GetName()
	}
	var rows [][]string
	if node != "" {
		rows = append(rows, []string{fmt.Sprintf("tcplab exec %s %s", d.GetName(), node), "a shell in a node, or any program: -- curl …"})
	}
	if link != "" {
		rows = append(rows,
			[]string{"tcplab link show " + d.GetName() + " --watch", "what its links do"},
			[]string{fmt.Sprintf("tcplab link set %s/%s delay=80ms", d.GetName(), link), "change one while traffic flows"})
	}
	rows = append(rows, []string{"tcplab down " + d.GetName(), "take it away"})
	width := 0
	for _, row := range rows {
		width = max(width, len(row[0]))
	}
	for _, row := range rows {
		a.printf("  %-*s  %s\n", width, row[0], row[1])
	}
}

// arrow shows a report's direction.
func arrow(r *tcplabv1.LinkReport) string {
	mark := "→"
	if r.GetDirection() == tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD {
		mark = "←"
	}
	if r.GetPath() != "" {
		mark += " " + r.GetPath()
	}
	return mark
}
