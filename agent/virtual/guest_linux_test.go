package virtual

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	// asSpinner has the guest start a program that spins, before all else.
	asSpinner = "TCPLAB_TEST_SPINNER"
	// asParent makes this binary one that boots a guest in the folder that is its value, and waits.
	asParent = "TCPLAB_TEST_PARENT"
)

func TestMain(m *testing.M) {
	if IsGuest() {
		if program := os.Getenv(asSpinner); program != "" {
			if err := errors.Join(mount("proc", "/proc", "proc", ""), yieldToKernel(), exec.Command("/bin/sh", "-c", program).Start()); err != nil {
				fmt.Fprintln(os.Stderr, "start the spinner:", err)
			}
		}
		os.Exit(Guest())
	}
	if dir := os.Getenv(asParent); dir != "" {
		os.Exit(parent(dir))
	}
	goleak.VerifyTestMain(m)
}

// standingLab is a lab whose one flow waits for most of a virtual day.
func standingLab() *tcplabv1.Lab {
	lab := handshake("20ms")
	lab.Experiments[0].Timeout = durationpb.New(24 * time.Hour)
	lab.Experiments[0].Flows[0].Start = durationpb.New(23 * time.Hour)
	return lab
}

// handshake is that lab at a round trip, with its addresses.
func handshake(rtt string) *tcplabv1.Lab {
	src, err := labs.Load("handshake")
	if err != nil {
		panic(err)
	}
	file, err := labs.Parse(src)
	if err != nil {
		panic(err)
	}
	points, err := file.Expand([]labs.Override{{Name: "rtt", Values: []string{rtt}}})
	if err == nil {
		err = labs.Assign(points[0], nil)
	}
	if err != nil {
		panic(err)
	}
	return points[0]
}

// serve has the agent of virtual time served, and is its client. Its folder is empty at the end.
func serve(t *testing.T, change func(*Config)) tcplabv1.AgentServiceClient {
	t.Helper()
	cfg := Config{Dir: filepath.Join(t.TempDir(), "guests"), Kernels: []string{need.GuestKernel(t)}, HostName: "here"}
	if change != nil {
		change(&cfg)
	}
	pipe := bufconn.Listen(1 << 20)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, pipe) }()
	conn, err := grpc.NewClient("passthrough:///guests",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of guests is left (%v)", err)
		}
	})
	return tcplabv1.NewAgentServiceClient(conn)
}

func apply(t *testing.T, agent tcplabv1.AgentServiceClient, id string, lab *tcplabv1.Lab) error {
	t.Helper()
	_, err := agent.Apply(t.Context(), &tcplabv1.ApplyRequest{DeploymentId: id, Lab: lab, Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL})
	return err
}

// run takes a trial from nothing to its end.
func run(t *testing.T, agent tcplabv1.AgentServiceClient, id string, lab *tcplabv1.Lab) (*tcplabv1.TrialEnded, error) {
	t.Helper()
	ctx := t.Context()
	if err := apply(t, agent, id, lab); err != nil {
		return nil, err
	}
	verified, err := agent.Verify(ctx, &tcplabv1.VerifyRequest{DeploymentId: id})
	if err != nil {
		return nil, err
	}
	for _, l := range verified.GetLinks() {
		if l.GetVerdict() != tcplabv1.LinkVerdict_LINK_VERDICT_PASSED || l.GetEngine() != tcplabv1.Engine_ENGINE_NETEM {
			t.Errorf("link %s %v: %v by %v: %s", l.GetName(), l.GetDirection(), l.GetVerdict(), l.GetEngine(), l.GetDetail())
		}
	}
	if _, err := agent.StartTrial(ctx, &tcplabv1.StartTrialRequest{DeploymentId: id, TrialId: id}); err != nil {
		return nil, err
	}
	return watchTrial(t, agent, id)
}

func watchTrial(t *testing.T, agent tcplabv1.AgentServiceClient, id string) (*tcplabv1.TrialEnded, error) {
	t.Helper()
	events, err := agent.WatchTrial(t.Context(), &tcplabv1.WatchTrialRequest{TrialId: id})
	if err != nil {
		return nil, err
	}
	for {
		event, err := events.Recv()
		if err != nil {
			return nil, err
		}
		if event.GetTrialEnded() != nil {
			return event.GetTrialEnded(), nil
		}
	}
}

