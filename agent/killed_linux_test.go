package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// asAgent is the folder in which the test's own program is an agent, for one
// test that must kill it.
const asAgent = "TCPLAB_TEST_AGENT"

func TestMain(m *testing.M) {
	if program.IsFirst() {
		os.Exit(program.First())
	}
	dir := os.Getenv(asAgent)
	if dir == "" {
		goleak.VerifyTestMain(m)
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", filepath.Join(dir, "agent.sock"))
	if err == nil {
		err = Run(context.Background(), Config{SpoolDir: filepath.Join(dir, "spool")}, listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// An agent that is killed in the middle of a bulk transfer leaves nothing: its
// namespaces end, seen by the peers of veths that lead into them, and its next start
// sweeps the spool. The transfer has unsent data in its socket, which is what
// would hold a namespace for minutes.
func TestKilled(t *testing.T) {
	need.NetNS(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), asAgent+"="+dir)
	child.Stderr = t.Output()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "agent.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	agent := tcplabv1.NewAgentServiceClient(conn)
	lab := twoNodes(t, &tcplabv1.Shape{RateBps: 1e6, Delay: durationpb.New(50 * time.Millisecond)}, endless("b"))
	applied, err := agent.Apply(ctx, &tcplabv1.ApplyRequest{DeploymentId: "d", Lab: lab}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.StartTrial(ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t"}); err != nil {
		t.Fatal(err)
	}
	gone := watchNamespaces(t, applied.GetNodes())
	awaitTransfer(ctx, t, applied.GetNodes()[0], applied.GetNodes()[1])
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	killed := time.Now()
	for range applied.GetNodes() {
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Fatal("a namespace outlives its agent by 20 s")
		}
	}
	t.Logf("the namespaces were gone %v after the agent", time.Since(killed))
	if _, err := os.Stat(filepath.Join(dir, "spool", "t")); err != nil {
		t.Errorf("the trial was not in the spool: %v", err)
	}
	next := start(t, filepath.Join(dir, "spool"))
	next.apply(t, "d", twoNodes(t, nil, bulk("b", 1)))
	if _, err := os.Stat(filepath.Join(dir, "spool", "t")); !os.IsNotExist(err) {
		t.Errorf("half a trial is left in the spool: %v", err)
	}
}

// watchNamespaces reports the end of each node's namespace, in which it puts
// one end of a veth whose other end it watches.
func watchNamespaces(t *testing.T, nodes []*tcplabv1.DeployedNode) <-chan struct{} {
	t.Helper()
	outside, err := netns.New("outside")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	err = outside.Do(func() error {
		for i, n := range nodes {
			inside, err := vnetns.GetFromPath(n.GetNetnsPath())
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("watch%d", i)
			peer := netlink.NewVeth(attrs)
			peer.PeerName, peer.PeerNamespace = "watched", netlink.NsFd(int(inside))
			err = netlink.LinkAdd(peer)
			inside.Close()
			if err != nil {
				return err
			}
		}
		return netlink.LinkSubscribe(updates, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	gone, ended := make(chan struct{}, len(nodes)), make(chan struct{})
	go func() {
		defer close(ended)
		for u := range updates { // closed after done
			if u.Header.Type == unix.RTM_DELLINK {
				gone <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	return gone
}

// tcpEstablished is TCP_ESTABLISHED of include/net/tcp_states.h.
const tcpEstablished = 1

// awaitTransfer waits until the client holds data that it cannot send yet, and
// the server has accepted. (Until then a request waits in the server's kernel, whose
// timer of 1 s holds the listener and its namespace, however the process ends:
// net/ipv4/inet_connection_sock.c, reqsk_timer_handler.)
func awaitTransfer(ctx context.Context, t *testing.T, client, server *tcplabv1.DeployedNode) {
	t.Helper()
	awaitSocket(ctx, t, client, func(s *netlink.Socket) bool { return s.WQueue > 1<<20 })
	awaitSocket(ctx, t, server, func(s *netlink.Socket) bool { return s.State == tcpEstablished })
}

// awaitSocket waits for a TCP socket in the node.
func awaitSocket(ctx context.Context, t *testing.T, node *tcplabv1.DeployedNode, is func(*netlink.Socket) bool) {
	t.Helper()
	inside, err := vnetns.GetFromPath(node.GetNetnsPath())
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	handle, err := netlink.NewHandleAt(inside, unix.NETLINK_INET_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	for {
		sockets, err := handle.SocketDiagTCP(unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(sockets, is) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("node %s has no such socket", node.GetName())
		case <-time.After(time.Millisecond):
		}
	}
}
