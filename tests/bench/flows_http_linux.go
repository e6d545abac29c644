package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/web"
	"github.com/tcplab/tcplab/agent/link"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// httpLoad is how many requests a second an http flow makes on 64 connections, beside wrk against the same
// server.
func httpLoad() Measurement {
	const connections, size, lasts = 64, 100, 3 * time.Second
	return Measurement{
		Name: flowsName + "http", Limit: time.Minute,
		Setup: fmt.Sprintf("http: an unshaped veth, %d persistent connections in a closed loop for %s, answers of %d bytes. Beside it wrk -t1 -c%d "+
			"against tcplab's server, which is in this process in both cases.", connections, lasts, size, connections),
		Rows: []Row{
			{Name: flowsName + "http, 64 connections", Unit: "/s", Target: Target{Least: new(1.0), OfPeer: true}, Peer: "wrk -t1 -c64"},
			{Name: flowsName + "http, 64 connections: requests that failed", Target: exactly(0), Every: true},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newVeth, func(e link.Engine) (_ []Figure, err error) {
				b, err := stand(ctx, e, delayed(0, 0, nil), httpFlow(&tcplabv1.Http{
					Objects:  []*tcplabv1.HttpObject{{Size: size}},
					Client:   &tcplabv1.HttpClient{Connections: connections},
					Duration: durationpb.New(lasts),
				}), nil)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, b.close()) }()
				ours, err := b.run(ctx, nil)
				if err != nil {
					return nil, err
				}
				peer, err := wrk(ctx, b, connections, lasts)
				if err != nil {
					return nil, err
				}
				return []Figure{{Ours: ours.GetHttp().GetRate(), Peer: peer}, {Ours: float64(ours.GetHttp().GetFailed())}}, nil
			})
		},
	}
}

func httpFlow(h *tcplabv1.Http) *tcplabv1.Flow {
	return &tcplabv1.Flow{Kind: &tcplabv1.Flow_Http{Http: h}}
}

var wrkRate = regexp.MustCompile(`Requests/sec: +([0-9.]+)`)

// wrk is how many requests a second wrk makes to the server of the bed's flow, whose own client waits
// meanwhile.
func wrk(ctx context.Context, b *bed, connections int, lasts time.Duration) (float64, error) {
	b.flow.GetHttp().Client = &tcplabv1.HttpClient{Connections: 1, ThinkTime: durationpb.New(time.Hour)}
	b.flow.GetHttp().Duration = durationpb.New(lasts + 2*time.Second)
	f, err := web.New(b.flow, web.Config{Config: flow.Config{Client: b.client, Server: b.server}})
	if err != nil {
		return 0, err
	}
	if err := f.Listen(ctx); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	served := make(chan *tcplabv1.FlowResult, 1)
	go func() { served <- f.Run(ctx) }()
	run := exec.CommandContext(ctx, "wrk", "-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", int(lasts.Seconds())), "http://"+f.Address().String()+"/0")
	var report []byte
	// A child inherits the namespace of the thread that starts it.
	err = b.client.NS.Do(func() (err error) {
		report, err = run.CombinedOutput()
		return err
	})
	closed := f.Close()
	<-served
	found := wrkRate.FindSubmatch(report)
	if err = errors.Join(err, closed); err == nil && found == nil {
		err = errors.New("its report has no rate")
	}
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, report)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}
