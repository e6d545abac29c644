package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/connect"
	"github.com/tcplab/tcplab/agent/flow/web"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// congestion is the congestion control of all that is measured, and of the
// peers: every kernel has it, and every user may set it.
const congestion = "reno"

// bed is a lab of two nodes, a link and a flow as an agent builds it.
type bed struct {
	flow           *tcplabv1.Flow
	standing       *topology.Standing
	link           link.Link // direction 0 is from the client to the server
	client, server flow.End
}

// planned is a lab that is ready to be built.
type planned struct {
	flow *tcplabv1.Flow
	plan *topology.Plan
	path topology.Path
}

// plan does to a link and a flow from "client" to "server", with settings of both,
// what a controller does to a lab.
func plan(l *tcplabv1.Link, f *tcplabv1.Flow, sysctls map[string]string) (*planned, error) {
	l.A, l.B = &tcplabv1.LinkEnd{Node: "client"}, &tcplabv1.LinkEnd{Node: "server"}
	f.Name, f.Client, f.Server = "f", "client", "server"
	f.Socket = &tcplabv1.SocketOptions{Congestion: congestion}
	lab := &tcplabv1.Lab{
		Name:        "bench",
		Nodes:       []*tcplabv1.Node{{Name: "client", Sysctls: sysctls}, {Name: "server", Sysctls: sysctls}},
		Links:       []*tcplabv1.Link{l},
		Experiments: []*tcplabv1.Experiment{{Flows: []*tcplabv1.Flow{f}}},
	}
	labs.Complete(lab)
	if err := errors.Join(labs.Validate(lab), labs.Assign(lab, nil)); err != nil {
		return nil, err
	}
	p, err := topology.New(lab)
	if err != nil {
		return nil, err
	}
	path, err := p.Path("client", "server", false)
	return &planned{flow: f, plan: p, path: path}, err
}

// stand builds the lab with the engine, which stays the caller's.
func stand(ctx context.Context, engine link.Engine, l *tcplabv1.Link, f *tcplabv1.Flow, sysctls map[string]string) (*bed, error) {
	p, err := plan(l, f, sysctls)
	if err != nil {
		return nil, err
	}
	return p.build(ctx, engine)
}

func (p *planned) build(ctx context.Context, engine link.Engine) (*bed, error) {
	standing, err := topology.Build(ctx, p.plan, []link.Engine{engine})
	if err != nil {
		return nil, err
	}
	return &bed{
		flow: p.flow, standing: standing, link: standing.Links[0],
		client: flow.End{Node: "client", NS: standing.Nodes[p.path.Client], Addr: p.path.Source},
		server: flow.End{Node: "server", NS: standing.Nodes[p.path.Server], Addr: p.path.Destination},
	}, nil
}

func (b *bed) close() error { return b.standing.Close() }

// running is a flow of any kind.
type running interface {
	Listen(ctx context.Context) error
	Run(ctx context.Context) *tcplabv1.FlowResult
	Close() error
}

func newTraffic(spec *tcplabv1.Flow, cfg flow.Config) (running, error) {
	if spec.GetConnect() != nil {
		return connect.New(spec, cfg)
	}
	if spec.GetHttp() != nil {
		return web.New(spec, web.Config{Config: cfg})
	}
	return flow.New(spec, cfg)
}

// run carries the flow out.
func (b *bed) run(ctx context.Context, samples observe.Sink) (*tcplabv1.FlowResult, error) {
	f, err := newTraffic(b.flow, flow.Config{Client: b.client, Server: b.server, Samples: samples})
	if err != nil {
		return nil, err
	}
	if err := f.Listen(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	result := f.Run(ctx)
	if err := f.Close(); err != nil {
		return nil, err
	}
	if text := result.GetError(); text != "" {
		return nil, fmt.Errorf("the flow: %s", text)
	}
	return result, nil
}

// delayed is a link with a delay each way and, where it is not 0, a rate forward.
func delayed(delay time.Duration, rate float64, queue *tcplabv1.Queue) *tcplabv1.Link {
	return &tcplabv1.Link{
		Forward:  &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(delay), RateBps: rate, Queue: queue}},
		Backward: &tcplabv1.Direction{Shape: &tcplabv1.Shape{Delay: durationpb.New(delay)}},
	}
}

func packets(n uint32) *tcplabv1.Queue {
	return &tcplabv1.Queue{Limit: &tcplabv1.Queue_Packets{Packets: n}}
}

func bulkBytes(n uint64) *tcplabv1.Flow {
	return &tcplabv1.Flow{Kind: &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: n}}}}
}

func bulkFor(d time.Duration) *tcplabv1.Flow {
	return &tcplabv1.Flow{Kind: &tcplabv1.Flow_Bulk{Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Duration{Duration: durationpb.New(d)}}}}
}

func transactions(n uint32) *tcplabv1.Flow {
	return &tcplabv1.Flow{Kind: &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{100}, Reply: 100, Count: n}}}
}
