package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type captureFlags struct {
	trial       uint32
	nodes       []string
	write       string
	flows       bool
	connections bool
	diagram     bool
	connection  int
	flow        string
	svg         string
	after       time.Duration
	most        int
	output      format
}

func (a *app) captureCommand() *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use:   "capture RUN",
		Short: "Show, export and draw the packets that a run captured",
		Long: `Capture shows what a trial captured at its nodes, if its lab asks for that
(capture: {} in an experiment), and how tcplab reads it. Without a flag it lists
the captures. RUN is a run's ID, an unambiguous prefix of it, or "last".

--write exports packets as pcapng, for Wireshark and others; those of several nodes
in one file, each interface called NODE:INTERFACE. --flows counts each flow's
retransmissions, acknowledgements and the rest, as each node saw them. --diagram draws
one connection, the client's side left and the server's right, from what
both nodes captured; --svg writes it as a picture, with time running down.`,
		Example: `  tcplab capture last
  tcplab capture last --flows
  tcplab capture last --connections
  tcplab capture last --diagram --flow wwr --most 20
  tcplab capture last --diagram --connection 2 --svg wwr.svg
  tcplab capture last --node client --write client.pcapng
  tcplab capture last --write - | tshark -r -`,
		Args: exactArgs("a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			return a.withRuns(cmd.Context(), func(ctx context.Context, runs tcplabv1.RunServiceClient) error {
				return a.capture(ctx, runs, args[0], &f)
			})
		},
	}
	flags := cmd.Flags()
	flags.Uint32Var(&f.trial, "trial", 0, "the trial's `number` in the run (default: the first that captured)")
	flags.StringArrayVar(&f.nodes, "node", nil, "only the capture of this `node`; may be given again (default: all)")
	flags.StringVarP(&f.write, "write", "w", "", "export the packets to this `file`, as pcapng; - is standard output")
	flags.BoolVar(&f.flows, "flows", false, "how each flow is read at each node")
	flags.BoolVar(&f.connections, "connections", false, "list the connections, a flow's or not")
	flags.BoolVar(&f.diagram, "diagram", false, "draw one connection")
	flags.IntVar(&f.connection, "connection", 0, "the connection's `number` in --connections (default: 1, or the first of --flow)")
	flags.StringVar(&f.flow, "flow", "", "only connections of this `flow`")
	flags.StringVar(&f.svg, "svg", "", "draw it as a picture into this `file`; - is standard output")
	flags.DurationVar(&f.after, "after", 0, "draw from this time since the connection's beginning on")
	flags.IntVar(&f.most, "most", 60, "draw this many segments at the most; 0: all")
	outputFlag(cmd, &f.output)
	return cmd
}

// check refuses flags that contradict one another.
func (f *captureFlags) check(cmd *cobra.Command) error {
	f.diagram = f.diagram || f.svg != ""
	modes := 0
	for _, on := range []bool{f.write != "", f.flows, f.connections, f.diagram} {
		if on {
			modes++
		}
	}
	switch {
	case modes > 1:
		return usageError("give one of --write, --flows, --connections and --diagram")
	case f.output == formatJSON && (f.write != "" || f.diagram):
		return usageError("-o json goes with lists: leave it out, or --write and --diagram")
	case f.connection < 0 || f.most < 0 || f.after < 0:
		return usageError("--connection, --most and --after are not negative")
	case cmd.Flags().Changed("trial") && f.trial == 0:
		return usageError("--trial 0: trials count from 1")
	}
	return nil
}

func (a *app) capture(ctx context.Context, runs tcplabv1.RunServiceClient, run string, f *captureFlags) error {
	trial, err := capturedTrial(ctx, runs, run, f.trial)
	if err != nil {
		return err
	}
	captures, err := f.choose(trial)
	if err != nil {
		return err
	}
	s := &captureReader{runs: runs, trial: trial, captures: captures}
	switch {
	case f.write != "":
		return a.exportCapture(ctx, s, f.write)
	case f.flows:
		return a.printCapturedFlows(s, f)
	case f.connections:
		return a.printCapturedConnections(ctx, s, f)
	case f.diagram:
		return a.drawConnection(ctx, s, f)
	}
	return a.printCaptures(s, f)
}

// capturedTrial finds a trial of the run by its number, or the first that captured.
func capturedTrial(ctx context.Context, runs tcplabv1.RunServiceClient, run string, number uint32) (*tcplabv1.Trial, error) {
	token, seen := "", 0
	for {
		page, err := runs.ListTrials(ctx, &tcplabv1.ListTrialsRequest{RunId: run, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, trial := range page.GetTrials() {
			seen++
			switch captured := len(trial.GetResult().GetCaptures()) > 0; {
			case number == trial.GetNumber() && !captured:
				return nil, usageError("trial %s captured nothing; `capture: {}` in an experiment of its lab asks for it", trial.GetId())
			case number == trial.GetNumber(), number == 0 && captured:
				return trial, nil
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if number > 0 {
		return nil, usageError("the run has no trial %d; it has %d", number, seen)
	}
	return nil, usageError("the run captured nothing; `capture: {}` in an experiment of its lab asks for it")
}

// choose is the captures of the nodes that were asked for.
func (f *captureFlags) choose(trial *tcplabv1.Trial) ([]*tcplabv1.NodeCapture, error) {
	all := trial.GetResult().GetCaptures()
	if len(f.nodes) == 0 {
		return all, nil
	}
	var chosen []*tcplabv1.NodeCapture
	for _, node := range f.nodes {
		i := slices.IndexFunc(all, func(c *tcplabv1.NodeCapture) bool { return c.GetNode() == node })
		if i < 0 {
			var names []string
			for _, c := range all {
				names = append(names, c.GetNode())
			}
			return nil, usageError("trial %s captured nothing at %s; it did at %s", trial.GetId(), node, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// captureReader reads a trial's captures from where they are stored.
type captureReader struct {
	runs     tcplabv1.RunServiceClient
	trial    *tcplabv1.Trial
	captures []*tcplabv1.NodeCapture
}

// open reads a node's file. It ends with ctx.
func (s *captureReader) open(ctx context.Context, c *tcplabv1.NodeCapture) (io.Reader, error) {
	stream, err := s.runs.ReadRunArtifact(ctx, &tcplabv1.ReadRunArtifactRequest{RunId: s.trial.GetRunId(), Trial: s.trial.GetNumber(), Name: c.GetArtifact()})
	if err != nil {
		return nil, err
	}
	return &artifactReader{stream: stream}, nil
}

// each gives fn a node's packets.
func (s *captureReader) each(ctx context.Context, c *tcplabv1.NodeCapture, fn func(trace.Packet) error) (trace.Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file, err := s.open(ctx, c)
	if err != nil {
		return trace.Info{}, err
	}
	info, err := trace.Each(file, fn)
	if err == nil && info.Truncated {
		err = fmt.Errorf("%s ends in the middle of a packet", c.GetArtifact())
	}
	return info, err
}

// artifactReader is a stream of pieces as bytes.
type artifactReader struct {
	stream grpc.ServerStreamingClient[tcplabv1.ReadRunArtifactResponse]
	rest   []byte
}

func (r *artifactReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = piece.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
