package flow

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Every option that is asked for is in force at both ends of a whole flow, and is read
// back.
func TestOptionsAreReadBack(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	six := cfg
	six.Client.Addr, six.Server.Addr = netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
	for name, test := range map[string]struct {
		cfg    Config
		family tcplabv1.IpFamily
		change func(*tcplabv1.SocketOptions) // both what is asked and, on top of the defaults, what is read back
	}{
		"none":            {change: func(*tcplabv1.SocketOptions) {}},
		"notsent low":     {change: func(o *tcplabv1.SocketOptions) { o.NotsentLowat = 16384 }},
		"user timeout":    {change: func(o *tcplabv1.SocketOptions) { o.UserTimeout = durationpb.New(1500 * time.Millisecond) }},
		"keep alive":      {change: func(o *tcplabv1.SocketOptions) { o.KeepAlive = keepAlive(11, 3, 4) }},
		"linger":          {change: func(o *tcplabv1.SocketOptions) { o.Linger = durationpb.New(time.Second) }},
		"code point":      {change: func(o *tcplabv1.SocketOptions) { o.Dscp = 46 }},
		"code point of 6": {cfg: six, family: tcplabv1.IpFamily_IP_FAMILY_IPV6, change: func(o *tcplabv1.SocketOptions) { o.Dscp = 34 }},
		"mark":            {change: func(o *tcplabv1.SocketOptions) { o.Mark = 0x80000001 }},
		"cork":            {change: func(o *tcplabv1.SocketOptions) { o.Cork = true }},
		"quick ACKs":      {change: func(o *tcplabv1.SocketOptions) { o.QuickAck = new(true) }},
		"small buffers":   {change: func(o *tcplabv1.SocketOptions) { o.SendBuffer, o.ReceiveBuffer = 30_000, 40_000 }},
	} {
		t.Run(name, func(t *testing.T) {
			if test.cfg.Client.NS == nil {
				test.cfg = cfg
			}
			request := func(change func(*tcplabv1.SocketOptions)) *tcplabv1.FlowResult {
				spec := transactions(3, 2000, 100, 100)
				spec.Family, spec.Socket = test.family, &tcplabv1.SocketOptions{}
				change(spec.GetSocket())
				return run(t, spec, test.cfg)
			}
			plain, got := request(func(*tcplabv1.SocketOptions) {}), request(test.change)
			for _, end := range []struct{ plain, got *tcplabv1.FlowEnd }{{plain.GetClient(), got.GetClient()}, {plain.GetServer(), got.GetServer()}} {
				want := end.plain.GetSocket()
				test.change(want)
				if diff := cmp.Diff(want, end.got.GetSocket(), protocmp.Transform()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", end.got.GetNode(), diff)
				}
			}
		})
	}
}

func keepAlive(idle, interval time.Duration, count uint32) *tcplabv1.KeepAlive {
	return &tcplabv1.KeepAlive{Idle: durationpb.New(idle * time.Second), Interval: durationpb.New(interval * time.Second), Count: count}
}

// What is below the mark at a message's end is read all the same.
func TestLowWaterMarkAboveTheMessage(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	for _, spec := range []*tcplabv1.Flow{transactions(3, 2500, 700), bulkBytes(1_234_567), bulkFor(20 * time.Millisecond)} {
		spec.Socket = &tcplabv1.SocketOptions{Rcvlowat: 100_000}
		if r := run(t, spec, cfg); r.GetBytes() == 0 || r.GetClient().GetBytesWritten() != r.GetServer().GetBytesRead() {
			t.Errorf("%v", r)
		}
	}
}

// Two small writes are two segments, and one where the cork is on.
func TestCorkJoinsAMessage(t *testing.T) {
	cfg := nodes(t, false)
	for _, corked := range []bool{false, true} {
		const count = 10
		spec := transactions(count, 10, 100, 100)
		spec.Socket = &tcplabv1.SocketOptions{Cork: corked}
		want := uint32(2 * count)
		if corked {
			want = count
		}
		info := run(t, spec, cfg).GetClient().GetTcpInfo()
		if got := info.GetDataSegsOut() - info.GetTotalRetrans(); got != want {
			t.Errorf("corked is %v: %d segments, not %d", corked, got, want)
		}
	}
}

