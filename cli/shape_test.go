package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/labs"
)

func TestDirectionText(t *testing.T) {
	file, err := labs.Parse(labs.Source{Name: "lab.yaml", Attachments: map[string][]byte{"cell.trace": []byte("1\n2\n")}, Content: []byte(`
name: all
nodes: [a, b]
links:
  - between: [a, b]
    delay: 20ms
    jitter: {amount: 2ms, distribution: paretonormal, correlation: 25%, reorder: true}
    backward:
      rate: 10Mbit
      overhead: ethernet
      burst: 15kB
      queue: {limit: 64KiB, discipline: fq_codel, ecn: true, target: 5ms, interval: 100ms}
      loss: {gilbert: {to_bad: 1%, to_good: 30%}}
      reorder: {probability: 1%, correlation: 50%, gap: 5}
      duplicate: 2%
      corrupt: 3%
    forward:
      rate: 1Mbit
      queue: {limit: 50, discipline: head-drop}
      paths:
        - {name: web, match: {destination: 10.1.0.0/16, protocol: tcp, port: 80}, loss: {packets: [3, 5]}}
        - {name: rest, match: {protocol: udp}}
      schedule:
        period: 9s
        steps:
          - {at: 1s, rate: 2Mbit, jitter: 0}
          - {at: 2s, path: rest, delay: 80ms, ramp: 500ms}
          - {at: 3s, down: true}
          - {at: 4s, down: false}
  - between: [a, b]
    loss: {states: {p13: 1%, p31: 20%, p32: 30%, p23: 40%, p14: 5%}}
    trace: {file: cell.trace, loop: false}
  - {between: [a, b], loss: {every: 7}, backward: {trace: cell.trace, loss: {probability: 1%, correlation: 25%}}}
experiments:
  - flows:
      - {name: up, bulk: {from: a, to: b, bytes: 1MB}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	points, err := file.Expand(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range points[0].GetLinks() {
		got = append(got, directionText(l.GetForward())...)
		got = append(got, directionText(l.GetBackward())...)
	}
	want := []string{
		"1 Mbit/s, delay 20 ms ± 2 ms paretonormal reordering correlated 25 %, head-drop, queue 50 packets",
		"path web (to 10.1.0.0/16 tcp port 80): loss of packets 3, 5",
		"path rest (udp): as it is",
		"changes at 1 s: 2 Mbit/s, delay 20 ms, head-drop, queue 50 packets; at 2 s path rest within 500 ms: delay 80 ms; " +
			"at 3 s: 2 Mbit/s, delay 20 ms, down, head-drop, queue 50 packets; 1 more until 4 s; again after 9 s",
		"10 Mbit/s, delay 20 ms ± 2 ms paretonormal reordering correlated 25 %, loss 100 % in bursts (1 % begin, 30 % end), 0 % between, " +
			"reorder 1 % correlated 50 % gap 5, duplicate 2 %, corrupt 3 %, burst 15 kB, overhead 24 B least 84 B, " +
			"fq_codel marking target 5 ms interval 100 ms, queue 65.54 kB",
		"loss of four states (p13 1 %, p31 20 %, p32 30 %, p23 40 %, p14 5 %), queue 100 packets, follows cell.trace (2 packets) once",
		"loss of four states (p13 1 %, p31 20 %, p32 30 %, p23 40 %, p14 5 %), queue 100 packets, follows cell.trace (2 packets) once",
		"loss of every packet of 7",
		"loss 1 % correlated 25 %, queue 100 packets, follows cell.trace (2 packets)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := strings.Join(got, ""); strings.Contains(s, "UNSPECIFIED") {
		t.Error(s)
	}
}
