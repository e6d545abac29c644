package connect

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// A server with a fault: what the client counts, and what the flow's outcome is.
func TestServerWithAFault(t *testing.T) {
	const count = 20
	for fault, test := range map[tcplabv1.FlowFault]struct {
		outcome                   tcplabv1.FlowOutcome
		made, unfinished, refused uint64
		reset                     uint64
	}{
		tcplabv1.FlowFault_FLOW_FAULT_REFUSE: {tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED, 0, 0, count, 0},
		tcplabv1.FlowFault_FLOW_FAULT_RESET:  {tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, count, 0, 0, count},
		tcplabv1.FlowFault_FLOW_FAULT_DEAF:   {tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE, 3, 3, 0, 0},
	} {
		t.Run(fault.String(), func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t)
			spec := connections(&tcplabv1.Connect{Count: count, Concurrency: 3, Requests: 1, Request: 100, Reply: 100})
			spec.Fault = fault
			within := limit
			if fault == tcplabv1.FlowFault_FLOW_FAULT_DEAF {
				within = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			r := listening(t, spec, cfg).Run(ctx)
			if r.GetOutcome() != test.outcome || r.GetError() == "" {
				t.Errorf("%s: %s", r.GetOutcome(), r.GetError())
			}
			got := r.GetConnections()
			if got.GetMade() != test.made || got.GetUnfinished() != test.unfinished || got.GetErrors().GetRefused() != test.refused || got.GetErrors().GetReset_() != test.reset ||
				got.GetFailed() != test.refused+test.reset || uint64(r.GetConnect().GetCount()) != test.made {
				t.Errorf("%v", got)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

// What the network does with a handshake, and what the flow says of it.
func TestHandshakesThatFail(t *testing.T) {
	for name, test := range map[string]struct {
		spec    *tcplabv1.Connect
		harm    func(*testing.T, flow.Config) // after the server listens
		outcome tcplabv1.FlowOutcome
		want    *tcplabv1.Connections
	}{
		"no answer until the deadline": {
			&tcplabv1.Connect{Count: 3, Concurrency: 2},
			func(t *testing.T, cfg flow.Config) { flowtest.LoseAddress(t, cfg.Server) },
			tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE,
			&tcplabv1.Connections{Attempted: 2, Unfinished: 2, Peak: 2},
		},
		"no answer in time": {
			&tcplabv1.Connect{Count: 3, ConnectTimeout: durationpb.New(20 * time.Millisecond)},
			func(t *testing.T, cfg flow.Config) { flowtest.LoseAddress(t, cfg.Server) },
			tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT,
			&tcplabv1.Connections{Attempted: 3, Failed: 3, Peak: 1, Errors: &tcplabv1.ConnectionErrors{Total: 3, TimedOut: 3}},
		},
		"no route": {
			&tcplabv1.Connect{Count: 2},
			func(t *testing.T, cfg flow.Config) { flowtest.LoseRoutes(t, cfg.Client) },
			tcplabv1.FlowOutcome_FLOW_OUTCOME_UNREACHABLE,
			&tcplabv1.Connections{Attempted: 2, Failed: 2, Errors: &tcplabv1.ConnectionErrors{Total: 2, NetworkUnreachable: 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t)
			f := listening(t, connections(test.spec), cfg)
			test.harm(t, cfg)
			within := limit
			if test.outcome == tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE {
				within = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			r := f.Run(ctx)
			if r.GetOutcome() != test.outcome || r.GetError() == "" {
				t.Errorf("%s: %s", r.GetOutcome(), r.GetError())
			}
			got := r.GetConnections()
			got.Request, got.ServerErrors = nil, nil
			if test.want.Errors == nil {
				test.want.Errors = &tcplabv1.ConnectionErrors{}
			}
			if !proto.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

// P ports give P connections, and then EADDRNOTAVAIL: while the connections stand, and while the
// client that ended them waits in TIME_WAIT.
func TestPortsRunOut(t *testing.T) {
	const ports, count = 7, 12
	for name, spec := range map[string]*tcplabv1.Connect{
		"held":      {Count: count, Concurrency: count, Hold: durationpb.New(100 * time.Millisecond)},
		"time wait": {Count: count},
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t)
			flowtest.SetSysctl(t, cfg.Client.NS, "net/ipv4/tcp_tw_reuse", "0")
			spec := connections(spec)
			spec.Socket = &tcplabv1.SocketOptions{LocalPorts: &tcplabv1.PortRange{First: 40_001, Last: 40_000 + ports}}
			r := result(t, spec, cfg)
			if got := r.GetConnections(); got.GetMade() != ports || got.GetServed() != ports || got.GetErrors().GetAddressNotAvailable() != count-ports {
				t.Errorf("%v", got)
			}
			if n := flowtest.Counters(t, cfg.Client)[0]["SockstatTCPTw"]; n != ports {
				t.Errorf("%d in TIME_WAIT", n)
			}
		})
	}
}

func TestFilesRunOut(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	const count = 100
	f := listening(t, connections(&tcplabv1.Connect{Count: count, Concurrency: count, Hold: durationpb.New(50 * time.Millisecond)}), cfg)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var limits unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limits); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limits)
	few := limits
	few.Cur = uint64(len(open)) + 60
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := f.Run(ctx)
	got := r.GetConnections()
	if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR || got.GetErrors().GetTooManyFiles() == 0 || got.GetMade()+got.GetErrors().GetTooManyFiles() != count || got.GetUnfinished() != 0 || got.GetMade() != got.GetAccepted() {
		t.Errorf("%s: %v", r.GetError(), got)
	}
}

// A server that breaks the agreement: each way is counted as what it is.
func TestServerThatBreaksTheAgreement(t *testing.T) {
	for name, test := range map[string]struct {
		server  func(socket.FD) // does its part on a connection, which is then closed with a reset
		close   tcplabv1.ConnectClose
		outcome tcplabv1.FlowOutcome
		count   func(*tcplabv1.ConnectionErrors) uint64
	}{
		"reset": {
			func(socket.FD) {},
			tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT, tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, (*tcplabv1.ConnectionErrors).GetReset_,
		},
		"reset after the reply": {
			func(fd socket.FD) { fd.Send(make([]byte, 10)) },
			tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER, tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, (*tcplabv1.ConnectionErrors).GetReset_,
		},
		"half a reply": {
			func(fd socket.FD) {
				fd.Send(make([]byte, 5))
				fd.FinishWriting()
				fd.Discard(make([]byte, 1))
			},
			tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT, tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY, (*tcplabv1.ConnectionErrors).GetEndedEarly,
		},
		"too much": {
			func(fd socket.FD) {
				fd.Send(make([]byte, 11))
				fd.Discard(make([]byte, 1))
			},
			tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER, tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR, (*tcplabv1.ConnectionErrors).GetTooMuch,
		},
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t)
			const count = 5
			f := listening(t, connections(&tcplabv1.Connect{Count: count, Requests: 1, Request: 10, Reply: 10, Close: test.close}), cfg)
			spec := socket.Spec{End: cfg.Server, Role: socket.Server}
			fd, err := spec.Listen(count, 0)
			if err != nil {
				t.Fatal(err)
			}
			listener := socket.New(fd, nil)
			f.address = fd.Local()
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					conn.Discard(make([]byte, 10))
					test.server(conn.FD)
					conn.Close()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			r := f.Run(ctx)
			listener.Interrupt(unix.SHUT_RD)
			<-served
			listener.Close()
			got := r.GetConnections()
			if r.GetOutcome() != test.outcome || got.GetMade() != count || got.GetFailed() != count || test.count(got.GetErrors()) != count {
				t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), got)
			}
		})
	}
}

