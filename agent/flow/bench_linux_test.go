package flow

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// repetitions of what a median is taken of.
const repetitions = 5

// BenchmarkBulk sets bulk beside iperf3 over an unshaped veth with all its
// offloads: the same bytes, the same congestion control, in turn, each in fresh
// nodes. It reports the medians in Gbit/s, and their ratio.
func BenchmarkBulk(b *testing.B) {
	iperf3 := need.Command(b, "iperf3")
	const size, congestion = 2 << 30, "cubic"
	need.Congestion(b, congestion)
	for b.Loop() {
		var ours, theirs []float64
		for range repetitions {
			spec := bulkBytes(size)
			spec.Socket = &tcplabv1.SocketOptions{Congestion: congestion}
			ours = append(ours, run(b, spec, nodes(b, true)).GetGoodputBps()/1e9)
			theirs = append(theirs, iperf(b, iperf3, nodes(b, true), size, congestion)/1e9)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(ours), "Gbit/s")
		b.ReportMetric(median(theirs), "iperf3-Gbit/s")
		b.ReportMetric(median(ours)/median(theirs), "ratio")
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// iperf is what iperf3's receiver measures, in bit/s.
func iperf(b *testing.B, path string, cfg Config, size int, congestion string) float64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	server := exec.CommandContext(ctx, path, "--server", "--one-off", "--forceflush")
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	// A child inherits the namespace of the thread that starts it.
	if err := cfg.Server.NS.Do(server.Start); err != nil {
		b.Fatal(err)
	}
	defer func() { cancel(); _ = server.Wait() }()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening") {
	}
	client := exec.CommandContext(ctx, path, "--client", cfg.Server.Addr.String(), "--bytes", fmt.Sprint(size), "--congestion", congestion, "--json")
	var report []byte
	err = cfg.Client.NS.Do(func() (err error) {
		report, err = client.Output()
		return err
	})
	if err != nil {
		b.Fatalf("iperf3: %v: %s", err, report)
	}
	var result struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(report, &result); err != nil {
		b.Fatal(err)
	}
	return result.End.Received.Rate
}

// BenchmarkTransaction sets a flow's latency over an unshaped veth beside that
// of the same exchange through Go's net package. It reports µs at the 50th and
// 99th percentile: what is more than the kernel's own is added to every round trip that
// a lab measures.
func BenchmarkTransaction(b *testing.B) {
	const count = 20_000
	for b.Loop() {
		cfg := nodes(b, false)
		ours := run(b, transactions(count, 100, 100), cfg).GetLatency()
		theirs := poller(b, cfg, count)
		b.ReportMetric(0, "ns/op")
		for name, l := range map[string]*tcplabv1.LatencySummary{"": ours, "net-": theirs} {
			b.ReportMetric(float64(l.GetP50().AsDuration())/1e3, name+"p50-µs")
			b.ReportMetric(float64(l.GetP99().AsDuration())/1e3, name+"p99-µs")
		}
	}
}

// poller exchanges 100 bytes for 100 bytes by net.Conn.
func poller(b *testing.B, cfg Config, count int) *tcplabv1.LatencySummary {
	b.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	listener := inside(b, cfg.Server.NS, func() (net.Listener, error) {
		return plain.Listen(b.Context(), "tcp", cfg.Server.Addr.String()+":0")
	})
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		p := make([]byte, 100)
		for err == nil {
			if _, err = conn.Read(p); err == nil {
				_, err = conn.Write(p)
			}
		}
		served <- nil
	}()
	conn := inside(b, cfg.Client.NS, func() (net.Conn, error) {
		return (&net.Dialer{Timeout: limit}).DialContext(b.Context(), "tcp", listener.Addr().String())
	})
	var l latencies
	p := make([]byte, 100)
	for range count {
		begin := time.Now()
		if _, err := conn.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(p); err != nil {
			b.Fatal(err)
		}
		l.add(time.Since(begin))
	}
	conn.Close()
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	return l.summary()
}

func inside[T any](b *testing.B, ns *netns.Handle, open func() (T, error)) (value T) {
	b.Helper()
	err := ns.Do(func() (err error) {
		value, err = open()
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return value
}
