package observe

import (
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The library's struct is generated from the kernel's header: a layout that was
// read from nowhere else says whether the offsets are right.
func TestOffsetsAreTheKernels(t *testing.T) {
	raw := unix.TCPInfo{
		State: 1, Ca_state: 2, Options: 3, Rto: 4, Ato: 5, Snd_mss: 6, Rcv_mss: 7, Lost: 8, Rtt: 9, Rttvar: 10,
		Snd_ssthresh: 11, Snd_cwnd: 12, Reordering: 13, Total_retrans: 14, Pacing_rate: 15, Bytes_acked: 16, Bytes_received: 17,
		Segs_out: 18, Segs_in: 19, Min_rtt: 20, Data_segs_in: 21, Data_segs_out: 22, Delivery_rate: 23, Busy_time: 24,
		Rwnd_limited: 25, Sndbuf_limited: 26, Bytes_sent: 27, Bytes_retrans: 28, Dsack_dups: 29, Rcv_ooopack: 30, Snd_wnd: 31,
	}
	want := Info{
		State: 1, CAState: 2, Options: 3, RTO: 4 * time.Microsecond, ATO: 5 * time.Microsecond, SndMSS: 6, RcvMSS: 7, Lost: 8,
		RTT: 9 * time.Microsecond, RTTVar: 10 * time.Microsecond, SndSsthresh: 11, SndCwnd: 12, Reordering: 13, TotalRetrans: 14,
		PacingRateBps: 15 * 8, BytesAcked: 16, BytesReceived: 17, SegsOut: 18, SegsIn: 19, MinRTT: 20 * time.Microsecond,
		DataSegsIn: 21, DataSegsOut: 22, DeliveryRateBps: 23 * 8, BusyTime: 24 * time.Microsecond, RwndLimited: 25 * time.Microsecond,
		SndbufLimited: 26 * time.Microsecond, BytesSent: 27, BytesRetrans: 28, DSACKDups: 29, RcvOOOPack: 30, SndWnd: 31,
	}
	got := DecodeInfo(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), unsafe.Sizeof(raw)))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadInfo(t *testing.T) {
	client, server := loopback(t)
	payload := make([]byte, 10_000)
	if _, err := client.Write(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(payload[:1]); err != nil {
		t.Fatal(err)
	}
	info := read(t, server)
	if info.State != StateEstablished || info.BytesReceived != 10_000 || info.RTO == 0 || info.SndCwnd == 0 || info.SndMSS == 0 {
		t.Errorf("%+v", info)
	}
	if _, err := ReadInfo(-1); err == nil {
		t.Error("a descriptor that is none has TCP_INFO")
	}
}

// loopback is a connection of the machine with itself.
func loopback(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.DialTCP("tcp4", nil, listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func read(t *testing.T, conn *net.TCPConn) Info {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info Info
	var readErr error
	if err := raw.Control(func(fd uintptr) { info, readErr = ReadInfo(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if readErr != nil {
		t.Fatal(readErr)
	}
	return info
}
