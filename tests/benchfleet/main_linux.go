// Command benchfleet measures what a controller's hosts cost it: simulated agents speak the real protocol over real TCP
// and TLS on the loopback, to a controller's access and fleet in a process of its own, whose memory is read from
// the kernel.
//
//	make bench-fleet [AGENTS=100,1000]
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
		counts := flag.String("agents", "100,1000", "how many agents, in turn")
		flag.Parse()
		err = bench(*counts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfleet:", err)
		os.Exit(1)
	}
}

// bench measures with each number of agents, and prints a table.
func bench(counts string) error {
	if err := manyFiles(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%8s  %14s  %16s  %12s  %12s\n", "agents", "KB each", "fan-out p50", "p99", "back after")
	for word := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("-agents %q: want whole numbers above 0", counts)
		}
		if err := measure(n); err != nil {
			return fmt.Errorf("%d agents: %w", n, err)
		}
	}
	return nil
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

// measure is one row.
func measure(n int) error {
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
	idle, err := c.memory()
	if err != nil {
		return err
	}
	tokens, err := c.ask(fmt.Sprintf("tokens %d", n))
	if err != nil {
		return err
	}
	var credentials []*identity.Credential
	var mu sync.Mutex
	var joining errgroup.Group
	joining.SetLimit(16)
	for _, text := range tokens.Tokens {
		joining.Go(func() error {
			token, err := identity.ParseToken(text)
			if err != nil {
				return err
			}
			credential, _, err := identity.Join(context.Background(), c.address, token, "")
			mu.Lock()
			credentials = append(credentials, credential)
			mu.Unlock()
			return err
		})
	}
	if err := joining.Wait(); err != nil {
		return err
	}
	agents := simulate(credentials, c.address)
	defer agents.stop()
	if _, err := c.ask(fmt.Sprintf("await %d", n)); err != nil {
		return err
	}
	full, err := c.memory()
	if err != nil {
		return err
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
	if _, err := again.ask(fmt.Sprintf("await %d", n)); err != nil {
		return err
	}
	back := time.Since(restarted)
	fmt.Fprintf(os.Stdout, "%8d  %14.0f  %16v  %12v  %12v\n", n, float64(full-idle)/1e3/float64(n),
		spread.P50.Round(time.Microsecond), spread.P99.Round(time.Microsecond), back.Round(10*time.Millisecond))
	return nil
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
	Address  string
	Tokens   []string
	P50, P99 time.Duration
	Memory   int64 // bytes
	Error    string
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

// memory is what the process holds after a collection.
func (c *controllerProcess) memory() (int64, error) {
	a, err := c.ask("memory")
	return a.Memory, err
}

// end has it end. Again does nothing.
func (c *controllerProcess) end() error {
	if c.cmd.ProcessState != nil {
		return nil
	}
	_ = c.close()
	return c.cmd.Wait()
}

// idleAgent answers what a fleet asks of every host.
type idleAgent struct {
	tcplabv1.UnimplementedAgentServiceServer
	calls atomic.Int64
}

// GetHost is AgentService's.
func (*idleAgent) GetHost(context.Context, *tcplabv1.GetHostRequest) (*tcplabv1.GetHostResponse, error) {
	return &tcplabv1.GetHostResponse{Host: &tcplabv1.Host{Name: "simulated", Cpus: 1}}, nil
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
func simulate(credentials []*identity.Credential, address string) *simulated {
	s := &simulated{server: grpc.NewServer(append(tunnel.ServerOptions(), grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10))...)}
	tcplabv1.RegisterAgentServiceServer(s.server, &idleAgent{})
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