// A flow that is stopped has counted what it did, and leaves nothing.
func TestStoppedFlowLeavesNothing(t *testing.T) {
	for name, stop := range map[string]func(cancel context.CancelFunc, f *Flow){
		"context": func(cancel context.CancelFunc, _ *Flow) { cancel() },
		"close":   func(_ context.CancelFunc, f *Flow) { f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			flowtest.Leakless(t)
			cfg := nodes(t)
			f := listening(t, connections(&tcplabv1.Connect{Count: 30, Concurrency: 10, Hold: durationpb.New(time.Hour)}), cfg)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			ended := make(chan *tcplabv1.FlowResult, 1)
			go func() { ended <- f.Run(ctx) }()
			for flowtest.Counters(t, cfg.Server)[0]["TcpCurrEstab"] < 10 {
				if ctx.Err() != nil {
					t.Fatal("there are no connections")
				}
			}
			stop(cancel, f)
			r := <-ended
			if r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED || r.GetConnections().GetMade() != 10 || r.GetConnections().GetUnfinished() != 10 {
				t.Errorf("%s: %s; %v", r.GetOutcome(), r.GetError(), r.GetConnections())
			}
			flowtest.NoSockets(t, cfg.Client, cfg.Server)
		})
	}
}

// A client that is gone, its FINs lost, does not keep the server for ever.
func TestEndThatIsLost(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t)
	spec := connections(&tcplabv1.Connect{Count: 2, Concurrency: 2, Hold: durationpb.New(200 * time.Millisecond)})
	spec.Socket = &tcplabv1.SocketOptions{Linger: durationpb.New(100 * time.Millisecond)}
	f := listening(t, spec, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	ended := make(chan *tcplabv1.FlowResult, 1)
	go func() { ended <- f.Run(ctx) }()
	for flowtest.Counters(t, cfg.Server)[0]["TcpCurrEstab"] < 2 {
		if ctx.Err() != nil {
			t.Fatal("there are no connections")
		}
	}
	flowtest.LoseAddress(t, cfg.Server)
	r := <-ended
	if got := r.GetConnections(); r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT || got.GetMade() != 2 || got.GetDisorderly() != 2 || got.GetServerErrors().GetTimedOut() != 2 || got.GetUnfinished() != 0 {
		t.Errorf("%s: %v", r.GetError(), got)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

func TestFlowOutOfOrder(t *testing.T) {
	cfg := nodes(t)
	f, err := New(connections(&tcplabv1.Connect{}), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Run(t.Context()); r.GetError() == "" {
		t.Error("it ran before it listened")
	}
	if err := f.Listen(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if r := f.Run(t.Context()); !strings.Contains(r.GetError(), flow.ErrClosed.Error()) || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED {
		t.Errorf("running after Close: %s: %q", r.GetOutcome(), r.GetError())
	}
	if err := f.Listen(t.Context()); !errors.Is(err, flow.ErrClosed) {
		t.Errorf("listening after Close: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	flowtest.NoSockets(t, cfg.Client, cfg.Server)
}

func TestFlowThatMakesNoSense(t *testing.T) {
	cfg := nodes(t)
	for name, change := range map[string]func(*tcplabv1.Flow, *tcplabv1.Connect){
		"negative time":      func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Hold = durationpb.New(-1) },
		"negative rate":      func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Rate = -1 },
		"too many at once":   func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Concurrency = 100_001 },
		"no reply":           func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Requests, c.Request = 1, 1 },
		"nothing to reply":   func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Reply = 1 },
		"huge":               func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Requests, c.Request, c.Reply = 1, 1<<24+1, 1 },
		"no way":             func(_ *tcplabv1.Flow, c *tcplabv1.Connect) { c.Close = 9 },
		"other node":         func(f *tcplabv1.Flow, _ *tcplabv1.Connect) { f.Client = "somebody" },
		"nothing to reset":   func(f *tcplabv1.Flow, _ *tcplabv1.Connect) { f.Fault = tcplabv1.FlowFault_FLOW_FAULT_RESET },
		"nothing to go fast": func(f *tcplabv1.Flow, _ *tcplabv1.Connect) { f.Socket = &tcplabv1.SocketOptions{FastOpen: true} },
	} {
		spec := connections(&tcplabv1.Connect{Count: 1})
		change(spec, spec.GetConnect())
		if _, err := New(spec, cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
