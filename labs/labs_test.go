package labs_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/tcplab/tcplab/labs"
)

func TestSmoke(t *testing.T) {
	f, err := labs.Parse(labs.Source{Name: "nagle.yaml", Content: []byte(sample)})
	if err != nil {
		t.Fatal(err)
	}
	all, err := f.Expand([]labs.Override{{"rtt", []string{"10ms", "50ms"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if err := labs.Assign(l, nil); err != nil {
			t.Fatal(err)
		}
		if err := labs.Validate(l); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(len(all), prototext.Format(all[0]))
}

const sample = `name: nagle
title: Nagle's algorithm meets the delayed acknowledgement
params:
  rtt: 20ms
  no_delay: [false, true]          # a list is swept; --set rtt=10ms,50ms overrides
nodes: [client, server]            # or {client: {}, r1: {kind: router}, s1: {kind: switch}, web: {on: host-a, stack: host}}
links:
  - between: [client, server]
    rtt: ${rtt}                    # half in each direction; or forward: {...} and backward: {...}
    rate: 100Mbit
experiments:
  - flows:
      - name: wwr
        transaction: {from: client, to: server, writes: [100B, 100B], reply: 100B, count: 40}
        socket: {no_delay: ${no_delay}, congestion: cubic}
repeat: 5
expect:
  - name: Nagle waits for the delayed ACK
    where: "!no_delay"
    measure: flow.wwr.client.latency.p50
    predict: theory.write_write_read(rtt, theory.nagle, kernel.hz)
    within: {ratio: 3%, slack: 2ms}
    over: median                   # of the repetitions; or every
  - name: the kernel delayed them
    that: counter.server.TcpExtDelayedACKs >= 0.9 * 40
`
