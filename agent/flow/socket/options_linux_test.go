package socket_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/flow/socket"
	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// inForce is what the kernel says of a socket's options.
type inForce struct {
	NoDelay, SendBuffer, ReceiveBuffer int
	Congestion                         string
	Linger                             unix.Linger
}

func readOptions(t *testing.T, s *socket.Socket) inForce {
	t.Helper()
	get := func(level, option int) int {
		value, err := unix.GetsockoptInt(int(s.FD), level, option)
		if err != nil {
			t.Error(err)
		}
		return value
	}
	linger, err := unix.GetsockoptLinger(int(s.FD), unix.SOL_SOCKET, unix.SO_LINGER)
	if err != nil {
		t.Fatal(err)
	}
	return inForce{
		NoDelay:       get(unix.IPPROTO_TCP, unix.TCP_NODELAY),
		SendBuffer:    get(unix.SOL_SOCKET, unix.SO_SNDBUF),
		ReceiveBuffer: get(unix.SOL_SOCKET, unix.SO_RCVBUF),
		Congestion:    s.Congestion(),
		Linger:        *linger,
	}
}

// specs are nodes, and how their sockets are made.
func specs(t *testing.T, options *tcplabv1.SocketOptions) (client, server socket.Spec) {
	t.Helper()
	c, s := flowtest.Nodes(t, false)
	return socket.Spec{End: c, Role: socket.Client, Options: options}, socket.Spec{End: s, Role: socket.Server, Options: options}
}

func listen(t *testing.T, server socket.Spec) *socket.Socket {
	t.Helper()
	fd, err := server.Listen(10, 0)
	if err != nil {
		t.Fatal(err)
	}
	listener := socket.New(fd, server.Options)
	t.Cleanup(func() { listener.Close() })
	return listener
}

// connected is both ends of a connection.
func connected(t *testing.T, from, to socket.Spec) (client, accepted *socket.Socket) {
	t.Helper()
	listener := listen(t, to)
	client, err := from.Socket(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.Connect(listener.Local()); err != nil {
		t.Fatal(err)
	}
	accepted, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return client, accepted
}

func TestOptionsAreInForceAtBothEnds(t *testing.T) {
	client, server := specs(t, nil)
	need.Congestion(t, "reno")
	need.Congestion(t, "cubic")
	abort := unix.Linger{Onoff: 1}
	for name, test := range map[string]struct {
		options *tcplabv1.SocketOptions
		want    func(*inForce) // on top of what the kernel gives a socket without options
		mss     uint32
	}{
		"none":       {nil, func(*inForce) {}, 1448},
		"nagle":      {&tcplabv1.SocketOptions{NoDelay: new(false)}, func(o *inForce) { o.NoDelay = 0 }, 1448},
		"no delay":   {&tcplabv1.SocketOptions{NoDelay: new(true)}, func(*inForce) {}, 1448},
		"reno":       {&tcplabv1.SocketOptions{Congestion: "reno"}, func(o *inForce) { o.Congestion = "reno" }, 1448},
		"cubic":      {&tcplabv1.SocketOptions{Congestion: "cubic"}, func(o *inForce) { o.Congestion = "cubic" }, 1448},
		"buffers":    {&tcplabv1.SocketOptions{SendBuffer: 50_000, ReceiveBuffer: 60_000}, func(o *inForce) { o.SendBuffer, o.ReceiveBuffer = 100_000, 120_000 }, 1448},
		"small MSS":  {&tcplabv1.SocketOptions{Mss: 536}, func(*inForce) {}, 524}, // less 12 bytes of timestamps
		"receive":    {&tcplabv1.SocketOptions{ReceiveBuffer: 70_000}, func(o *inForce) { o.ReceiveBuffer = 140_000 }, 1448},
		"everything": {&tcplabv1.SocketOptions{NoDelay: new(false), Congestion: "reno", SendBuffer: 40_000, ReceiveBuffer: 40_000, Mss: 1000}, func(o *inForce) { *o = inForce{0, 80_000, 80_000, "reno", o.Linger} }, 988},
	} {
		t.Run(name, func(t *testing.T) {
			// How the kernel tunes a send buffer depends on the congestion control.
			plain := &tcplabv1.SocketOptions{Congestion: test.options.GetCongestion()}
			client.Options, server.Options = plain, plain
			plainClient, plainServer := connected(t, client, server)
			client.Options, server.Options = test.options, test.options
			connecting, accepted := connected(t, client, server)
			for _, end := range []struct {
				role        string
				plain, with *socket.Socket
			}{{"client", plainClient, connecting}, {"server", plainServer, accepted}} {
				want := readOptions(t, end.plain)
				want.NoDelay, want.Linger = 1, abort
				test.want(&want)
				if diff := cmp.Diff(want, readOptions(t, end.with)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", end.role, diff)
				}
				info, err := end.with.Info()
				if err != nil {
					t.Fatal(err)
				}
				if info.SndMSS != test.mss {
					t.Errorf("%s: segments of %d bytes, not %d", end.role, info.SndMSS, test.mss)
				}
			}
		})
	}
}

func TestNoBufferIsCutInSilence(t *testing.T) {
	client, _ := specs(t, &tcplabv1.SocketOptions{SendBuffer: 64 << 20, ReceiveBuffer: 64 << 20})
	s, err := client.Socket(0)
	if err != nil {
		// Privilege over the host's limits is missing: then the error says so.
		if !strings.Contains(err.Error(), "net.core.wmem_max") {
			t.Errorf("error %v", err)
		}
		return
	}
	defer s.Close()
	if got := readOptions(t, s); got.SendBuffer != 128<<20 || got.ReceiveBuffer != 128<<20 {
		t.Errorf("asked for 64 MiB each: %+v", got)
	}
}

func TestFastOpenThatTheNodeForbids(t *testing.T) {
	client, _ := specs(t, &tcplabv1.SocketOptions{FastOpen: true})
	flowtest.SetSysctl(t, client.NS, "net/ipv4/tcp_fastopen", "0")
	_, err := client.Socket(0)
	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "net.ipv4.tcp_fastopen of the node is 0") {
		t.Errorf("error %v", err)
	}
}