// With Nagle's algorithm the second write waits for an ACK, which quick ACKs
// never delay.
func TestQuickAcksAreNotDelayed(t *testing.T) {
	cfg := nodes(t, false)
	const count = 10
	for name, test := range map[string]struct {
		quick       *bool
		least, most int64
	}{"true": {new(true), 0, 0}, "false": {new(false), count - 1, count}} {
		spec := transactions(count, 10, 100, 100)
		spec.Socket = &tcplabv1.SocketOptions{NoDelay: new(false), QuickAck: test.quick}
		before := flowtest.Counters(t, cfg.Client, cfg.Server)
		run(t, spec, cfg)
		after := flowtest.Counters(t, cfg.Client, cfg.Server)
		if n := observe.Delta(before[1], after[1])["TcpExtDelayedACKs"]; n < test.least || n > test.most {
			t.Errorf("quick_ack %s: %d delayed ACKs, not %d to %d", name, n, test.least, test.most)
		}
	}
}

func TestECNIsNegotiated(t *testing.T) {
	cfg := nodes(t, false)
	for value, want := range map[string]bool{"0": false, "1": true} {
		for _, end := range []End{cfg.Client, cfg.Server} {
			flowtest.SetSysctl(t, end.NS, "net/ipv4/tcp_ecn", value)
		}
		spec := bulkBytes(1)
		spec.Socket = &tcplabv1.SocketOptions{Congestion: "reno", Ecn: new(want)}
		r := run(t, spec, cfg)
		if got := r.GetClient().GetSocket().GetEcn(); got != want {
			t.Errorf("tcp_ecn %s: ECN is %v", value, got)
		}
	}
}

// The first connection fetches a cookie; the second sends its request with the SYN.
func TestFastOpen(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	for _, end := range []End{cfg.Client, cfg.Server} {
		flowtest.SetSysctl(t, end.NS, "net/ipv4/tcp_fastopen", "3")
	}
	for i, want := range []bool{false, true} {
		spec := transactions(2, 100, 100)
		spec.Socket = &tcplabv1.SocketOptions{FastOpen: true, FastOpenQueue: 10}
		const synData = 32 // TCPI_OPT_SYN_DATA
		if got := run(t, spec, cfg).GetClient().GetTcpInfo().GetOptions()&synData != 0; got != want {
			t.Errorf("connection %d: data in the SYN is %v", i+1, got)
		}
	}
}

// linger 0 ends with a reset that neither end takes for a failure.
func TestLingerOfNothingResets(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	for _, spec := range []*tcplabv1.Flow{transactions(3, 10, 10), bulkBytes(100_000)} {
		spec.Socket = &tcplabv1.SocketOptions{Linger: durationpb.New(0)}
		before := flowtest.Counters(t, cfg.Client, cfg.Server)
		run(t, spec, cfg)
		after := flowtest.Counters(t, cfg.Client, cfg.Server)
		if n := observe.Delta(before[0], after[0])["TcpOutRsts"]; n != 1 {
			t.Errorf("%s: %d resets", spec.GetName(), n)
		}
		flowtest.NoSockets(t, cfg.Client, cfg.Server)
	}
}

func TestUnknownCongestionControlNamesThoseThatAreThere(t *testing.T) {
	cfg := nodes(t, false)
	spec := bulkBytes(1)
	spec.Socket = &tcplabv1.SocketOptions{Congestion: "nonesuch"}
	f, err := New(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = f.Listen(t.Context())
	if err == nil || !strings.Contains(err.Error(), "nonesuch") || !strings.Contains(err.Error(), "reno") || !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v", err)
	}
}
