package flow

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestBulkOfAGivenSize(t *testing.T) {
	flowtest.Leakless(t)
	cfg := nodes(t, false)
	for _, size := range []uint64{1, 1448, 1449, 14480, sendSize, sendSize + 1, 5_000_003} {
		r := run(t, bulkBytes(size), cfg)
		client, server := r.GetClient(), r.GetServer()
		if client.GetBytesWritten() != size || server.GetBytesRead() != size || r.GetBytes() != size || client.GetBytesRead()+server.GetBytesWritten() != 0 {
			t.Errorf("%d bytes: the client wrote %d and read %d, the server read %d and wrote %d, the flow has %d", size,
				client.GetBytesWritten(), client.GetBytesRead(), server.GetBytesRead(), server.GetBytesWritten(), r.GetBytes())
		}
		// Full segments but for the last: 1500 bytes less 20 of IP, 20 of TCP and
		// 12 of timestamps.
		info := client.GetTcpInfo()
		if sent, segments := info.GetBytesSent()-info.GetBytesRetrans(), uint64(info.GetDataSegsOut()-info.GetTotalRetrans()); sent != size || segments != (size+1447)/1448 {
			t.Errorf("%d bytes: the kernel sent %d in %d segments: %v", size, sent, segments, info)
		}
		if l, c := r.GetLatency(), r.GetConnect(); l.GetCount() != 1 || c.GetCount() != 1 || l.GetMax().AsDuration() <= 0 || c.GetMax().AsDuration() <= 0 {
			t.Errorf("%d bytes: latency %v, connect %v", size, l, c)
		}
		if r.GetGoodputBps() <= 0 || r.GetSamplesCount() < 4 {
			t.Errorf("%d bytes: goodput %g, %d samples", size, r.GetGoodputBps(), r.GetSamplesCount())
		}
	}
}

func TestBulkForADuration(t *testing.T) {
	flowtest.Leakless(t)
	const asked = 300 * time.Millisecond
	r := run(t, bulkFor(asked), nodes(t, true))
	if w, n := r.GetClient().GetBytesWritten(), r.GetServer().GetBytesRead(); w != n || n == 0 || n != r.GetBytes() {
		t.Errorf("the client wrote %d bytes, the server read %d, the flow has %d", w, n, r.GetBytes())
	}
	if took := r.GetLatency().GetMax().AsDuration(); took < asked {
		t.Errorf("it took %s", took)
	}
}

func TestBulkOverIPv6(t *testing.T) {
	cfg := nodes(t, false)
	cfg.Client.Addr, cfg.Server.Addr = netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
	spec := bulkBytes(100_000)
	spec.Family = tcplabv1.IpFamily_IP_FAMILY_IPV6
	r := run(t, spec, cfg)
	if mss := r.GetClient().GetTcpInfo().GetSndMss(); mss != 1428 || r.GetBytes() != 100_000 {
		t.Errorf("%d bytes with segments of %d", r.GetBytes(), mss)
	}
}
