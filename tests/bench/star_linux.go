package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// starScript builds the star as people do without tcplab, and takes it away.
//
//go:embed star.sh
var starScript string

// starNodes are the leaves of the star.
const starNodes = 100

// star is how long a star with a hub in the middle and a shaped link to each
// leaf takes to build and to take away, before it has carried anything.
func star(kind tcplabv1.NodeKind, word string) Measurement {
	name := fmt.Sprintf("wire: a star of %d nodes around a %s", starNodes, word)
	return Measurement{
		Name: name, Limit: 30 * time.Second,
		Setup: name + ": 10 ms and 10 Mbit/s each way; built and taken away. The script makes as many namespaces, veths to a bridge and tbfs with ip and tc.",
		Rows: []Row{
			{Name: name + ", up and down", Unit: "s", Digits: 2, Target: atMost(0.6), Peer: "ip and tc"},
			{Name: name + ", processor time of its idle links in a second", Unit: "ms", Digits: 1, Target: atMost(1)},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newWire, func(e link.Engine) ([]Figure, error) {
				p, err := starPlan(kind)
				if err != nil {
					return nil, err
				}
				begin := time.Now()
				standing, err := topology.Build(ctx, p, repeatEngine(e, len(p.Links)))
				if err != nil {
					return nil, err
				}
				ours := time.Since(begin)
				idle, err := processorTime(ctx, time.Second)
				begin = time.Now()
				if err := errors.Join(err, standing.Close()); err != nil {
					return nil, err
				}
				ours += time.Since(begin)
				// A prefix of its own, so that what an interrupted run left is in no way.
				script := exec.CommandContext(ctx, "sh", "-s", fmt.Sprintf("bench%d-", os.Getpid()), strconv.Itoa(starNodes))
				script.Stdin = strings.NewReader(starScript)
				script.Cancel = func() error { return script.Process.Signal(os.Interrupt) }
				script.WaitDelay = 10 * time.Second
				begin = time.Now()
				if out, err := script.CombinedOutput(); err != nil {
					return nil, fmt.Errorf("the script: %w: %s", err, out)
				}
				return []Figure{{Ours: ours.Seconds(), Peer: time.Since(begin).Seconds()}, {Ours: milliseconds(idle)}}, nil
			})
		},
	}
}

// processorTime is what this process uses while it waits. What it has just done
// is first given as long again to settle.
func processorTime(ctx context.Context, wait time.Duration) (time.Duration, error) {
	var used [2]unix.Rusage
	for i := range used {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &used[i]); err != nil {
			return 0, fmt.Errorf("ask for the processor time: %w", err)
		}
	}
	spent := func(u unix.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	return spent(used[1]) - spent(used[0]), nil
}

func repeatEngine(e link.Engine, n int) []link.Engine {
	all := make([]link.Engine, n)
	for i := range all {
		all[i] = e
	}
	return all
}

// starPlan is the star, planned.
func starPlan(kind tcplabv1.NodeKind) (*topology.Plan, error) {
	lab := &tcplabv1.Lab{Name: "star", Nodes: []*tcplabv1.Node{{Name: "hub", Kind: kind}}}
	for i := range starNodes {
		name := fmt.Sprintf("n%d", i+1)
		lab.Nodes = append(lab.Nodes, &tcplabv1.Node{Name: name})
		l := delayed(oneWay, 10e6, nil)
		l.A, l.B = &tcplabv1.LinkEnd{Node: name}, &tcplabv1.LinkEnd{Node: "hub"}
		l.Backward.Shape.RateBps = 10e6
		lab.Links = append(lab.Links, l)
	}
	labs.Complete(lab)
	lab.Experiments = []*tcplabv1.Experiment{{Flows: []*tcplabv1.Flow{bulkBytes(1)}}}
	flow := lab.Experiments[0].Flows[0]
	flow.Name, flow.Client, flow.Server = "f", "n1", "n2"
	if err := errors.Join(labs.Validate(lab), labs.Assign(lab, nil)); err != nil {
		return nil, err
	}
	return topology.New(lab)
}
