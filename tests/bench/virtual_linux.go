package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	guests "github.com/tcplab/tcplab/agent/virtual"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	guestWaits = time.Minute
	guestBytes = 60e6
)

// virtualTime is how fast labs go in virtual time. It takes the guest kernel: tcplab kernel build.
func virtualTime() Measurement {
	return Measurement{
		Name: "virtual time", Setup: "a guest kernel on one processor; links of netem with 20 ms and 100 Mbit/s, the bulk's with 1 Gbit/s",
		Limit: 2 * time.Minute,
		Rows: []Row{
			{Name: "virtual time: from nothing to the first packet", Unit: "ms", Target: atMost(500)},
			{Name: "virtual time: from nothing to a proven link", Unit: "ms"},
			{Name: "virtual time: a minute of waiting", Unit: "ms", Digits: 1, Target: atMost(100)},
			{Name: "virtual time: a minute of waiting on a connection that is sampled each 10 ms", Unit: "ms"},
			{Name: "virtual time: bulk without GSO, of real time", Unit: "MB/s", Digits: 1, Target: atLeast(30)},
		},
		Once: virtualOnce,
	}
}

func virtualOnce(ctx context.Context) (_ []Figure, err error) {
	dir, err := os.MkdirTemp("", "tcplab-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pipe := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- guests.Run(ctx, guests.Config{Dir: filepath.Join(dir, "guests"), Kernels: []string{os.Getenv("TCPLAB_KERNEL_DIR"), "/var/cache/tcplab/kernels"}}, pipe)
	}()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	conn, err := grpc.NewClient("passthrough:///guests",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b := &guestBench{agent: tcplabv1.NewAgentServiceClient(conn)}
	if _, err := b.run(ctx, getLab("")); err != nil { // brings the files into memory, and the rules of the contract
		return nil, err
	}
	at, err := b.run(ctx, getLab(""))
	if err != nil {
		return nil, err
	}
	idle, err := b.run(ctx, getLab("\n        start: 60s"))
	if err != nil {
		return nil, err
	}
	thinks, err := b.run(ctx, labOf("transaction: {from: client, to: server, writes: [100B], reply: 100B, count: 2, think_time: 60s}", "", "100Mbit"))
	if err != nil {
		return nil, err
	}
	bulk, err := b.run(ctx, labOf(fmt.Sprintf("bulk: {from: client, to: server, bytes: %.0fB}", float64(guestBytes)), "", "1Gbit"))
	if err != nil {
		return nil, err
	}
	ms := func(d time.Duration) Figure { return Figure{Ours: float64(d) / 1e6} }
	return []Figure{ms(at.stands), ms(at.proven), ms(idle.trial - at.trial), ms(thinks.trial - at.trial), {Ours: guestBytes / bulk.trial.Seconds() / 1e6}}, nil
}

// getLab is one small transaction, with more of its flow's keys.
func getLab(more string) string {
	return labOf("transaction: {from: client, to: server, writes: [100B], reply: 100B}", more, "100Mbit")
}

// labOf is a lab of one flow.
func labOf(flow, more, rate string) string {
	return fmt.Sprintf(`name: bench
nodes: [client, server]
links:
  - between: [client, server]
    rtt: 20ms
    rate: %s
experiments:
  - timeout: 5m
    flows:
      - name: f
        %s%s
`, rate, flow, more)
}

// guestBench runs trials one after another.
type guestBench struct {
	agent tcplabv1.AgentServiceClient
	made  int
}

// guestTimes are real times: from the request until the lab stands, right before the first probe leaves; until its
// links are proven; and from the first experiment's start to the trial's end.
type guestTimes struct{ stands, proven, trial time.Duration }

func (b *guestBench) run(ctx context.Context, text string) (t guestTimes, err error) {
	file, err := labs.Parse(labs.Source{Name: "bench.yaml", Content: []byte(text)})
	if err != nil {
		return t, err
	}
	points, err := file.Expand(nil)
	if err == nil {
		err = labs.Assign(points[0], nil)
	}
	if err != nil {
		return t, err
	}
	b.made++
	id := fmt.Sprintf("bench-%d", b.made)
	begin := time.Now()
	if _, err = b.agent.Apply(ctx, &tcplabv1.ApplyRequest{DeploymentId: id, Lab: points[0], Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL, Lease: durationpb.New(5 * time.Minute)}); err != nil {
		return t, err
	}
	defer func() {
		_, removeErr := b.agent.Remove(context.WithoutCancel(ctx), &tcplabv1.RemoveRequest{DeploymentId: id})
		err = errors.Join(err, removeErr)
	}()
	t.stands = time.Since(begin)
	if _, err := b.agent.Verify(ctx, &tcplabv1.VerifyRequest{DeploymentId: id}); err != nil {
		return t, err
	}
	t.proven = time.Since(begin)
	if _, err := b.agent.StartTrial(ctx, &tcplabv1.StartTrialRequest{DeploymentId: id, TrialId: id}); err != nil {
		return t, err
	}
	events, err := b.agent.WatchTrial(ctx, &tcplabv1.WatchTrialRequest{TrialId: id})
	if err != nil {
		return t, err
	}
	var started time.Time
	for {
		event, err := events.Recv()
		if err != nil {
			return t, err
		}
		switch {
		case event.GetExperimentStarted() != nil:
			started = time.Now()
		case event.GetFlowEnded() != nil:
			t.trial = time.Since(started)
		case event.GetTrialEnded() != nil:
			if failure := event.GetTrialEnded().GetFailure(); failure != "" {
				return t, errors.New(failure)
			}
			return t, nil
		}
	}
}