// A trial's result is exact, whole, and the same again.
func TestTrial(t *testing.T) {
	agent := serve(t, nil)
	lab := handshake("20ms")
	var times []time.Duration
	for n := range 3 {
		id := fmt.Sprintf("trial-%d", n)
		ended, err := run(t, agent, id, lab)
		if err != nil || ended.GetFailure() != "" {
			t.Fatalf("%v: %s", err, ended.GetFailure())
		}
		result := ended.GetResult()
		if result.GetTime() != tcplabv1.TimeMode_TIME_MODE_VIRTUAL || result.GetVirtualTime().GetConfigHash() == "" ||
			result.GetVirtualTime().GetWall().AsDuration() <= 0 || result.GetKernel().GetHz() != 1000 || !strings.HasSuffix(result.GetKernel().GetRelease(), "-tcplab") {
			t.Errorf("time %v, %v, kernel %v", result.GetTime(), result.GetVirtualTime(), result.GetKernel())
		}
		flow := result.GetFlows()[0]
		times = append(times, flow.GetConnect().GetP50().AsDuration(), flow.GetLatency().GetMin().AsDuration())
		for _, artifact := range result.GetArtifacts() {
			content := read(t, agent, id, artifact.GetName())
			if sum := sha256.Sum256(content); uint64(len(content)) != artifact.GetSize() || string(sum[:]) != string(artifact.GetSha256()) {
				t.Errorf("%s has %d bytes, or another sum", artifact.GetName(), len(content))
			}
		}
		if len(result.GetArtifacts()) == 0 {
			t.Error("there are no samples")
		}
		if _, err := agent.AcknowledgeTrial(t.Context(), &tcplabv1.AcknowledgeTrialRequest{TrialId: id}); err != nil {
			t.Error(err)
		}
		if _, err := agent.Remove(t.Context(), &tcplabv1.RemoveRequest{DeploymentId: id}); err != nil {
			t.Error(err)
		}
	}
	for i, took := range times {
		// A round trip of 20 ms, exact to a thousandth; the first of two packets passes the bottleneck's burst.
		if (took - 20*time.Millisecond).Abs() > 20*time.Microsecond {
			t.Errorf("time %d is %v", i, took)
		}
		if diff := (took - times[i%2]).Abs(); diff > 20*time.Microsecond {
			t.Errorf("time %d is %v, and was %v", i, took, times[i%2])
		}
	}
}

func read(t *testing.T, agent tcplabv1.AgentServiceClient, id, name string) (content []byte) {
	t.Helper()
	pieces, err := agent.ReadArtifact(t.Context(), &tcplabv1.ReadArtifactRequest{TrialId: id, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	for {
		piece, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			return content
		}
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, piece.GetData()...)
	}
}

