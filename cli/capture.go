package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcplab/tcplab/internal/trace"
	"github.com/tcplab/tcplab/internal/trace/diagram"
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

func (a *app) printCaptures(s *captureReader, f *captureFlags) error {
	if f.output == formatJSON {
		return printMessage(a.Out, &tcplabv1.TrialResult{Captures: s.captures})
	}
	var rows [][]string
	for _, c := range s.captures {
		rows = append(rows, []string{
			c.GetNode(), strconv.FormatUint(c.GetPackets(), 10), strconv.FormatUint(c.GetDropped(), 10), strconv.FormatUint(c.GetLeftOut(), 10),
			strconv.FormatUint(c.GetDamaged(), 10), strconv.FormatUint(uint64(c.GetAll().GetConnections()), 10), s.size(c.GetArtifact()),
		})
	}
	if err := printTable(a.Out, []string{"NODE", "PACKETS", "DROPPED", "BEYOND LIMIT", "DAMAGED", "CONNECTIONS", "SIZE"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.Out, "\ntrial %s; `tcplab capture %s --flows` reads them\n", s.trial.GetId(), s.trial.GetRunId())
	return err
}

// size is how large a file of the trial is.
func (s *captureReader) size(name string) string {
	for _, artifact := range s.trial.GetResult().GetArtifacts() {
		if artifact.GetName() == name {
			return quantity(float64(artifact.GetSize()), "B")
		}
	}
	return ""
}

func (a *app) printCapturedFlows(s *captureReader, f *captureFlags) error {
	report := &tcplabv1.TrialResult{}
	var rows [][]string
	for _, c := range s.captures {
		kept := &tcplabv1.NodeCapture{
			Node: c.GetNode(), Artifact: c.GetArtifact(), Packets: c.GetPackets(), Dropped: c.GetDropped(), LeftOut: c.GetLeftOut(), Damaged: c.GetDamaged(), All: c.GetAll(),
		}
		for _, flow := range c.GetFlows() {
			if f.flow != "" && flow.GetName() != f.flow {
				continue
			}
			kept.Flows = append(kept.Flows, flow)
			rows = append(rows, endRow(c, flow, "client", flow.GetClient()), endRow(c, flow, "server", flow.GetServer()))
		}
		report.Captures = append(report.Captures, kept)
	}
	switch {
	case f.output == formatJSON:
		return printMessage(a.Out, report)
	case len(rows) == 0 && f.flow != "":
		return usageError("no connection of a flow %q was captured", f.flow)
	}
	header := []string{"FLOW", "AT", "SENT BY", "CONNECTIONS", "SYN-ACK", "DATA", "BYTES", "SENT AGAIN", "LATE", "ACKS", "ON DATA", "DUPLICATE", "DELAYED", "NAGLE", "WINDOW 0", "FIN FIRST", "RST"}
	slices.SortStableFunc(rows, func(x, y []string) int { return cmp.Compare(x[0], y[0]) })
	if err := printTable(a.Out, header, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return a.printNotWhole(s.captures)
}

// printNotWhole says which captures lack packets.
func (a *app) printNotWhole(captures []*tcplabv1.NodeCapture) error {
	for _, c := range captures {
		if c.GetDropped()+c.GetLeftOut() == 0 {
			continue
		}
		if _, err := fmt.Fprintf(a.Out, "The capture at %s is not whole: %d packets were dropped, %d left out beyond its limit.\n\n", c.GetNode(), c.GetDropped(), c.GetLeftOut()); err != nil {
			return err
		}
	}
	return nil
}

// endRow is what one end of a flow sent, as a node saw it.
func endRow(c *tcplabv1.NodeCapture, flow *tcplabv1.CapturedFlow, end string, e *tcplabv1.CapturedEnd) []string {
	connections, answer := "", ""
	if end == "client" {
		connections = strconv.FormatUint(uint64(flow.GetConnections()), 10)
		if flow.GetSynAck().GetCount() > 0 {
			answer = quantity(flow.GetSynAck().GetP50().AsDuration().Seconds(), "s")
		}
	}
	again := strconv.FormatUint(e.GetRetransmissions(), 10)
	if e.GetFastRetransmissions()+e.GetTimeoutRetransmissions() > 0 {
		again += fmt.Sprintf(" (%d fast, %d timeout)", e.GetFastRetransmissions(), e.GetTimeoutRetransmissions())
	}
	row := []string{flow.GetName(), c.GetNode(), end, connections, answer, strconv.FormatUint(e.GetDataSegments(), 10), strconv.FormatUint(e.GetBytes(), 10), again}
	for _, n := range []uint64{
		e.GetOutOfOrder(), e.GetPureAcks(), e.GetPiggybackedAcks(), e.GetDuplicateAcks(), e.GetDelayedAcks(),
		e.GetNagleWaits(), e.GetZeroWindows(), e.GetFirstFins(), e.GetResets(),
	} {
		row = append(row, strconv.FormatUint(n, 10))
	}
	return row
}

// seenConnection is one connection, as each node's capture has it.
type seenConnection struct {
	which trace.Which
	flow  string
	at    map[string]*trace.Connection // by node
	first time.Time
}

// connections finds all connections of the captures, in the order in which they began.
func (s *captureReader) connections(ctx context.Context) ([]*seenConnection, error) {
	byName := make(map[trace.Which]*seenConnection)
	var all []*seenConnection
	for _, c := range s.captures {
		var r trace.Reading
		if _, err := s.each(ctx, c, func(p trace.Packet) error { r.Add(p); return nil }); err != nil {
			return nil, err
		}
		for i, which := range r.Names() {
			connection := r.Connections[i]
			seen := byName[which]
			if seen == nil {
				seen = &seenConnection{
					which: which, first: connection.First, at: make(map[string]*trace.Connection),
					flow: trace.FlowOf(which.Client, which.Server, s.trial.GetResult().GetFlows()),
				}
				byName[which] = seen
				all = append(all, seen)
			}
			seen.at[c.GetNode()] = connection
			if connection.First.Before(seen.first) {
				seen.first = connection.First
			}
		}
	}
	slices.SortStableFunc(all, func(x, y *seenConnection) int { return x.first.Compare(y.first) })
	return all, nil
}

func (a *app) printCapturedConnections(ctx context.Context, s *captureReader, f *captureFlags) error {
	all, err := s.connections(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	var list []jsonConnection
	for i, c := range all {
		if f.flow != "" && c.flow != f.flow {
			continue
		}
		for _, capture := range s.captures {
			seen := c.at[capture.GetNode()]
			if seen == nil {
				continue
			}
			summary := trace.Summary(c.flow, []*trace.Connection{seen})
			reading, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(summary)
			if err != nil {
				return fmt.Errorf("encode the connections: %w", err)
			}
			list = append(list, jsonConnection{
				Number: i + 1, Flow: c.flow, Node: capture.GetNode(), Client: c.which.Client.String(), Server: c.which.Server.String(),
				First: seen.First, Last: seen.Last, Reading: reading,
			})
			answer := ""
			if summary.GetSynAck().GetCount() > 0 {
				answer = quantity(summary.GetSynAck().GetP50().AsDuration().Seconds(), "s")
			}
			rows = append(rows, []string{
				strconv.Itoa(i + 1), c.flow, c.which.Client.String(), c.which.Server.String(), capture.GetNode(),
				quantity(seen.First.Sub(all[0].first).Seconds(), "s"), quantity(seen.Last.Sub(seen.First).Seconds(), "s"), answer,
				fmt.Sprintf("%d / %d", seen.FromClient.Segments, seen.FromServer.Segments),
				fmt.Sprintf("%d / %d", seen.FromClient.Bytes, seen.FromServer.Bytes),
				fmt.Sprintf("%d / %d", seen.FromClient.Retransmissions, seen.FromServer.Retransmissions), ending(seen),
			})
		}
	}
	if f.output == formatJSON {
		return printJSON(a.Out, list)
	}
	return printTable(a.Out, []string{"#", "FLOW", "CLIENT", "SERVER", "AT", "BEGAN", "TOOK", "SYN-ACK", "SEGMENTS", "BYTES", "SENT AGAIN", "END"}, rows)
}

// jsonConnection is one connection at one node.
type jsonConnection struct {
	Number  int             `json:"number"`
	Flow    string          `json:"flow"`
	Node    string          `json:"node"`
	Client  string          `json:"client"`
	Server  string          `json:"server"`
	First   time.Time       `json:"first"`
	Last    time.Time       `json:"last"`
	Reading json.RawMessage `json:"reading"` // a CapturedFlow
}

// ending is how a connection ended.
func ending(c *trace.Connection) string {
	switch {
	case c.FromClient.Resets > 0:
		return "client resets"
	case c.FromServer.Resets > 0:
		return "server resets"
	case c.FromClient.FirstFINs > 0:
		return "client first"
	case c.FromServer.FirstFINs > 0:
		return "server first"
	}
	return "open"
}

// drawConnection draws one connection from the captures of both ends.
func (a *app) drawConnection(ctx context.Context, s *captureReader, f *captureFlags) error {
	all, err := s.connections(ctx)
	if err != nil {
		return err
	}
	chosen, err := f.one(all)
	if err != nil {
		return err
	}
	whole := true
	var captures [][]trace.Event
	for _, c := range s.captures {
		if chosen.at[c.GetNode()] == nil && c.GetAll().GetConnections() > 0 {
			continue // a node that the connection does not touch
		}
		whole = whole && c.GetDropped() == 0 && c.GetLeftOut() == 0
		var r trace.Reading
		number := 0 // of the connection in this capture, once it is known
		if seen := chosen.at[c.GetNode()]; seen != nil {
			number = seen.Number
		}
		var events []trace.Event
		if _, err := s.each(ctx, c, func(p trace.Packet) error {
			if connection, event := r.Read(p); connection != nil && connection.Number == number {
				events = append(events, *event)
			}
			return nil
		}); err != nil {
			return err
		}
		captures = append(captures, events)
	}
	x := trace.Pair(chosen.which, whole, captures...)
	options := diagram.Options{
		Client: s.owner(chosen.which.Client.Addr()), Server: s.owner(chosen.which.Server.Addr()),
		After: f.after, Most: f.most, Width: a.outputWidth(),
	}
	if f.svg == "" {
		_, err := io.WriteString(a.Out, diagram.Text(x, options))
		return err
	}
	return a.toFile(f.svg, false, func(w io.Writer) error {
		_, err := io.WriteString(w, diagram.SVG(x, options))
		return err
	})
}

// one is the connection that was asked for.
func (f *captureFlags) one(all []*seenConnection) (*seenConnection, error) {
	switch {
	case len(all) == 0:
		return nil, usageError("no TCP connection was captured")
	case f.connection > len(all):
		return nil, usageError("--connection %d: there are %d; see --connections", f.connection, len(all))
	case f.connection > 0:
		return all[f.connection-1], nil
	case f.flow == "":
		return all[0], nil
	}
	for _, c := range all {
		if c.flow == f.flow {
			return c, nil
		}
	}
	return nil, usageError("no connection of a flow %q was captured; see --connections", f.flow)
}

// owner is the node that has an address; empty: none of the lab's.
func (s *captureReader) owner(address netip.Addr) string {
	for _, l := range s.trial.GetLab().GetLinks() {
		for _, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			for _, text := range end.GetAddresses() {
				if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Addr() == address {
					return end.GetNode()
				}
			}
		}
	}
	return ""
}

// outputWidth is the width of the terminal that standard output is; 0: it is none.
func (a *app) outputWidth() int {
	if f, ok := a.Out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// toFile writes a file, or standard output for -; what is binary is no text for a terminal.
func (a *app) toFile(name string, binary bool, write func(io.Writer) error) error {
	if name == "-" {
		if binary && a.outputWidth() > 0 {
			return usageError("standard output is a terminal; name a file, or pipe it on")
		}
		return write(a.Out)
	}
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	buffer := bufio.NewWriter(file)
	if err := errors.Join(write(buffer), buffer.Flush(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(name))
	}
	return nil
}
