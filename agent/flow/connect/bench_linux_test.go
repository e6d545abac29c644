package connect

import (
	"testing"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// BenchmarkConnect makes connections one after another over an unshaped veth, the server ending each.
func BenchmarkConnect(b *testing.B) {
	for name, requests := range map[string]uint32{"bare": 0, "request": 1} {
		for _, concurrency := range []uint32{1, 8} {
			b.Run(name+string('0'+rune(concurrency)), func(b *testing.B) {
				cfg := nodes(b)
				c := &tcplabv1.Connect{
					Count: uint32(b.N), Concurrency: concurrency, Requests: requests, Request: 100 * requests, Reply: 100 * requests,
					Close: tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER,
				}
				f := listening(b, connections(c), cfg)
				b.ResetTimer()
				r := f.Run(b.Context())
				if r.GetError() != "" {
					b.Fatal(r.GetError())
				}
				b.ReportMetric(r.GetConnections().GetRate(), "conn/s")
			})
		}
	}
}
