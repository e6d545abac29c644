package labs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// expandAll parses and expands a source that must be valid, and completes and
// validates each Lab once more, as one from the wire would be.
func expandAll(t *testing.T, src Source, points int, overrides ...Override) []*tcplabv1.Lab {
	t.Helper()
	f, err := Parse(src)
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	labs, err := f.Expand(overrides)
	if err != nil {
		t.Fatalf("Expand:\n%v", err)
	}
	if len(labs) != points {
		t.Fatalf("%d points, want %d", len(labs), points)
	}
	for _, lab := range labs {
		again := proto.CloneOf(lab)
		Complete(again)
		if diff := cmp.Diff(lab, again, protocmp.Transform()); diff != "" {
			t.Errorf("Complete changes what is complete:\n%s", diff)
		}
		if err := Assign(lab, nil); err != nil {
			t.Fatalf("Assign: %v", err)
		}
		if err := Validate(lab); err != nil {
			t.Errorf("Validate after Assign:\n%v", err)
		}
	}
	return labs
}

// lab is a file around the given lines, which start at line 1.
func lab(lines string) Source {
	return Source{Name: "lab.yaml", Content: []byte(lines + `
name: test
nodes: [client, server]
experiments:
  - flows:
      - {name: up, bulk: {from: client, to: server, bytes: 1MB}}
`)}
}

func TestExpandOrder(t *testing.T) {
	src := lab(`params: {a: [1, 2], b: "${a}0ms", c: [x, y, z]}
title: ${a} ${b} ${c}
links: [{between: [client, server], rtt: "${b}"}]`)
	var titles []string
	for _, l := range expandAll(t, src, 6) {
		titles = append(titles, l.GetTitle()+" "+l.GetLinks()[0].GetForward().GetShape().GetDelay().AsDuration().String())
	}
	want := []string{"1 10ms x 5ms", "1 10ms y 5ms", "1 10ms z 5ms", "2 20ms x 10ms", "2 20ms y 10ms", "2 20ms z 10ms"}
	if diff := cmp.Diff(want, titles); diff != "" {
		t.Error(diff)
	}
}

