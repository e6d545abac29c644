package observe

import (
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// watchSockets watches one node until the returned function is called.
func watchSockets(t *testing.T, ns *netns.Handle, cfg SocketsConfig) (stop func() *tcplabv1.NodeSockets) {
	t.Helper()
	begin := time.Now()
	cfg.Nodes = []SocketNode{{Name: "node", NS: ns, Owners: NewOwners()}}
	cfg.Interval = time.Millisecond
	var reason strings.Builder
	cfg.Log = slog.New(slog.NewTextHandler(&reason, nil))
	s, err := WatchSockets(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.States && !cfg.Polled && s.events == nil {
		if _, err := s.Stop(begin); err != nil {
			t.Error(err)
		}
		need.Missing(t, "sockops", reason.String())
	}
	return func() *tcplabv1.NodeSockets {
		t.Helper()
		all, err := s.Stop(begin)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			return nil
		}
		return all[0]
	}
}

// path is that of the socket that had it, where there is one.
func pathOf(n *tcplabv1.NodeSockets, local string) []string {
	var all []string
	for _, s := range n.GetSockets() {
		if s.GetLocal() == local {
			all = append(all, s.GetPath())
		}
	}
	return all
}

func total(n *tcplabv1.NodeSockets, state tcplabv1.TcpState) *tcplabv1.StateTotals {
	for _, s := range n.GetStates() {
		if s.GetState() == state {
			return s
		}
	}
	return nil
}

// The kernel tells of every state of both ends and of the listener, however short it was.
func TestKernelTellsOfStates(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			ns, stranger := node(t), node(t)
			stop := watchSockets(t, ns, SocketsConfig{States: true})
			pair(t, stranger, host)
			listener, client, server := pair(t, ns, host)
			at := listener.Addr().String()
			client.CloseWrite()
			if _, err := io.Copy(io.Discard, server); err != nil {
				t.Fatal(err)
			}
			server.Close()
			if _, err := io.Copy(io.Discard, client); err != nil {
				t.Fatal(err)
			}
			client.Close()
			listener.Close()
			got := stop()
			if got.GetSource() != tcplabv1.StateSource_STATE_SOURCE_KERNEL || got.GetLost() != 0 || len(got.GetSockets()) != 3 {
				t.Errorf("%v", got)
			}
			if want := []string{"SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"}; !slices.Equal(pathOf(got, client.LocalAddr().String()), want) {
				t.Errorf("the client: %q", pathOf(got, client.LocalAddr().String()))
			}
			if want := []string{"LISTEN CLOSE", "SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"}; !slices.Equal(pathOf(got, at), want) {
				t.Errorf("the server: %q", pathOf(got, at))
			}
			if s := total(got, tcplabv1.TcpState_TCP_STATE_TIME_WAIT); s.GetEntered() != 1 || s.GetPeak() != 1 || s.GetLast() != 1 {
				t.Errorf("TIME_WAIT: %v", s)
			}
			if s := total(got, tcplabv1.TcpState_TCP_STATE_ESTABLISHED); s.GetEntered() != 2 || s.GetPeak() != 2 || s.GetLast() != 0 {
				t.Errorf("ESTABLISHED: %v", s)
			}
			var before time.Duration
			for _, c := range got.GetSockets()[1].GetStates() {
				if at := c.GetAt().AsDuration(); at < before || at > time.Minute {
					t.Errorf("states at %v", got.GetSockets()[1].GetStates())
				} else {
					before = at
				}
			}
		})
	}
}

// Without the kernel's word states are seen that last.
func TestStatesAreLookedAt(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	ns := node(t)
	looks := make(kept, 10_000)
	stop := watchSockets(t, ns, SocketsConfig{States: true, Polled: true, Sink: looks})
	d, err := NewDiag(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, client, server := pair(t, ns, "127.0.0.1")
	seen := Socket{Local: address(client.LocalAddr()), Remote: address(client.RemoteAddr()), Cookie: cookie(t, client)}
	<-looks // it was seen
	client.CloseWrite()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	awaitState(t, d, &seen, StateTimeWait)
	got := stop()
	if got.GetSource() != tcplabv1.StateSource_STATE_SOURCE_POLLED || total(got, tcplabv1.TcpState_TCP_STATE_ESTABLISHED) == nil {
		t.Errorf("%v", got)
	}
	if total(got, tcplabv1.TcpState_TCP_STATE_TIME_WAIT).GetLast() != 1 || total(got, tcplabv1.TcpState_TCP_STATE_LISTEN).GetLast() != 1 {
		t.Errorf("%v", got)
	}
}

// A connection that is reset, and one that is refused, have no TIME_WAIT.
func TestStatesOfConnectionsThatFail(t *testing.T) {
	ns := node(t)
	stop := watchSockets(t, ns, SocketsConfig{States: true})
	_, client, server := pair(t, ns, "127.0.0.1")
	if err := server.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a reset connection is read")
	}
	err := ns.Do(func() error {
		if conn, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
			conn.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := stop()
	if s := total(got, tcplabv1.TcpState_TCP_STATE_TIME_WAIT); s != nil {
		t.Errorf("TIME_WAIT: %v", s)
	}
	if path := pathOf(got, client.LocalAddr().String()); !slices.Equal(path, []string{"SYN_SENT ESTABLISHED CLOSE"}) {
		t.Errorf("the client: %q", path)
	}
	if last := got.GetSockets()[len(got.GetSockets())-1].GetPath(); last != "SYN_SENT CLOSE" {
		t.Errorf("the refused connection: %q", last)
	}
}

// Sockets of programs are sampled, and those of flows are not.
func TestSocketsWithoutAnOwnerAreSampled(t *testing.T) {
	ns := node(t)
	_, client, server := pair(t, ns, "127.0.0.1")
	owners := NewOwners()
	owners.Opened(cookie(t, server), Owner{"get", "server"})
	sink := make(kept, 1000)
	s, err := WatchSockets(SocketsConfig{Nodes: []SocketNode{{Name: "node", NS: ns, Owners: owners}}, Interval: time.Millisecond, Sink: sink})
	if err != nil {
		t.Fatal(err)
	}
	want := client.LocalAddr().String() + ">" + client.RemoteAddr().String()
	for range 5 {
		if got := <-sink; got.Flow != want || got.End != "node" || got.Info.State != StateEstablished {
			t.Errorf("sample %+v, want of %s", got, want)
		}
	}
	if states, err := s.Stop(time.Now()); err != nil || states != nil {
		t.Errorf("states nobody asked for: %v, %v", states, err)
	}
}
