//go:build linux

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/observe/capture"
	"github.com/tcplab/tcplab/agent/spool"
	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Memory of the kernel for captures: what all rings have together, and the least and most that one has.
const (
	ringsBytes   = 256 << 20
	minRingBytes = 1 << 20
)

// maxSettle is the longest that a capture goes on after its experiment.
const maxSettle = 2 * time.Second

// captures are a trial's, one file a node.
type captures struct {
	deployment *deployment
	kept       *spool.Trial
	files      []*captured // in the order in which they were begun
	running    []recording // of the experiment that is under way
}

// recording is one node's that runs.
type recording struct {
	*capture.Recorder
	into *captured
}

// captured is one node's.
type captured struct {
	node   string
	file   *spool.File
	pcap   *capture.File
	counts capture.Counts
}

// start records what the experiment asks for, until stop or commit.
func (c *captures) start(e *tcplabv1.Experiment) error {
	for _, name := range e.GetCapture().GetNodes() {
		r, f, err := c.record(name, e)
		if err != nil {
			return errors.Join(err, c.halt())
		}
		c.running = append(c.running, recording{r, f})
	}
	return nil
}

// stop ends what start has begun, when the flows' last packets have arrived.
func (c *captures) stop(ctx context.Context) error {
	if len(c.running) > 0 {
		c.settle(ctx)
	}
	return c.halt()
}

// halt ends it at once.
func (c *captures) halt() error {
	var errs []error
	for _, r := range c.running {
		counts, err := r.Stop()
		r.into.counts.Packets += counts.Packets
		r.into.counts.Dropped += counts.Dropped
		r.into.counts.LeftOut += counts.LeftOut
		errs = append(errs, err)
	}
	c.running = nil
	return errors.Join(errs...)
}

// record starts at one node.
func (c *captures) record(name string, e *tcplabv1.Experiment) (*capture.Recorder, *captured, error) {
	d := c.deployment
	for i, n := range d.plan.Nodes {
		if n.Name != name {
			continue
		}
		f, err := c.open(name)
		if err != nil {
			return nil, nil, err
		}
		var interfaces []string
		for _, iface := range n.Interfaces {
			interfaces = append(interfaces, iface.Name)
		}
		asked := e.GetCapture()
		r, err := capture.Start(d.standing.Nodes[i], interfaces, f.pcap, capture.Options{
			Snap: int(asked.GetSnapBytes()), LimitBytes: asked.GetLimitBytes(), LimitPackets: asked.GetLimitPackets(),
			Protocol: asked.GetProtocol(), Port: uint16(asked.GetPort()),
			Ring:        min(max(minRingBytes, ringsBytes/len(asked.GetNodes())), capture.DefaultRing),
			Description: description(name, e.GetName()),
		})
		return r, f, err
	}
	return nil, nil, fmt.Errorf("capture at %s: there is no such node", name)
}

// description tells interfaces of one file apart.
func description(node, experiment string) string {
	if experiment == "" {
		return "node " + node
	}
	return fmt.Sprintf("node %s, experiment %s", node, experiment)
}

// open finds the node's file, or begins it.
func (c *captures) open(node string) (*captured, error) {
	if i := slices.IndexFunc(c.files, func(f *captured) bool { return f.node == node }); i >= 0 {
		return c.files[i], nil
	}
	file, err := c.kept.Create(node + ".pcapng")
	if err != nil {
		return nil, err
	}
	f := &captured{node: node, file: file, pcap: capture.NewFile(file)}
	c.files = append(c.files, f)
	return f, nil
}

// settle waits until the flows' last packets have arrived: what all links together delay.
func (c *captures) settle(ctx context.Context) {
	var longest time.Duration
	for _, l := range c.deployment.plan.Links {
		var slower time.Duration
		for _, way := range l.Directions {
			slower = max(slower, latest(way.Shape))
			for _, p := range way.Paths {
				slower = max(slower, latest(p.Shape))
			}
			for _, step := range way.Schedule.Steps {
				slower = max(slower, latest(step.Shape))
			}
		}
		longest += slower
	}
	wait := time.NewTimer(min(longest, maxSettle))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// latest is how long the shape delays a packet that has no queue before it.
func latest(s link.Shape) time.Duration {
	return s.Delay + link.Spread*s.Jitter.Amount
}

// commit ends what still runs, finishes the files and enters them, and how they read, in the result.
func (c *captures) commit(result *tcplabv1.TrialResult) error {
	errs := []error{c.halt()}
	for _, f := range c.files {
		if err := f.pcap.Close(); err != nil {
			errs = append(errs, err, f.file.Abandon())
			continue
		}
		artifact, err := f.file.Commit()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		result.Artifacts = append(result.Artifacts, artifact)
		read, err := c.read(f, artifact.GetName(), result.GetFlows())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		result.Captures = append(result.Captures, read)
	}
	return errors.Join(errs...)
}

// read tells what a file holds.
func (c *captures) read(f *captured, name string, flows []*tcplabv1.FlowResult) (*tcplabv1.NodeCapture, error) {
	file, err := c.kept.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var reading trace.Reading
	if _, err := trace.Each(bufio.NewReaderSize(file, 1<<18), func(p trace.Packet) error {
		reading.Add(p)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the capture at %s: %w", f.node, err)
	}
	capture := &tcplabv1.NodeCapture{
		Node: f.node, Artifact: name,
		Packets: f.counts.Packets, Dropped: f.counts.Dropped, LeftOut: f.counts.LeftOut, Damaged: reading.Damaged,
		All: trace.Summary("", reading.Connections),
	}
	of := make(map[string][]*trace.Connection)
	for _, connection := range reading.Connections {
		if name := trace.FlowOf(connection.Client, connection.Server, flows); name != "" {
			of[name] = append(of[name], connection)
		}
	}
	for _, flow := range flows {
		if connections := of[flow.GetName()]; len(connections) > 0 {
			capture.Flows = append(capture.Flows, trace.Summary(flow.GetName(), connections))
		}
	}
	return capture, nil
}
