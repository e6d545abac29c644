package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

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
