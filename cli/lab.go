package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) labCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "List, show, check and start lab files",
		Example: `  tcplab lab list
  tcplab lab show nagle > mine.yaml
  tcplab lab validate mine.yaml`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.labListCommand(), a.labShowCommand(), a.labValidateCommand(), a.labSchemaCommand(), a.labNewCommand())
	return cmd
}

// labNames are the labs that are built in, for completion.
func labNames() []string {
	var names []string
	for _, info := range labs.List() {
		names = append(names, info.Name+"\t"+info.Title)
	}
	return names
}

func (a *app) labListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the labs that are built in",
		Example: "  tcplab lab list -o json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			if output == formatJSON {
				type entry struct {
					Name  string `json:"name"`
					Title string `json:"title"`
				}
				entries := []entry{}
				for _, info := range labs.List() {
					entries = append(entries, entry{info.Name, info.Title})
				}
				return printJSON(a.Out, entries)
			}
			var rows [][]string
			for _, info := range labs.List() {
				rows = append(rows, []string{info.Name, info.Title})
			}
			return printTable(a.Out, []string{"LAB", "WHAT IT SHOWS"}, rows)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) labShowCommand() *cobra.Command {
	var graph bool
	var form graphFormat
	var set []string
	cmd := &cobra.Command{
		Use:   "show LAB|FILE",
		Short: "Print a lab's file, or draw its topology",
		Long: `Show prints a lab's file. With --graph it draws the lab's nodes and links, for a
terminal or with -o svg for a browser: each link with what it does in both
directions, at the first parameter point.`,
		Example: `  tcplab lab show nagle > mine.yaml
  tcplab lab show nagle --graph
  tcplab lab show nagle --graph -o svg > nagle.svg`,
		Args: exactArgs("the name of a lab or a lab file"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return labNames(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := a.labSource(args[0])
			if err != nil {
				return err
			}
			if graph {
				return a.drawLab(source, set, form)
			}
			if cmd.Flags().Changed("output") || len(set) > 0 {
				return usageError("-o and --set are for drawings: add --graph")
			}
			_, err = a.Out.Write(source.Content)
			return err
		},
	}
	cmd.Flags().BoolVar(&graph, "graph", false, "draw the topology")
	cmd.Flags().StringArrayVar(&set, "set", nil, "with --graph: `name=value[,value...]` of a parameter")
	graphFlag(cmd, &form)
	return cmd
}

func (a *app) labValidateCommand() *cobra.Command {
	var set []string
	var output format
	cmd := &cobra.Command{
		Use:   "validate LAB|FILE",
		Short: "Check a lab file without running it",
		Long: `Validate parses the file and those that it names (traces, tables of jitter),
expands it at every parameter point, and type-checks its expectations. It exits 2
and says file:line:column of each mistake, or prints the points.`,
		Example: "  tcplab lab validate ./mine.yaml --set rtt=10ms,50ms",
		Args:    exactArgs("the name of a lab or a lab file"),
		RunE: func(_ *cobra.Command, args []string) error {
			overrides, err := parseOverrides(set)
			if err != nil {
				return err
			}
			file, err := a.labFile(args[0], overrides)
			if err != nil {
				return err
			}
			points, err := file.Expand(overrides)
			if err != nil {
				return err
			}
			if output == formatJSON {
				return printMessage(a.Out, &tcplabv1.RunPlan{
					Lab: points[0].GetName(), Title: points[0].GetTitle(), Points: planned(points),
					Repeat: max(1, points[0].GetRepeat()), TrialsCount: uint32(len(points)) * max(1, points[0].GetRepeat()),
				})
			}
			_, err = fmt.Fprintf(a.Out, "%s is valid: %s, %s, %s\n", file.Source().Name, plural(len(points), "parameter point"),
				plural(len(points[0].GetNodes()), "node"), plural(len(points[0].GetExpectations()), "expectation"))
			return err
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "`name=value[,value...]` of a parameter")
	outputFlag(cmd, &output)
	return cmd
}

func planned(points []*tcplabv1.Lab) []*tcplabv1.PlannedPoint {
	out := make([]*tcplabv1.PlannedPoint, len(points))
	for i, lab := range points {
		out[i] = &tcplabv1.PlannedPoint{Lab: lab}
	}
	return out
}

func (a *app) labSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of lab files, for editors",
		Long: `Schema prints the JSON Schema of lab files. With it an editor completes keys and
marks mistakes; for the YAML language server put this first line in a lab file:
  # yaml-language-server: $schema=tcplab.schema.json`,
		Example: "  tcplab lab schema > tcplab.schema.json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			schema, err := labs.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Out, "%s\n", strings.TrimSpace(string(schema)))
			return err
		},
	}
}

func (a *app) labNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "new NAME",
		Short:   "Start a lab file NAME.yaml in this folder",
		Example: "  tcplab lab new mine && tcplab run ./mine.yaml",
		Args:    exactArgs("a name"),
		RunE: func(_ *cobra.Command, args []string) error {
			content := labs.Starter(args[0])
			name := args[0] + ".yaml"
			file, err := labs.Parse(labs.Source{Name: name, Content: content})
			if err == nil {
				_, err = file.Expand(nil)
			}
			if err != nil {
				return usageError("%q does not do as a lab's name: want 1 to 40 of a-z, 0-9 and hyphen, starting with a letter", args[0])
			}
			// O_EXCL: a file that somebody wrote is never replaced.
			out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return usageError("%s exists already; choose another name", name)
			}
			if err != nil {
				return usageError("make the lab file: %v", err)
			}
			_, err = out.Write(content)
			if closeErr := out.Close(); err == nil {
				err = closeErr
			}
			if err != nil {
				return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(name))
			}
			_, err = fmt.Fprintf(a.Out, "%s is made; run it with: tcplab run ./%s\n", name, name)
			return err
		},
	}
}

// pointsOf are the parameter points of labs.
func pointsOf(plan []*tcplabv1.PlannedPoint) []map[string]*structpb.Value {
	out := make([]map[string]*structpb.Value, len(plan))
	for i, p := range plan {
		out[i] = p.GetLab().GetPoint()
	}
	return out
}