// What no guest can carry is refused before one boots, and what its agent refuses comes through.
func TestRefusals(t *testing.T) {
	agent := serve(t, nil)
	for name, test := range map[string]struct {
		change func(*tcplabv1.ApplyRequest)
		reason rpcerr.Reason
		says   string
	}{
		"the real clock":  {func(r *tcplabv1.ApplyRequest) { r.Time = tcplabv1.TimeMode_TIME_MODE_REAL }, rpcerr.RequestInvalid, "in virtual time"},
		"the wire engine": {func(r *tcplabv1.ApplyRequest) { r.Lab.Links[0].Engine = tcplabv1.Engine_ENGINE_WIRE }, rpcerr.LabInvalid, "the wire engine"},
		"a host's stack":  {func(r *tcplabv1.ApplyRequest) { r.Lab.Nodes[0].Stack = tcplabv1.NodeStack_NODE_STACK_HOST }, rpcerr.LabInvalid, "own network stack"},
		"a broken lab":    {func(r *tcplabv1.ApplyRequest) { r.Lab.Links[0].B.Node = "nobody" }, rpcerr.LabInvalid, "nobody"},
		"a sysctl that there is not": {func(r *tcplabv1.ApplyRequest) {
			r.Lab.Nodes[0].Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
		}, "", "no_such_thing"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &tcplabv1.ApplyRequest{DeploymentId: "refused", Lab: handshake("20ms"), Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL}
			test.change(r)
			_, err := agent.Apply(t.Context(), r)
			told := rpcerr.From(err)
			if err == nil || !strings.Contains(fmt.Sprint(told.Message, told.Violations), test.says) || test.reason != "" && told.Reason != test.reason {
				t.Errorf("the error is %+v", told)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	agent := serve(t, func(cfg *Config) { cfg.Kernels = []string{t.TempDir()} })
	err := apply(t, agent, "a", handshake("20ms"))
	if told := rpcerr.From(err); told.Reason != rpcerr.HostUnsupported || !strings.Contains(told.Remedy, "tcplab kernel build") {
		t.Errorf("the error is %+v", told)
	}
}

// A day of waiting takes no time.
func TestWaiting(t *testing.T) {
	agent := serve(t, nil)
	ended, err := run(t, agent, "waits", standingLab())
	if err != nil || ended.GetFailure() != "" {
		t.Fatalf("%v: %s", err, ended.GetFailure())
	}
	if passed := ended.GetResult().GetVirtualTime().GetPassed().AsDuration(); passed < 23*time.Hour {
		t.Errorf("a day took %v", passed)
	}
}

// A trial that is cancelled ends, whatever its guest does.
func TestCancelled(t *testing.T) {
	var dir string
	agent := serve(t, func(cfg *Config) { dir, cfg.params = cfg.Dir, []string{asSpinner + "=exec${IFS}yes>/dev/null"} })
	// The guest spins before it says a word, so that Apply waits.
	applied := make(chan error, 1)
	go func() { applied <- apply(t, agent, "spins", handshake("20ms")) }()
	waitForKernel(t, dir)
	if _, err := agent.Remove(t.Context(), &tcplabv1.RemoveRequest{DeploymentId: "spins"}); err != nil {
		t.Error(err)
	}
	if err := <-applied; err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("Apply says %v", err)
	}
}

// A program that spins is named, whether it calls the kernel or not.
func TestSpinnerIsNamed(t *testing.T) {
	for name, program := range map[string]string{
		"yes": "sleep${IFS}0.05;exec${IFS}yes>/dev/null",
		"awk": "sleep${IFS}0.05;exec${IFS}awk${IFS}'BEGIN{while(1);}'",
	} {
		t.Run(name, func(t *testing.T) {
			agent := serve(t, func(cfg *Config) {
				cfg.Spin, cfg.params = 3*time.Second, []string{asSpinner + "=" + program}
			})
			ended, err := run(t, agent, "spins", handshake("20ms"))
			if err == nil {
				err = errors.New(ended.GetFailure())
			}
			if !strings.Contains(err.Error(), name+" (") || !strings.Contains(err.Error(), "spins") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// A guest that takes too long is killed.
func TestLimit(t *testing.T) {
	agent := serve(t, func(cfg *Config) { cfg.Limit = time.Millisecond })
	err := apply(t, agent, "slow", handshake("20ms"))
	if err == nil || !strings.Contains(err.Error(), "took longer than 1ms of real time") {
		t.Errorf("the error is %v", err)
	}
}

// Guests run beside one another.
func TestGuestsSideBySide(t *testing.T) {
	agent := serve(t, nil)
	t.Run("", func(t *testing.T) {
		for _, rtt := range []string{"10ms", "200ms"} {
			t.Run(rtt, func(t *testing.T) {
				t.Parallel()
				ended, err := run(t, agent, "at-"+rtt, handshake(rtt))
				if err != nil || ended.GetFailure() != "" {
					t.Fatalf("%v: %s", err, ended.GetFailure())
				}
				want, err := time.ParseDuration(rtt)
				if got := ended.GetResult().GetFlows()[0].GetConnect().GetP50().AsDuration(); err != nil || (got-want).Abs() > want/1000 {
					t.Errorf("connecting took %v", got)
				}
			})
		}
	})
}

// What a guest cannot do it says.
func TestUnimplemented(t *testing.T) {
	agent := serve(t, nil)
	_, err := agent.ReadLinks(t.Context(), &tcplabv1.ReadLinksRequest{DeploymentId: "x"})
	if told := rpcerr.From(err); told.Code != codes.Unimplemented || !strings.Contains(told.Message, "virtual time") {
		t.Errorf("the error is %+v", told)
	}
}

// parent boots a guest that spins, says so and waits to be killed.
func parent(dir string) int {
	pipe := bufconn.Listen(1 << 20)
	go func() {
		fmt.Println(Run(context.Background(), Config{Dir: dir, Kernels: []string{os.Getenv("KERNELS")}, params: []string{asSpinner + "=exec${IFS}yes>/dev/null"}}, pipe))
	}()
	conn, err := grpc.NewClient("passthrough:///guests",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 1
	}
	_, err = tcplabv1.NewAgentServiceClient(conn).Apply(context.Background(), &tcplabv1.ApplyRequest{DeploymentId: "spins", Lab: handshake("20ms"), Time: tcplabv1.TimeMode_TIME_MODE_VIRTUAL})
	fmt.Println(err)
	return 1
}

// kill -9 of the agent's process leaves no process, and files that the next agent sweeps.
func TestKilledParent(t *testing.T) {
	kernels := need.GuestKernel(t)
	dir := filepath.Join(t.TempDir(), "guests")
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), asParent+"="+dir, "KERNELS="+kernels)
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer process.Wait()
	defer process.Process.Kill()
	processes := waitForKernel(t, dir)
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		ended := []unix.PollFd{{Fd: int32(p.Fd()), Events: unix.POLLIN}}
		n, err := 0, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(ended, 10_000)
		}
		if n != 1 {
			t.Errorf("%s outlives its parent by 10 s (%v)", p.Name(), err)
		}
	}
	if err := sweep(dir); err != nil {
		t.Fatal(err)
	}
}

// waitForKernel waits until a guest below the folder has programs, and opens its kernel's process and theirs.
func waitForKernel(t *testing.T, dir string) []*os.File {
	t.Helper()
	open := func(pid int) *os.File {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil // it has ended
		}
		p := os.NewFile(uintptr(fd), fmt.Sprint("process ", pid))
		t.Cleanup(func() { p.Close() })
		return p
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		folders, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range folders {
			args, err := os.ReadFile(filepath.Join(folder, "cmdline"))
			if err != nil || !strings.Contains(string(args), "\x00uml_dir="+dir) || !strings.Contains(string(args), initArg) {
				continue
			}
			var pid int
			if _, err := fmt.Sscan(filepath.Base(folder), &pid); err != nil {
				t.Fatal(err)
			}
			children, err := os.ReadFile(filepath.Join(folder, "task", filepath.Base(folder), "children"))
			// The guest's init, and what it has started.
			if all := strings.Fields(string(children)); err == nil && len(all) >= 2 {
				found := []*os.File{open(pid)}
				for _, child := range all {
					if _, err := fmt.Sscan(child, &pid); err != nil {
						t.Fatal(err)
					}
					found = append(found, open(pid))
				}
				return slices.DeleteFunc(found, func(p *os.File) bool { return p == nil })
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	t.Fatal("no guest has booted")
	return nil
}

// The same lab with the same seeds is the same trial, and another seed another one.
func TestSeed(t *testing.T) {
	lab := handshake("20ms")
	seed := func(change func(*tcplabv1.Lab)) uint64 {
		other := proto.CloneOf(lab)
		change(other)
		return newGuest(t.Context(), Config{}, &tcplabv1.ApplyRequest{DeploymentId: "x", Lab: other}, 0).seed()
	}
	same := seed(func(*tcplabv1.Lab) {})
	if again := seed(func(*tcplabv1.Lab) {}); again != same {
		t.Errorf("the seed is %d, then %d", same, again)
	}
	if other := seed(func(l *tcplabv1.Lab) { l.Links[0].Forward.Seed = 7 }); other == same {
		t.Errorf("another seed of a link's is the same seed: %s", protojson.Format(lab))
	}
}
