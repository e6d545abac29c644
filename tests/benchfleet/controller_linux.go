package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/fleet"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// controllerRole makes this program the controller that is measured.
const controllerRole = "controller"

// awaitWithin bounds how long all agents may take to be there.
const awaitWithin = 5 * time.Minute

// enrolment is the one method of AccessService that simulated agents call.
type enrolment struct {
	tcplabv1.UnimplementedAccessServiceServer
	access *access.Access
}

// Enrol is AccessService's.
func (e enrolment) Enrol(ctx context.Context, req *tcplabv1.EnrolRequest) (*tcplabv1.EnrolResponse, error) {
	return e.access.Enrol(ctx, req)
}

// control is a controller's access and fleet, put together as package controller does, that answers commands
// on in until that ends. Where is its directory and its address.
func control(where string, in io.Reader, out io.Writer) (err error) {
	dir, address, _ := strings.Cut(where, " ")
	if err := manyFiles(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(ctx, dir, store.Options{Lasting: true, Wait: time.Minute})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	authority, err := access.OpenAuthority(filepath.Join(dir, "authority"), 0)
	if err != nil {
		return err
	}
	credential, err := authority.Issue("bench")
	if err != nil {
		return err
	}
	term, err := st.NextTerm(ctx)
	if err != nil {
		return err
	}
	gate, err := access.New(ctx, access.Config{Store: st, Authority: authority, Log: log})
	if err != nil {
		return err
	}
	hosts, err := fleet.New(ctx, fleet.Config{Store: st, Member: gate.Principal, Credential: credential, Term: term, Log: log})
	if err != nil {
		return err
	}
	defer hosts.Close()
	config := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnel.Control}
	lis, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(append(append(gate.ServerOptions(), tunnel.ServerOptions()...),
		grpc.Creds(gate.Handshake(credential, map[string]access.Dispatch{tunnel.Protocol: hosts.Take})))...)
	tcplabv1.RegisterAccessServiceServer(server, enrolment{access: gate})
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer server.Stop()
	defer cancel()
	tasks.Go(func() { _ = server.Serve(lis) })
	tasks.Go(func() { gate.Run(ctx) })
	say := json.NewEncoder(out)
	if err := say.Encode(answer{Address: lis.Addr().String()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if lines.Text() == "drive" {
			tasks.Go(func() {
				if err := drive(ctx, st, hosts, term, log); err != nil {
					fmt.Fprintln(os.Stderr, "benchfleet: drive runs:", err)
				}
			})
			if err := say.Encode(answer{}); err != nil {
				return err
			}
			continue
		}
		a, err := obey(ctx, lines.Text(), gate, hosts)
		if err != nil {
			a.Error = err.Error()
		}
		if err := say.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

// obey does what a line says.
func obey(ctx context.Context, line string, gate *access.Access, hosts *fleet.Fleet) (a answer, err error) {
	var n int
	switch {
	case line == "memory":
		if a.Peak, err = residentOf(os.Getpid()); err != nil {
			return a, err
		}
		debug.FreeOSMemory()
		a.Memory, err = residentOf(os.Getpid())
		a.Goroutines = runtime.NumGoroutine()
	case strings.HasPrefix(line, "heap "):
		err = profile(strings.TrimPrefix(line, "heap "))
	case line == "fanout":
		a.P50, a.P99, err = fanOut(ctx, hosts)
	case strings.HasPrefix(line, "tokens "):
		var prefix string
		if _, err := fmt.Sscanf(line, "tokens %s %d", &prefix, &n); err != nil {
			return a, err
		}
		a.Tokens, err = tokens(ctx, gate, prefix, n)
	case scan(line, "await %d", &n):
		err = await(hosts, n)
	default:
		err = fmt.Errorf("%q is no command", line)
	}
	return a, err
}

func scan(line, format string, n *int) bool {
	_, err := fmt.Sscanf(line, format, n)
	return err == nil
}

// atOnce is how many tokens are made, and agents join, at a time.
const atOnce = 64

// tokens makes a token for each of n hosts.
func tokens(ctx context.Context, gate *access.Access, prefix string, n int) ([]string, error) {
	all := make([]string, n)
	var making errgroup.Group
	making.SetLimit(atOnce)
	for i := range all {
		making.Go(func() (err error) {
			all[i], _, err = gate.CreateToken(ctx, &tcplabv1.CreateTokenRequest{Kind: tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT, Name: fmt.Sprintf("%s-%d", prefix, i)})
			return err
		})
	}
	return all, making.Wait()
}

// profile writes what the heap holds (go tool pprof).
func profile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}

// residentOf is the memory that the kernel counts for a process, in bytes (proc(5), statm).
func residentOf(pid int) (int64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(content), &size, &pages); err != nil {
		return 0, err
	}
	return pages * int64(os.Getpagesize()), nil
}

// connected names the hosts that can be commanded.
func connected(hosts *fleet.Fleet) (names []string) {
	for after := ""; ; {
		page, next := hosts.List(after, 1000)
		for _, h := range page {
			if h.GetConnected() {
				names = append(names, h.GetName())
			}
		}
		if after = next; after == "" {
			return names
		}
	}
}

// await waits until that many hosts are there.
func await(hosts *fleet.Fleet, n int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(awaitWithin)
	for {
		there := len(connected(hosts))
		if there >= n {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("%d of %d agents are there after %v", there, n, awaitWithin)
		}
	}
}

// fanOutMost is how many hosts are commanded at once.
const fanOutMost = 1000

// fanOut commands hosts at once, and says when they had acknowledged it, counted from the first.
func fanOut(ctx context.Context, hosts *fleet.Fleet) (p50, p99 time.Duration, err error) {
	names := connected(hosts)
	names = names[:min(len(names), fanOutMost)]
	took := make([]time.Duration, len(names))
	errs := make([]error, len(names))
	var calls sync.WaitGroup
	began := time.Now()
	for i, name := range names {
		calls.Go(func() {
			_, errs[i] = hosts.Agent(name).RenewLease(ctx, &tcplabv1.RenewLeaseRequest{DeploymentId: "d"})
			took[i] = time.Since(began)
		})
	}
	calls.Wait()
	return percentile(took, 0.5), percentile(took, 0.99), errors.Join(errs...)
}
