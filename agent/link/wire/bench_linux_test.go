package wire

import (
	"context"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/prompt"
	"github.com/tcplab/tcplab/internal/netns"
)

// BenchmarkBulk is one TCP flow through 10 ms each way and a queue of one BDP:
// Gbit/s of goodput after slow start, retransmits and frames lost per operation. One operation is
// 256 MiB.
func BenchmarkBulk(b *testing.B) {
	shapes := map[string]link.Shape{
		"delay": {Delay: 10 * time.Millisecond},
		"rate":  {Delay: 10 * time.Millisecond, Rate: 4e9},
		"1Gbit": {Delay: 10 * time.Millisecond, Rate: 1e9, Queue: link.Queue{Packets: 10_000}},
	}
	for _, kind := range kinds {
		for name, shape := range shapes {
			b.Run(string(kind)+"/"+name, func(b *testing.B) {
				shape := link.Direction{Shape: shape}.Resolve(20*time.Millisecond, 1500).Shape
				lab := stand(b, kind, shape)
				client, server := lab.connect(b)
				if err := send(client, server, 64<<20); err != nil { // through slow start
					b.Fatal(err)
				}
				before, base, used := lab.counters(b), info(b, client), processorTime(b)
				const size = 256 << 20
				b.SetBytes(size)
				for b.Loop() {
					if err := send(client, server, size); err != nil {
						b.Fatal(err)
					}
				}
				after := lab.counters(b)
				b.ReportMetric(float64(size)*8*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gbit/s")
				b.ReportMetric(float64(after[0].Delivered-before[0].Delivered)/b.Elapsed().Seconds(), "frames/s")
				b.ReportMetric(float64((processorTime(b)-used).Nanoseconds())/1e3/float64(after[0].Delivered-before[0].Delivered), "cpu-µs/frame")
				b.ReportMetric(float64(info(b, client).Total_retrans-base.Total_retrans), "retransmits")
				b.ReportMetric(float64(after[0].Overflow+after[0].Failed+after[1].Overflow+after[1].Failed), "lost")
				late, err := lab.link.Lateness()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(late[0].Quantile(0.5).Seconds()*1e6, "p50-late-µs")
				b.ReportMetric(late[0].Quantile(0.99).Seconds()*1e6, "p99-late-µs")
			})
		}
	}
}

// processorTime is what this process has used of the processors, the kernel's work for it included.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRoundTrip is the kernel's own echo through 10 ms each way of a link that is otherwise
// idle: quantiles of what it takes beyond 20 ms.
func BenchmarkRoundTrip(b *testing.B) {
	for _, kind := range kinds {
		b.Run(string(kind), func(b *testing.B) {
			lab := stand(b, kind, link.Shape{Delay: 10 * time.Millisecond})
			echo := newEcho(b, lab.nodes[0])
			// The clock that is held against the link must not be what is late.
			runtime.LockOSThread()
			prompt.Thread()
			var extra []time.Duration
			for b.Loop() {
				extra = append(extra, echo.roundTrip(b)-20*time.Millisecond)
			}
			slices.Sort(extra)
			late, err := lab.link.Lateness()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(late[0].Quantile(0.5).Seconds()*1e6, "p50-late-µs")
			b.ReportMetric(late[0].Quantile(0.99).Seconds()*1e6, "p99-late-µs")
			b.ReportMetric(float64(extra[len(extra)/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(extra[len(extra)*99/100].Nanoseconds())/1e3, "p99-µs")
			b.ReportMetric(float64(extra[len(extra)-1].Nanoseconds())/1e3, "max-µs")
		})
	}
}

// BenchmarkCreate is one link, made and ready.
func BenchmarkCreate(b *testing.B) {
	for _, kind := range kinds {
		b.Run(string(kind), func(b *testing.B) {
			needs(b, kind)
			e := engine(b, kind)
			nodes := [2]*netns.Handle{node(b, "a"), node(b, "b")}
			spec := link.Spec{Name: "a-b", Ends: [2]link.Port{end(nodes[0], 0), end(nodes[1], 1)}}
			for b.Loop() {
				made, err := e.Create(context.Background(), spec)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := made.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// echo sends ICMP echo requests from node 0 to node 1, whose kernel answers.
type echo struct {
	sock int
	seq  byte
}

func newEcho(t testing.TB, ns *netns.Handle) *echo {
	t.Helper()
	e := &echo{}
	err := ns.Do(func() (err error) {
		e.sock, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(e.sock) })
	patience := unix.NsecToTimeval(time.Second.Nanoseconds())
	if err := unix.SetsockoptTimeval(e.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	return e
}

// roundTrip is the time of one echo.
func (e *echo) roundTrip(t testing.TB) time.Duration {
	t.Helper()
	e.seq++
	request := []byte{8, 0, 0, 0, 0, 1, 0, e.seq} // echo, checksum, identifier, sequence
	sum := uint16(0xffff - 0x0800 - 1 - int(e.seq))
	request[2], request[3] = byte(sum>>8), byte(sum)
	started := time.Now()
	if err := unix.Sendto(e.sock, request, 0, &unix.SockaddrInet4{Addr: [4]byte(addresses[1])}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 128)
	for {
		n, _, err := unix.Recvfrom(e.sock, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if icmp := answer[20:n]; net.IP(answer[12:16]).Equal(addresses[1]) && icmp[0] == 0 && icmp[7] == e.seq {
			return time.Since(started)
		}
	}
}
