package flow

import (
	"net"
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

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
	var l latency.Set
	p := make([]byte, 100)
	for range count {
		begin := time.Now()
		if _, err := conn.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(p); err != nil {
			b.Fatal(err)
		}
		l.Add(time.Since(begin))
	}
	conn.Close()
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	return l.Summary()
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
