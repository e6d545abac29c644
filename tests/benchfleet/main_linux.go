// Command benchfleet measures what a controller's hosts cost it: simulated agents speak the real protocol over real TCP
// and TLS on the loopback, to a controller's access and fleet in a process of its own, whose memory is read from
// the kernel.
//
//	make bench-fleet [AGENTS=100,1000,5000] [FOR=1m]
//
// The second table has hosts that leave chunks of samples, which the controller's runs fetch, check, store and acknowledge.
//
// It refuses to say anything of agents' own work: they do nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func main() {
	var err error
	if len(os.Args) == 3 && os.Args[1] == controllerRole {
		err = control(os.Args[2], os.Stdin, os.Stdout)
	} else {
		var o options
		flag.StringVar(&o.agents, "agents", "100,1000,5000", "how many agents, in turn; empty: none")
		flag.DurationVar(&o.ingest, "for", time.Minute, "how long samples are taken in; 0: not at all")
		flag.Float64Var(&o.rate, "rate", 60, "MB/s that are left to be taken in; 0: as much as can be")
		flag.StringVar(&o.heap, "heap", "", "write the controller's heap with all agents into this file (pprof)")
		flag.Parse()
		err = bench(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfleet:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	agents string
	ingest time.Duration
	rate   float64 // MB/s
	heap   string
}

// errMissed is the error of a target that was missed.
var errMissed = errors.New("missed")

// Targets of a row: memory of an agent, the slowest of the quickest 99% of a fan-out, all back after a restart; and how much more
// an agent may take among few than among many.
const (
	memoryMost = 250e3
	fanOutP99  = time.Second
	backWithin = time.Minute
)

// bench measures with each number of agents, then the ingest, and prints a table of each. The error says what was missed.
func bench(o options) error {
	if err := manyFiles(); err != nil {
		return err
	}
	var missed error
	if o.agents != "" {
		fmt.Fprintf(os.Stdout, "%8s  %8s  %10s  %10s  %10s  %12s  %12s  %12s\n", "agents", "joins/s", "KB each", "at most", "goroutines", "fan-out p50", "p99", "back after")
		for word := range strings.SplitSeq(o.agents, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 {
				return fmt.Errorf("-agents %q: want whole numbers above 0", o.agents)
			}
			if err := measure(n, o.heap); err != nil {
				err = fmt.Errorf("%d agents: %w", n, err)
				if !errors.Is(err, errMissed) {
					return err
				}
				missed = errors.Join(missed, err)
			}
		}
	}
	if o.ingest < 2*time.Second {
		return missed
	}
	return errors.Join(missed, ingest(o.ingest, o.rate*1e6))
}

// manyFiles raises the limit of open files: each agent has two connections.
func manyFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// warmUp is how many agents are there before anything is measured: what the first ones cost is no agent's.
const warmUp = 20

// measure is one row.
func measure(n int, heap string) error {
	dir, err := os.MkdirTemp("", "tcplab-benchfleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := startController(dir, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = c.end() }()
	credentials, err := c.join("warm", warmUp)
	if err != nil {
		return err
	}
	first := simulate(credentials, c.address, &idleAgent{})
	defer first.stop()
	if _, err := c.ask(fmt.Sprintf("await %d", warmUp)); err != nil {
		return err
	}
	idle, err := c.ask("memory")
	if err != nil {
		return err
	}
	began := time.Now()
	if credentials, err = c.join("host", n); err != nil {
		return err
	}
	joined := time.Since(began)
	agents := simulate(credentials, c.address, &idleAgent{})
	defer agents.stop()
	if _, err := c.ask(fmt.Sprintf("await %d", n+warmUp)); err != nil {
		return err
	}
	full, err := c.ask("memory")
	if err != nil {
		return err
	}
	if heap != "" {
		if _, err := c.ask("heap " + heap); err != nil {
			return err
		}
	}
	spread, err := c.ask("fanout")
	if err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	restarted := time.Now()
	again, err := startController(dir, c.address)
	if err != nil {
		return err
	}
	defer func() { _ = again.end() }()
	if _, err := again.ask(fmt.Sprintf("await %d", n+warmUp)); err != nil {
		return err
	}
	back := time.Since(restarted)
	each := float64(full.Memory-idle.Memory) / float64(n)
	fmt.Fprintf(os.Stdout, "%8d  %8.0f  %10.0f  %10.0f  %10.1f  %12v  %12v  %12v\n", n, float64(n)/joined.Seconds(), each/1e3, float64(full.Peak-idle.Memory)/1e3/float64(n),
		float64(full.Goroutines-idle.Goroutines)/float64(n), spread.P50.Round(time.Microsecond), spread.P99.Round(time.Microsecond), back.Round(10*time.Millisecond))
	if each > memoryMost {
		err = errors.Join(err, fmt.Errorf("%w: an agent takes %.0f KB, permitted are %.0f", errMissed, each/1e3, memoryMost/1e3))
	}
	if spread.P99 > fanOutP99 {
		err = errors.Join(err, fmt.Errorf("%w: a fan-out took %v, permitted are %v", errMissed, spread.P99, fanOutP99))
	}
	if back > backWithin {
		err = errors.Join(err, fmt.Errorf("%w: all were back after %v, permitted are %v", errMissed, back, backWithin))
	}
	return err
}

// join has n agents join, many at a time.
func (c *controllerProcess) join(prefix string, n int) ([]*identity.Credential, error) {
	made, err := c.ask(fmt.Sprintf("tokens %s %d", prefix, n))
	if err != nil {
		return nil, err
	}
	credentials := make([]*identity.Credential, n)
	var joining errgroup.Group
	joining.SetLimit(atOnce)
	for i, text := range made.Tokens {
		joining.Go(func() error {
			token, err := identity.ParseToken(text)
			if err == nil {
				credentials[i], _, err = identity.Join(context.Background(), c.address, token, "")
			}
			return err
		})
	}
	return credentials, joining.Wait()
}

// controllerProcess is the other process.
type controllerProcess struct {
	cmd     *exec.Cmd
	in      *bufio.Writer
	close   func() error
	out     *json.Decoder
	address string
}

// answer is what it says.
type answer struct {
	Address    string
	Tokens     []string
	P50, P99   time.Duration
	Memory     int64 // bytes after a collection
	Peak       int64 // bytes before it
	Goroutines int
	Error      string
}

func startController(dir, address string) (*controllerProcess, error) {
	cmd := exec.Command("/proc/self/exe", controllerRole, dir+" "+address) //nolint:noctx // end ends it
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &controllerProcess{cmd: cmd, in: bufio.NewWriter(in), close: in.Close, out: json.NewDecoder(out)}
	first, err := c.read()
	c.address = first.Address
	return c, err
}

func (c *controllerProcess) read() (answer, error) {
	var a answer
	err := c.out.Decode(&a)
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

func (c *controllerProcess) ask(line string) (answer, error) {
	if _, err := c.in.WriteString(line + "\n"); err != nil {
		return answer{}, err
	}
	if err := c.in.Flush(); err != nil {
		return answer{}, err
	}
	return c.read()
}

// end has it end. Again does nothing.
func (c *controllerProcess) end() error {
	if c.cmd.ProcessState != nil {
		return nil
	}
	_ = c.close()
	return c.cmd.Wait()
}

// realCapabilities is about how many a real host tells of, which the controller keeps.
const realCapabilities = 40

// idleAgent answers what a fleet asks of every host.
type idleAgent struct {
	tcplabv1.UnimplementedAgentServiceServer
	calls atomic.Int64
}

// GetHost is AgentService's.
func (*idleAgent) GetHost(context.Context, *tcplabv1.GetHostRequest) (*tcplabv1.GetHostResponse, error) {
	host := &tcplabv1.Host{Name: "simulated", Cpus: 1, AutoEngine: tcplabv1.Engine_ENGINE_WIRE, AutoEngineReason: "the kernel has no sch_netem"}
	for i := range realCapabilities {
		host.Capabilities = append(host.Capabilities, &tcplabv1.Capability{
			Name: fmt.Sprintf("qdisc.number%d", i), Group: "qdisc", State: tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT, Detail: "it was tried out in a namespace",
		})
	}
	return &tcplabv1.GetHostResponse{Host: host}, nil
}

// ReadClock is AgentService's.
func (a *idleAgent) ReadClock(context.Context, *tcplabv1.ReadClockRequest) (*tcplabv1.ReadClockResponse, error) {
	a.calls.Add(1)
	return &tcplabv1.ReadClockResponse{}, nil
}

// RenewLease is AgentService's.
func (a *idleAgent) RenewLease(context.Context, *tcplabv1.RenewLeaseRequest) (*tcplabv1.RenewLeaseResponse, error) {
	a.calls.Add(1)
	return &tcplabv1.RenewLeaseResponse{}, nil
}

// simulated are agents under way.
type simulated struct {
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	server *grpc.Server
}

// simulate has an agent for each credential. They share one server, as they are one process.
func simulate(credentials []*identity.Credential, address string, agent tcplabv1.AgentServiceServer) *simulated {
	s := &simulated{server: grpc.NewServer(append(tunnel.ServerOptions(), grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10))...)}
	tcplabv1.RegisterAgentServiceServer(s.server, agent)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	lis := tunnel.NewListener()
	s.tasks.Go(func() { _ = s.server.Serve(lis) })
	for _, credential := range credentials {
		link := &tunnel.Agent{
			Controller: address, Credential: credential, Incarnation: 1, Version: "simulated", Log: slog.New(slog.DiscardHandler),
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				return (&net.Dialer{KeepAliveConfig: tunnel.KeepAlive()}).DialContext(ctx, network, address)
			},
		}
		s.tasks.Go(func() { link.Run(ctx, lis) })
	}
	return s
}

func (s *simulated) stop() {
	s.cancel()
	s.server.Stop()
	s.tasks.Wait()
}

// percentile is the value below which a part of sorted values is.
func percentile(values []time.Duration, part float64) time.Duration {
	slices.Sort(values)
	return values[min(len(values)-1, int(part*float64(len(values))))]
}
