package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/nic"
	"github.com/tcplab/tcplab/agent/link/veth"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// hostInterface is how much of what a host sends passes a link at an interface of its
// own. The client's namespace plays the host.
func hostInterface() Measurement {
	const name = "a host's interface, wire by TCX, with TSO: "
	const delay, duration = time.Millisecond, 6 * time.Second
	return Measurement{
		Name: "host interface", Limit: 30 * time.Second,
		Setup: "a host's interface, wire by TCX, with TSO: a veth plays the interface; 1 ms in each direction of what is matched, no rate, all offloads; one bulk flow with buffers of 16 MB for 6 s.",
		Rows: []Row{
			{Name: name + "goodput", Unit: "Gbit/s", Digits: 2, Target: atLeast(7)},
			{Name: name + "frames dropped by the link", Target: exactly(0), Every: true},
			{Name: name + "retransmits"},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			return with(newWire, func(e link.Engine) ([]Figure, error) { return throughHost(ctx, e, delay, duration) })
		},
	}
}

func throughHost(ctx context.Context, e link.Engine, delay, duration time.Duration) (_ []Figure, err error) {
	const buffers = "4096 16000000 16000000"
	sysctls := map[string]string{"net.ipv4.tcp_rmem": buffers, "net.ipv4.tcp_wmem": buffers}
	b, err := stand(ctx, veth.Engine{}, &tcplabv1.Link{Offload: true, Forward: &tcplabv1.Direction{}, Backward: &tcplabv1.Direction{}}, bulkFor(duration), sysctls)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	journals, err := os.MkdirTemp("", "tcplab-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(journals)) }()
	host, err := nic.NewHost(nic.Options{Namespace: b.client.NS, Journals: journals, Hooks: nic.TCX})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	spec := b.standing.Spec(0)
	for i := range spec.Directions {
		spec.Directions[i] = link.Direction{Shape: link.Shape{Delay: delay}, Seed: 1}
	}
	way := nic.Way{Match: link.Match{Destination: netip.PrefixFrom(b.server.Addr, b.server.Addr.BitLen()), Protocol: link.TCP}}
	made, err := host.Engine(e, way).Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	result, err := b.run(ctx, nil)
	if err != nil {
		return nil, err
	}
	counters, err := made.Counters()
	if err != nil {
		return nil, err
	}
	dropped := 0.0
	for _, c := range counters {
		dropped += float64(c.Lost + c.Overflow + c.Failed)
	}
	return []Figure{{Ours: result.GetGoodputBps() / 1e9}, {Ours: dropped}, {Ours: float64(result.GetClient().GetTcpInfo().GetTotalRetrans())}}, nil
}
