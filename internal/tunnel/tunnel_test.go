package tunnel

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server that took a client's pings for abuse would hang up on it (grpc-go, keepalive.EnforcementPolicy).
func TestPingsAreNoAbuse(t *testing.T) {
	if ServerLeast >= ClientPing {
		t.Errorf("a server permits a ping each %v, and clients ping each %v", ServerLeast, ClientPing)
	}
}

// What the kernel takes to give up a silent connection adds up to less than is promised, in both cases.
func TestDeadWithin(t *testing.T) {
	if silent := probeAfter + probes*probeEvery; silent >= DeadWithin {
		t.Errorf("probes take %v", silent)
	}
	// With TCP_USER_TIMEOUT the first probe after it ends the connection (net/ipv4/tcp_timer.c, tcp_keepalive_timer).
	if user := unackedMost + probeEvery; user >= DeadWithin {
		t.Errorf("the user timeout and a probe take %v", user)
	}
}

func TestSkew(t *testing.T) {
	for _, c := range []struct {
		major, minor uint32
		ok           bool
	}{
		{ContractMajor, ContractMinor, true},
		{ContractMajor, ContractMinor + 1, true},
		{ContractMajor, ContractMinor + 2, false},
		{ContractMajor + 1, ContractMinor, false},
		{ContractMajor - 1, ContractMinor, false},
	} {
		err := Skew("agent host-a", "v9", c.major, c.minor)
		if (err == nil) != c.ok {
			t.Errorf("%d.%d: %v", c.major, c.minor, err)
		}
		if err != nil && (rpcerr.From(err).Reason != rpcerr.VersionSkew || !bytes.Contains([]byte(err.Error()), []byte("host-a"))) {
			t.Errorf("%d.%d is refused without its name: %v", c.major, c.minor, err)
		}
	}
}

// An agent hears why it is refused, with reason and remedy.
func TestRefusal(t *testing.T) {
	agent, controller := net.Pipe()
	told := make(chan error, 1)
	go func() {
		hello, err := Hear(controller)
		if err == nil && (hello.GetSession() != 7 || hello.GetContractMajor() != ContractMajor) {
			err = errors.New("the greeting is another")
		}
		told <- errors.Join(err, Refuse(controller, rpcerr.New(codes.Aborted, rpcerr.Stale, "end it", "it is old")))
	}()
	_, err := Greet(agent, &tcplabv1.TunnelHello{Session: 7})
	if why := <-told; why != nil {
		t.Fatal(why)
	}
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Reason.Code != codes.Aborted || refusal.Reason.Reason != rpcerr.Stale || refusal.Reason.Remedy != "end it" || refusal.Error() != "it is old" {
		t.Errorf("the agent hears %v", err)
	}
	_ = agent.Close()
}

// FuzzGreeting reads what anybody may send.
func FuzzGreeting(f *testing.F) {
	var good bytes.Buffer
	if err := write(&good, &tcplabv1.TunnelHello{Session: 1, AgentVersion: "v1"}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, content []byte) {
		hello := &tcplabv1.TunnelHello{}
		if err := read(bytes.NewReader(content), hello); err != nil {
			return
		}
		var again bytes.Buffer
		if err := write(&again, hello); err != nil {
			t.Fatal(err)
		}
		reread := &tcplabv1.TunnelHello{}
		if err := read(&again, reread); err != nil || !proto.Equal(hello, reread) {
			t.Errorf("%v became %v, error %v", hello, reread, err)
		}
	})
}