func TestExpandKeepsTypes(t *testing.T) {
	src := lab(`params: {rtt: 20ms, n: 40, share: 0.5, on: true, cc: cubic, text: "40"}
links: [{between: [client, server], rtt: ${rtt}}]`)
	l := expandAll(t, src, 1, Override{Name: "rtt", Values: []string{"50ms"}}, Override{Name: "on", Values: []string{"false"}})[0]
	got := make(map[string]any)
	for name, value := range l.GetPoint() {
		got[name] = value.AsInterface()
	}
	want := map[string]any{"rtt": "50ms", "n": 40.0, "share": 0.5, "on": false, "cc": "cubic", "text": "40"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExpandCompletes(t *testing.T) {
	src := Source{Name: "lab.yaml", Content: []byte(`
name: whole
nodes: {client: , s1: {kind: switch}, server: {on: host-a, sysctls: {net.ipv4.tcp_sack: 0}}}
links:
  - {between: [client, s1], rtt: 80ms, rate: 100Mbit, mtu: 3000}
  - between: [s1, server]
    mtu: 3000
    delay: 1ms
    rate: 1Mbit
    queue: 50ms
    loss: 1%
    forward: {rate: 2Mbit, queue: 64KiB, seed: 7}
    backward: {loss: 0, delay: 2ms}
  - {between: [client, server], engine: veth, offload: true}
  - {between: [client, server]}
experiments:
  - flows:
      - {name: ask, family: ipv6, start: 1s, transaction: {from: client, to: server, writes: 1KiB, reply: 2}}
expect:
  - {name: quick, measure: flow.ask.latency.p50, predict: 80ms, within: {slack: 2ms}}
`)}
	f, err := Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	labs, err := f.Expand(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `
name: "whole" repeat: 1
nodes: {name: "client" kind: NODE_KIND_ENDPOINT}
nodes: {name: "s1" kind: NODE_KIND_SWITCH}
nodes: {name: "server" kind: NODE_KIND_ENDPOINT host: "host-a" sysctls: {key: "net.ipv4.tcp_sack" value: "0"}}
links: {
  name: "client-s1" a: {node: "client"} b: {node: "s1"} engine: ENGINE_AUTO mtu: 3000
  # 100 Mbit/s × 80 ms = 1 MB, of frames of 9014 bytes.
  forward: {shape: {rate_bps: 1e8 delay: {nanos: 40000000} queue: {packets: 332}}}
  backward: {shape: {rate_bps: 1e8 delay: {nanos: 40000000} queue: {packets: 332}}}
}
links: {
  name: "s1-server" a: {node: "s1"} b: {node: "server"} engine: ENGINE_AUTO mtu: 3000
  forward: {seed: 7 shape: {rate_bps: 2e6 loss: 0.01 delay: {nanos: 1000000} queue: {bytes: 65536}}}
  backward: {shape: {rate_bps: 1e6 delay: {nanos: 2000000} queue: {time: {nanos: 50000000}}}}
}
links: {
  name: "client-server" a: {node: "client"} b: {node: "server"} engine: ENGINE_VETH mtu: 1500 offload: true
  forward: {shape: {}} backward: {shape: {}}
}
links: {
  name: "client-server-2" a: {node: "client"} b: {node: "server"} engine: ENGINE_AUTO mtu: 1500
  forward: {shape: {}} backward: {shape: {}}
}
experiments: {
  sample_interval: {nanos: 10000000} timeout: {seconds: 60}
  flows: {
    name: "ask" client: "client" server: "server" family: IP_FAMILY_IPV6 start: {seconds: 1}
    transaction: {writes: 1024 reply: 2 count: 1 connections: 1}
    socket: {no_delay: true}
  }
}
expectations: {name: "quick" measure: "flow.ask.latency.p50" predict: "0.08" within_slack: "0.002" over: OVER_MEDIAN}
`
	if diff := cmp.Diff(parseText(t, want), labs[0], protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestDumbbell(t *testing.T) {
	src := Source{Name: "lab.yaml", Content: []byte(`
name: dumbbell
nodes:
  c1: {}
  c2: {}
  left: {kind: router}
  right: {kind: router}
  s1: {}
  s2: {}
links:
  - between: [c1, left]
  - between: [c2, left]
  - {between: [left, right], rtt: 20ms, rate: 10Mbit, queue: 100}
  - between: [right, s1]
  - between: [right, s2]
experiments:
  - flows:
      - {name: one, bulk: {from: c1, to: s1, bytes: 1MB}}
      - {name: two, bulk: {from: s2, to: c2, duration: 5s}}
`)}
	expandAll(t, src, 1)
}

func TestSweepIsBounded(t *testing.T) {
	var list strings.Builder
	for i := range 400 {
		fmt.Fprintf(&list, "%d, ", i)
	}
	f, err := Parse(lab("params: {a: [" + list.String() + "], b: [" + list.String() + "], c: 1}\nlinks: [{between: [client, server]}]"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Expand(nil)
	if err == nil || !strings.Contains(err.Error(), "lab.yaml:1:9: the sweep has more than 100000 points") {
		t.Errorf("Expand: %v", err)
	}
	labs, err := f.Expand([]Override{{"a", []string{"1"}}})
	if err != nil || len(labs) != 400 {
		t.Errorf("with one value of a: %d points, %v", len(labs), err)
	}
}

// A parameter that is true or false chooses between two values, of whatever type they are.
func TestChoice(t *testing.T) {
	f, err := Parse(lab(`params: {full: false, long: "${full ? 4s : 2s}", streams: 1}
links: [{between: [client, server], rtt: "${long}", loss: "${full ? 1% : 0}", rate: "${full ? 2 : 1}Mbit"}]`))
	if err != nil {
		t.Fatal(err)
	}
	points, err := f.Expand([]Override{{"full", []string{"false", "true"}}})
	if err != nil || len(points) != 2 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	for i, want := range []struct {
		delay      time.Duration
		loss, rate float64
		long       string
	}{{time.Second, 0, 1e6, "2s"}, {2 * time.Second, 0.01, 2e6, "4s"}} {
		shape := points[i].GetLinks()[0].GetForward().GetShape()
		if shape.GetDelay().AsDuration() != want.delay || shape.GetLoss() != want.loss || shape.GetRateBps() != want.rate {
			t.Errorf("point %d: %v, want %+v", i, shape, want)
		}
		if got := points[i].GetPoint()["long"].GetStringValue(); got != want.long {
			t.Errorf("point %d: long is %q, want %q", i, got, want.long)
		}
	}
}

func TestOverrideProblems(t *testing.T) {
	f, err := Parse(lab("params: {rtt: 20ms, base: 1}\nlinks: [{between: [client, server], rtt: ${rtt}}]"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		overrides []Override
		want      string
	}{
		{"unknown", []Override{{"rt", []string{"1ms"}}}, `--set: unknown parameter "rt" (did you mean "rtt"?)`},
		{"none near", []Override{{"zzz", []string{"1ms"}}}, `--set: unknown parameter "zzz" (the parameters are rtt, base)`},
		{"twice", []Override{{"rtt", []string{"1ms"}}, {"rtt", []string{"2ms"}}}, `--set: the parameter "rtt" is set twice (several values are written rtt=a,b)`},
		{"no value", []Override{{"rtt", nil}}, `--set: the parameter "rtt" has no value`},
		{"empty", []Override{{"rtt", []string{""}}}, `--set: the parameter "rtt" has no value (an empty text is written rtt='')`},
		{"nan", []Override{{"rtt", []string{".nan"}}}, `--set: rtt=.nan is not a finite number`},
		{"circle", []Override{{"rtt", []string{"${base}"}}, {"base", []string{"${rtt}"}}}, `--set: parameters refer to one another in a circle: rtt → base → rtt`},
		{"unit", []Override{{"rtt", []string{"20ms", "10Mbit"}}}, `lab.yaml:2:42: 10Mbit is a rate; want a duration, at rtt=10Mbit (such as 20ms)`},
		{"negative", []Override{{"rtt", []string{"-1ms"}}}, `lab.yaml:2:42: -1ms is negative, at rtt=-1ms`},
		{"too long", []Override{{"rtt", []string{"3h"}}}, `lab.yaml:2:42: value must be greater than or equal to 0s and less than or equal to 3600s, at rtt=3h`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.Expand(tt.overrides)
			if err == nil {
				t.Fatal("Expand found no problem")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A lab may stand without experiments, at one point; nothing else is let go.
func TestStand(t *testing.T) {
	bare := func(lines string) *File {
		f, err := Parse(Source{Name: "lab.yaml", Content: []byte("name: bare\nparams: {rtt: [10ms, 20ms]}\nnodes: [client, server]\n" + lines)})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := bare("links: [{between: [client, server], rtt: \"${rtt}\"}]\n")
	one := []Override{{Name: "rtt", Values: []string{"30ms"}}}
	l, err := f.Stand(one)
	if err != nil {
		t.Fatal(err)
	}
	if l.GetLinks()[0].GetForward().GetShape().GetDelay().AsDuration() != 15*time.Millisecond || ValidateStanding(l) != nil {
		t.Errorf("it stands as %v", l)
	}
	if err := Validate(l); err == nil || !strings.Contains(err.Error(), "no experiments") {
		t.Errorf("to be run it is %v", err)
	}
	for name, test := range map[string]struct {
		file *File
		over []Override
		run  bool
		want string
	}{
		"a sweep":              {f, nil, false, `lab.yaml:2:16: a lab stands at one point, and "rtt" has 2 values (choose one: --set rtt=10ms)`},
		"a sweep of overrides": {f, []Override{{Name: "rtt", Values: []string{"1ms", "2ms"}}}, false, "--set: a lab stands at one point"},
		"an unknown node":      {bare("links: [{between: [client, sever]}]\n"), one, false, "unknown node"},
		"to be run":            {f, one, true, "the lab has no experiments"},
		"unknown parameter":    {f, []Override{{Name: "no", Values: []string{"1ms"}}}, false, "unknown parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if test.run {
				_, err = test.file.Expand(test.over)
			} else {
				_, err = test.file.Stand(test.over)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
