package labs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// expandDirection is the forward direction of a link with the lines.
func expandDirection(t *testing.T, link string, attachments map[string][]byte) *tcplabv1.Direction {
	t.Helper()
	src := lab("links:\n  - between: [client, server]\n" + link)
	src.Attachments = attachments
	return expandAll(t, src, 1)[0].GetLinks()[0].GetForward()
}

func parseDirection(t *testing.T, text string) *tcplabv1.Direction {
	t.Helper()
	return parseText(t, "links: {forward: {"+text+"}}").GetLinks()[0].GetForward()
}

func TestShapes(t *testing.T) {
	// One BDP of 10 Mbit/s would be below 100 packets throughout.
	tests := []struct{ link, want string }{
		{"    overhead: ethernet\n    rate: 10Mbit", `rate_bps: 1e7 queue: {packets: 100} overhead: {bytes: 24 min_bytes: 84}`},
		{"    overhead: atm\n    rate: 10Mbit", `rate_bps: 1e7 queue: {packets: 100} overhead: {atm: true}`},
		{"    overhead: 24B\n    rate: 10Mbit", `rate_bps: 1e7 queue: {packets: 100} overhead: {bytes: 24}`},
		{"    overhead: -4B\n    rate: 10Mbit\n    burst: 15kB", `rate_bps: 1e7 queue: {packets: 100} overhead: {bytes: -4} burst_bytes: 15000`},
		{"    rate: 10Mbit\n    queue: {discipline: fq_codel, ecn: true, target: 5ms, interval: 50ms}", `rate_bps: 1e7 queue: {packets: 100 discipline: QUEUE_DISCIPLINE_FQ_CODEL ecn: true target: {nanos: 5000000} interval: {nanos: 50000000}}`},
		{"    rate: 10Mbit\n    queue: {limit: 64KiB, discipline: head-drop}", `rate_bps: 1e7 queue: {bytes: 65536 discipline: QUEUE_DISCIPLINE_HEAD_DROP}`},
		{"    rate: 10Mbit\n    queue: {limit: 50ms, discipline: red, red: {min: 15kB, max: 45kB, probability: 5%}}", `rate_bps: 1e7 queue: {time: {nanos: 50000000} discipline: QUEUE_DISCIPLINE_RED red: {min_bytes: 15000 max_bytes: 45000 probability: 0.05}}`},
		{"    delay: 20ms\n    jitter: 2ms", `delay: {nanos: 20000000} jitter: {amount: {nanos: 2000000}}`},
		{"    jitter: {amount: 2ms, distribution: paretonormal, correlation: 25%, reorder: true}", `jitter: {amount: {nanos: 2000000} distribution: JITTER_DISTRIBUTION_PARETO_NORMAL correlation: 0.25 reorder: true}`},
		{"    jitter: {amount: 2ms, quantiles: [-1, 0, 2.5]}", `jitter: {amount: {nanos: 2000000} distribution: JITTER_DISTRIBUTION_TABLE quantiles: [-1, 0, 2.5]}`},
		{"    jitter: {amount: 2ms, table: t.dist}", `jitter: {amount: {nanos: 2000000} distribution: JITTER_DISTRIBUTION_TABLE quantiles: [-1, 0, 0.5, 2]}`},
		{"    jitter: 0", ``},
		{"    loss: {probability: 1%, correlation: 25%}", `loss: 0.01 loss_correlation: 0.25`},
		{"    loss: {packets: [3, 5]}", `loss_pattern: {packets: {numbers: [3, 5]}}`},
		{"    loss: {packets: 3}", `loss_pattern: {packets: {numbers: [3]}}`},
		{"    loss: {every: 100}", `loss_pattern: {every: 100}`},
		{"    loss: {gilbert: {to_bad: 1%, to_good: 30%}}", `loss_pattern: {gilbert_elliott: {to_bad: 0.01 to_good: 0.3}}`},
		{"    loss: {gilbert: {to_bad: 1%, to_good: 30%, bad: 0, good: 0.1%}}", `loss_pattern: {gilbert_elliott: {to_bad: 0.01 to_good: 0.3 bad_loss: 0 good_loss: 0.001}}`},
		{"    loss: {states: {p13: 1%, p31: 20%, p32: 30%, p23: 40%, p14: 5%}}", `loss_pattern: {four_state: {p13: 0.01 p31: 0.2 p32: 0.3 p23: 0.4 p14: 0.05}}`},
		{"    delay: 1ms\n    reorder: {probability: 25%, correlation: 50%, gap: 5}", `delay: {nanos: 1000000} reorder: {gap: 5 chance: {probability: 0.25 correlation: 0.5}}`},
		{"    delay: 1ms\n    reorder: 25%", `delay: {nanos: 1000000} reorder: {chance: {probability: 0.25}}`},
		{"    duplicate: 1%\n    corrupt: {probability: 0.1%, correlation: 5%}\n    down: true", `duplicate: {probability: 0.01} corrupt: {probability: 0.001 correlation: 0.05} down: true`},
		{"    rate: 10Mbit\n    burst: 3kB\n    forward: {rate: unlimited}", ``},
		{"    loss: {every: 100}\n    forward: {loss: 0}", ``},
		{"    rtt: 20ms\n    rate: 1Gbit", `delay: {nanos: 10000000} rate_bps: 1e9 queue: {packets: 1652}`},
	}
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.link), func(t *testing.T) {
			got := expandDirection(t, tt.link, map[string][]byte{"t.dist": []byte("# four\n-8192 0\n4096\t16384\n")})
			if diff := cmp.Diff(parseDirection(t, "shape: {"+tt.want+"}"), got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSchedules(t *testing.T) {
	got := expandDirection(t, `
    rate: 10Mbit
    delay: 10ms
    burst: 3kB
    paths: [{name: web, match: {protocol: tcp, port: 80}, loss: 1%}]
    schedule:
      period: 10s
      steps:
        - {at: 2s, rate: 5Mbit}
        - {at: 4s, delay: 80ms, ramp: 1s}
        - {at: 4s, path: web, delay: 5ms}
        - {at: 6s, down: true}
        - {at: 7s, down: false, rate: unlimited}
    backward: {schedule: [], paths: []}`, nil)
	want := `
  shape: {rate_bps: 1e7 delay: {nanos: 10000000} burst_bytes: 3000 queue: {packets: 100}}
  paths: {name: "web" match: {protocol: IP_PROTOCOL_TCP port: 80} shape: {loss: 0.01}}
  schedule_period: {seconds: 10}
  schedule: {at: {seconds: 2} shape: {rate_bps: 5e6 delay: {nanos: 10000000} burst_bytes: 3000 queue: {packets: 100}}}
  schedule: {at: {seconds: 4} ramp: {seconds: 1} shape: {rate_bps: 5e6 delay: {nanos: 80000000} burst_bytes: 3000 queue: {packets: 100}}}
  schedule: {at: {seconds: 4} path: "web" shape: {loss: 0.01 delay: {nanos: 5000000}}}
  schedule: {at: {seconds: 6} shape: {rate_bps: 5e6 delay: {nanos: 80000000} burst_bytes: 3000 queue: {packets: 100} down: true}}
  schedule: {at: {seconds: 7} shape: {delay: {nanos: 80000000}}}`
	if diff := cmp.Diff(parseDirection(t, want), got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestTraces(t *testing.T) {
	files := map[string][]byte{
		// 4 packets of 1514 B in 4 ms: 12.112 Mbit/s.
		"cell.trace": []byte("0\n1\n1\r\n\n# the end\n4\n"),
		"sat.csv":    []byte("loss,\"delay (ms)\",time_s,rate\n0,10,1600000000,1Mbit\n1%,20.5,1600000001.5,2Mbit\n,30,1600000003,\n"),
		"plain.csv":  []byte("0s,8Mbit\n500ms,9Mbit\n"),
	}
	tests := []struct{ link, want string }{
		{"    trace: cell.trace\n    rtt: 2s", `shape: {delay: {seconds: 1} queue: {packets: 2000}}
			trace: {name: "cell.trace" opportunities_ms: [0, 1, 1, 4]}`},
		{"    trace: {file: cell.trace, loop: false, opportunity: 100B}\n    queue: 64KiB", `shape: {queue: {bytes: 65536}}
			trace: {name: "cell.trace" opportunities_ms: [0, 1, 1, 4] opportunity_bytes: 100 once: true}`},
		{"    trace: cell.trace\n    forward: {rate: unlimited}", `shape: {queue: {packets: 100}} trace: {name: "cell.trace" opportunities_ms: [0, 1, 1, 4]}`},
		{"    rate: 10Mbit\n    burst: 3kB\n    forward: {trace: cell.trace}", `shape: {queue: {packets: 100}} trace: {name: "cell.trace" opportunities_ms: [0, 1, 1, 4]}`},
		{"    trace: sat.csv\n    duplicate: 1%", `
			shape: {rate_bps: 1e6 delay: {nanos: 10000000} duplicate: {probability: 0.01} queue: {packets: 100}}
			schedule: {at: {seconds: 1 nanos: 500000000} shape: {rate_bps: 2e6 delay: {nanos: 20500000} loss: 0.01 duplicate: {probability: 0.01} queue: {packets: 100}}}
			schedule: {at: {seconds: 3} shape: {rate_bps: 2e6 delay: {nanos: 30000000} loss: 0.01 duplicate: {probability: 0.01} queue: {packets: 100}}}`},
		{"    trace: {file: sat.csv, loop: true}", `
			shape: {rate_bps: 1e6 delay: {nanos: 10000000} queue: {packets: 100}} schedule_period: {seconds: 3}
			schedule: {at: {seconds: 1 nanos: 500000000} shape: {rate_bps: 2e6 delay: {nanos: 20500000} loss: 0.01 queue: {packets: 100}}}`},
		{"    loss: 1%\n    delay: 3ms\n    trace: plain.csv\n    queue: 50", `
			shape: {rate_bps: 8e6 loss: 0.01 delay: {nanos: 3000000} queue: {packets: 50}}
			schedule: {at: {nanos: 500000000} shape: {rate_bps: 9e6 loss: 0.01 delay: {nanos: 3000000} queue: {packets: 50}}}`},
		{"    schedule: [{at: 1s, down: true}]\n    forward: {schedule: [], trace: plain.csv}", `
			shape: {rate_bps: 8e6 queue: {packets: 100}} schedule: {at: {nanos: 500000000} shape: {rate_bps: 9e6 queue: {packets: 100}}}`},
	}
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.link), func(t *testing.T) {
			got := expandDirection(t, tt.link, files)
			if diff := cmp.Diff(parseDirection(t, tt.want), got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestShapesAreParameters holds that ${name} works in every corner of a shape.
func TestShapesAreParameters(t *testing.T) {
	src := lab(`params: {third: 3, cc: codel, at: 2s, file: a.trace, port: 80}
links:
  - between: [client, server]
    rate: 1Mbit
    loss: {packets: ["${third}", 5]}
    queue: {discipline: ${cc}}
    schedule: [{at: "${at}", down: true}]
    paths: [{name: web, match: {port: ${port}}}]
  - between: [client, server]
    trace: ${file}`)
	src.Attachments = map[string][]byte{"a.trace": []byte("1\n"), "b.trace": []byte("2\n")}
	f, err := Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	overrides := []Override{{"file", []string{"a.trace", "b.trace"}}, {"port", []string{"81"}}}
	named, err := f.Attachments(overrides)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Attachment{{"a.trace", 10, 12}, {"b.trace", 10, 12}}, named); diff != "" {
		t.Error(diff)
	}
	labs := expandAll(t, src, 2, overrides...)
	for i, want := range []uint32{1, 2} {
		if got := labs[i].GetLinks()[1].GetForward().GetTrace().GetOpportunitiesMs(); len(got) != 1 || got[0] != want {
			t.Errorf("point %d follows %v", i, got)
		}
		first := labs[i].GetLinks()[0].GetForward()
		if n := first.GetShape().GetLossPattern().GetPackets().GetNumbers(); fmt.Sprint(n) != "[3 5]" {
			t.Errorf("loses %v", n)
		}
		if p := first.GetPaths()[0].GetMatch().GetPort(); p != 81 {
			t.Errorf("port %d", p)
		}
	}
}

// TestDestinationOfNode holds that a node's name in a match stands for each of its
// addresses, and that a schedule follows.
func TestDestinationOfNode(t *testing.T) {
	got := expandDirection(t, `
    addresses: {client: [10.1.0.1/24, "fd00::1/64"], server: [10.1.0.2/24, "fd00::2/64"]}
    paths:
      - {name: web-2, match: {port: 81}}
      - {name: web, match: {destination: server, port: 80}, loss: 1%}
    schedule: [{at: 1s, path: web, loss: 2%}, {at: 2s, down: true}]`, nil)
	want := `shape: {}
  paths: {name: "web-2" match: {port: 81} shape: {}}
  paths: {name: "web" match: {port: 80 destination: "10.1.0.2/32"} shape: {loss: 0.01}}
  paths: {name: "web-3" match: {port: 80 destination: "fd00::2/128"} shape: {loss: 0.01}}
  schedule: {at: {seconds: 1} path: "web" shape: {loss: 0.02}}
  schedule: {at: {seconds: 1} path: "web-3" shape: {loss: 0.02}}
  schedule: {at: {seconds: 2} shape: {down: true}}`
	if diff := cmp.Diff(parseDirection(t, want), got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// TestSweepOfTracesIsBounded holds that points times steps do not fill the
// memory.
func TestSweepOfTracesIsBounded(t *testing.T) {
	var table strings.Builder
	table.WriteString("time_s,delay_ms\n")
	for i := range 10000 {
		fmt.Fprintf(&table, "%d,1\n", i)
	}
	src := lab("params: {a: [" + strings.Repeat("1, ", 60) + "]}\nlinks: [{between: [client, server], trace: long.csv}]")
	src.Attachments = map[string][]byte{"long.csv": []byte(table.String())}
	f, err := Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	const want = "lab.yaml:1:9: a sweep of 60 points is too much for schedules or traces of this length (sweep fewer values at once)"
	if _, err := f.Expand(nil); err == nil || err.Error() != want {
		t.Errorf("Expand: %v", err)
	}
}

// FuzzRecordings holds that no file brings the readers down, that every error
// says where, and that what passes makes a valid lab.
func FuzzRecordings(f *testing.F) {
	for _, content := range []string{
		"1\n2\n", "0\n", "-1", "1 2", "# x\n1e3\n", "time,rate\n0s,1Mbit\n", "time_s,loss\n0,1\n1,0.5\n", "0s,1Mbit,20ms,1%\n1s,,,\n",
		"time (ms),delay [us]\n\"0\",1\n", "-1 0 1\n", "8192 \t 8193", "time_s,delay_ms\n1e300,1e-300\n", "time,rate\n\n0s,0\n",
	} {
		f.Add([]byte(content))
	}
	src := func(link string, content []byte) Source {
		s := lab("links: [{between: [client, server], " + link + "}]")
		s.Attachments = map[string][]byte{"f.csv": content, "f.trace": content, "f.dist": content}
		return s
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 4096 {
			return
		}
		for _, link := range []string{"trace: f.csv", "trace: {file: f.csv, loop: true}", "trace: f.trace", "jitter: {amount: 1ms, table: f.dist}"} {
			file, err := Parse(src(link, content))
			if err != nil {
				t.Fatal(err)
			}
			labs, err := file.Expand(nil)
			if err != nil {
				mustBeProblems(t, err)
				continue
			}
			if err := Validate(labs[0]); err != nil {
				t.Fatal(err)
			}
		}
	})
}
