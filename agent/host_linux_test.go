package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// playground is a namespace that plays the host, with an agent in it and an
// interface eth1 to another that plays the world, where a server echoes.
type playground struct {
	tcplabv1.AgentServiceClient
	host, world *netns.Handle
	agent       *exec.Cmd
	dir         string
	ask         *net.UDPConn
}

const worldDelay = 150 * time.Millisecond

func newPlayground(t *testing.T) *playground {
	t.Helper()
	need.NetNS(t)
	need.TUN(t)
	p := &playground{dir: t.TempDir()}
	for name, at := range map[string]**netns.Handle{"host": &p.host, "world": &p.world} {
		space, err := netns.New(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { space.Close() })
		*at = space
	}
	err := p.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth1"
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(p.world.FD())
		return errors.Join(netlink.LinkAdd(pair), addressed("eth1", "192.0.2.1/24"))
	})
	if err == nil {
		err = p.world.Do(func() error { return addressed("eth0", "192.0.2.2/24") })
	}
	var echo *net.UDPConn
	if err == nil {
		err = p.world.Do(func() (err error) {
			echo, err = net.ListenUDP("udp", &net.UDPAddr{Port: 4000})
			return err
		})
	}
	if err == nil {
		err = p.host.Do(func() (err error) {
			p.ask, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 4000})
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		p.ask.Close()
		echo.Close()
		<-done
	})
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.agent = exec.CommandContext(t.Context(), program)
	p.agent.Env = append(os.Environ(), asAgent+"="+p.dir)
	p.agent.Stderr = os.Stderr
	if err := p.host.Do(p.agent.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.agent.Process.Kill() // it may be dead already
		_ = p.agent.Wait()
	})
	conn, err := grpc.NewClient("unix:"+filepath.Join(p.dir, "agent.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p.AgentServiceClient = tcplabv1.NewAgentServiceClient(conn)
	return p
}

func addressed(name, text string) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(device, address), netlink.LinkSetUp(device))
}

// roundTrip is the least of a few datagrams' within the limit, or an error.
func (p *playground) roundTrip(limit time.Duration) (time.Duration, error) {
	buf := make([]byte, 100)
	deadline := time.Now().Add(limit)
	for {
		begin := time.Now()
		if err := p.ask.SetReadDeadline(begin.Add(3 * worldDelay)); err != nil {
			return 0, err
		}
		if _, err := p.ask.Write(buf); err != nil {
			return 0, err
		}
		if _, err := p.ask.Read(buf); err == nil {
			return time.Since(begin), nil
		} else if time.Now().After(deadline) {
			return 0, err
		}
	}
}

// hostLab is two nodes and a flow between them, and the host's eth1 shaped towards the world.
func hostLab(t *testing.T) *tcplabv1.Lab {
	t.Helper()
	lab := twoNodes(t, nil, bulk("b", 1e5))
	shape := &tcplabv1.Shape{Delay: durationpb.New(worldDelay)}
	lab.Nodes = append(lab.Nodes,
		&tcplabv1.Node{Name: "me", Stack: tcplabv1.NodeStack_NODE_STACK_HOST},
		&tcplabv1.Node{Name: "world", Stack: tcplabv1.NodeStack_NODE_STACK_OUTSIDE})
	lab.Links = append(lab.Links, &tcplabv1.Link{
		Name: "me-world", A: &tcplabv1.LinkEnd{Node: "me", Interface: "eth1"}, B: &tcplabv1.LinkEnd{Node: "world"},
		Forward: &tcplabv1.Direction{Shape: shape}, Backward: &tcplabv1.Direction{Shape: shape},
		HostMatch: &tcplabv1.Match{Destination: "192.0.2.0/24", Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_UDP},
	})
	return complete(t, lab)
}

// An agent shapes an interface of its host beside the lab's own nodes, proves that
// link as any other, and leaves the interface as it was: removed, and killed.
func TestHostInterface(t *testing.T) {
	p := newPlayground(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	lab := hostLab(t)
	apply := func() {
		t.Helper()
		applied, err := p.Apply(ctx, &tcplabv1.ApplyRequest{DeploymentId: "d", Lab: lab}, grpc.WaitForReady(true))
		if err != nil {
			if e := rpcerr.From(err); e != nil && strings.Contains(e.Error(), "interfaces cannot be shaped") {
				need.Missing(t, "tcx", err.Error())
			}
			t.Fatal(err)
		}
		if got := applied.GetNodes()[2].GetNetnsPath(); got != "" {
			t.Errorf("the host's own stack has the path %q", got)
		}
	}
	apply()
	if took, err := p.roundTrip(5 * time.Second); err != nil || took < 2*worldDelay {
		t.Errorf("shaped, a round trip takes %v: %v", took, err)
	}
	verified, err := p.Verify(ctx, &tcplabv1.VerifyRequest{DeploymentId: "d"})
	if err != nil {
		t.Fatal(err)
	}
	proven := 0
	for _, l := range verified.GetLinks() {
		if l.GetName() != "me-world" {
			continue
		}
		if l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED || l.GetMeasured().GetDelay().AsDuration() < worldDelay {
			t.Errorf("the host's link: %v", l)
		}
		proven++
	}
	if proven != 2 {
		t.Errorf("%d directions of the host's link were measured", proven)
	}
	if took, err := p.roundTrip(5 * time.Second); err != nil || took < 2*worldDelay {
		t.Errorf("after verification a round trip takes %v: %v", took, err)
	}
	if _, err := p.Remove(ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
		t.Fatal(err)
	}
	if took, err := p.roundTrip(time.Second); err != nil || took >= worldDelay {
		t.Errorf("removed, a round trip takes %v: %v", took, err)
	}
	apply()
	if took, err := p.roundTrip(5 * time.Second); err != nil || took < 2*worldDelay {
		t.Errorf("shaped again, a round trip takes %v: %v", took, err)
	}
	if err := p.agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for {
		took, err := p.roundTrip(time.Second)
		if err == nil && took < worldDelay {
			break
		}
		if time.Since(killed) > 2*time.Second {
			t.Fatalf("2 s after kill -9 a round trip takes %v: %v", took, err)
		}
	}
	var names []string
	err = p.host.Do(func() error {
		all, err := netlink.LinkList()
		for _, d := range all {
			names = append(names, d.Attrs().Name)
		}
		return err
	})
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"eth1", "lo"}) {
		t.Errorf("the host has %v: %v", names, err)
	}
}

// What nothing on the wire can do: shape what the host's policy does not permit.
func TestHostInterfaceRefused(t *testing.T) {
	p := newPlayground(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for name, test := range map[string]struct {
		change func(*tcplabv1.Link)
		want   string
	}{
		"the loopback": {func(l *tcplabv1.Link) { l.A.Interface = "lo" }, "interfaces.loopback"},
		"ssh": {func(l *tcplabv1.Link) {
			l.HostMatch = &tcplabv1.Match{Protocol: tcplabv1.IpProtocol_IP_PROTOCOL_TCP, Port: 22}
		}, "never shaped"},
		"no such interface": {func(l *tcplabv1.Link) { l.A.Interface = "eth7" }, "no interface"},
		"no match":          {func(l *tcplabv1.Link) { l.HostMatch = nil }, "never shaped as a whole"},
	} {
		t.Run(name, func(t *testing.T) {
			lab := hostLab(t)
			test.change(lab.GetLinks()[1])
			_, err := p.Apply(ctx, &tcplabv1.ApplyRequest{DeploymentId: "refused", Lab: lab}, grpc.WaitForReady(true))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Apply: %v, want %q in it", err, test.want)
			}
		})
	}
}
