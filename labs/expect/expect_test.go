package expect_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const ms = time.Millisecond

// testLab has two nodes, one with a hyphen in its name, and two flows.
func testLab() *tcplabv1.Lab {
	return &tcplabv1.Lab{
		Name: "test",
		Point: map[string]*structpb.Value{
			"rtt":        structpb.NewStringValue("20ms"),
			"rate":       structpb.NewStringValue("10Mbit"),
			"size":       structpb.NewStringValue("64KiB"),
			"count":      structpb.NewNumberValue(40),
			"no_delay":   structpb.NewBoolValue(false),
			"congestion": structpb.NewStringValue("reno"),
		},
		Nodes: []*tcplabv1.Node{{Name: "client"}, {Name: "node-1"}},
		Links: []*tcplabv1.Link{{Name: "access"}, {Name: "client-server"}},
		Experiments: []*tcplabv1.Experiment{{Capture: &tcplabv1.Capture{Nodes: []string{"client", "node-1"}}, Flows: []*tcplabv1.Flow{
			{Name: "get", Client: "client", Server: "node-1"},
			{Name: "bulk", Client: "client", Server: "node-1"},
		}}},
	}
}

// testResult is a trial whose transactions took latency and whose `bulk` flow failed.
func testResult(latency time.Duration) *tcplabv1.TrialResult {
	summary := func(d time.Duration) *tcplabv1.LatencySummary {
		p := durationpb.New(d)
		return &tcplabv1.LatencySummary{Count: 40, Min: p, Mean: p, P50: p, P90: p, P99: p, Max: p}
	}
	return &tcplabv1.TrialResult{
		Kernel: &tcplabv1.Kernel{Release: "6.18.44-test", Hz: 250},
		Flows: []*tcplabv1.FlowResult{
			{
				Name: "get", Kind: "transaction", GoodputBps: 9.5e6, Bytes: 4000,
				Connect: summary(20 * ms), Latency: summary(latency),
				Client: &tcplabv1.FlowEnd{
					Node: "client", Congestion: "reno", StatePath: "SYN_SENT ESTABLISHED",
					CongestionInfo: &tcplabv1.CongestionInfo{Control: &tcplabv1.CongestionInfo_Bbr{Bbr: &tcplabv1.BbrInfo{BandwidthBps: 8e6, PacingGain: 1.25}}},
					TcpInfo:        &tcplabv1.TcpInfo{SndCwnd: 10, SndMss: 1448, Rtt: durationpb.New(20 * ms)},
				},
				Writes:      []*tcplabv1.WriteTiming{{}, {Bytes: 100, Latency: durationpb.New(30 * ms)}},
				Connections: &tcplabv1.Connections{Made: 7, Rate: 12.5, Errors: &tcplabv1.ConnectionErrors{Total: 4, Refused: 3, Reset_: 1}},
				Server: &tcplabv1.FlowEnd{Node: "node-1", CwndSeries: []*tcplabv1.CwndChange{
					{At: durationpb.New(30 * ms), SndCwnd: 10, SndSsthresh: 2147483647},
					{At: durationpb.New(50 * ms), SndCwnd: 20, SndSsthresh: 2147483647},
					{At: durationpb.New(70 * ms), SndCwnd: 40, SndSsthresh: 30},
				}},
			},
			{Name: "bulk", Kind: "bulk", Bytes: 77, Client: &tcplabv1.FlowEnd{BytesWritten: 100}, Error: "connection reset by peer", Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET, Latency: &tcplabv1.LatencySummary{}},
		},
		Links: []*tcplabv1.LinkReport{
			{Name: "access", Direction: tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD, Path: "web", Counters: &tcplabv1.LinkCounters{Lost: 99}},
			{Name: "access", Direction: tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD, Counters: &tcplabv1.LinkCounters{Lost: 3, PeakQueue: 40}},
			{
				Name: "client-server", Direction: tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD, Engine: tcplabv1.Engine_ENGINE_NETEM,
				Counters: &tcplabv1.LinkCounters{Delivered: 7}, Lateness: &tcplabv1.LinkLateness{Summary: summary(2 * ms)},
				Queue: &tcplabv1.QueueSummary{Count: 9, P99: 41, BytesMax: 60000},
			},
		},
		Sockets: []*tcplabv1.NodeSockets{
			{Node: "client", States: []*tcplabv1.StateTotals{
				{State: tcplabv1.TcpState_TCP_STATE_TIME_WAIT, Entered: 3, Peak: 2, Last: 1, Longest: durationpb.New(time.Minute)},
			}},
			{Node: "node-1", Lost: 5},
		},
		Counters: []*tcplabv1.NodeCounters{
			{Node: "client", Values: map[string]int64{"TcpActiveOpens": 1, "TcpRetransSegs": 0}},
			{Node: "node-1", Values: map[string]int64{"TcpExtDelayedACKs": 39}},
		},
		Captures: []*tcplabv1.NodeCapture{
			{Node: "node-1", Packets: 9, Dropped: 1, All: &tcplabv1.CapturedFlow{Connections: 3}},
			{
				Node: "client", Packets: 100, All: &tcplabv1.CapturedFlow{Connections: 2},
				Flows: []*tcplabv1.CapturedFlow{{
					Name: "get", SynAck: &tcplabv1.CapturedTimes{}, Handshake: &tcplabv1.CapturedTimes{Count: 1, P50: durationpb.New(20 * ms)},
					Client: &tcplabv1.CapturedEnd{Retransmissions: 2, Bytes: 4000, NagleTime: durationpb.New(40 * ms), Mss: 1460},
				}},
			},
		},
	}
}

func results(latencies ...time.Duration) []*tcplabv1.TrialResult {
	var rs []*tcplabv1.TrialResult
	for _, l := range latencies {
		rs = append(rs, testResult(l))
	}
	return rs
}

func evaluate(t *testing.T, e *tcplabv1.Expectation, rs []*tcplabv1.TrialResult) (*tcplabv1.ExpectationResult, error) {
	t.Helper()
	e.Name = "test"
	p, err := expect.Compile(testLab(), e)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return p.Evaluate(rs)
}

// Each expression beside its value in the test result and its unit.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		expr string
		want float64
		unit string
	}{
		{"40", 40, ""},
		{"link.access.forward.lost", 3, ""},
		{"link.access.forward.peak_queue", 40, ""},
		{`link["client-server"].backward.delivered + 1`, 8, ""},
		{`link["client-server"].backward.lateness.p99`, 0.002, "s"},
		{`link["client-server"].backward.queue.p99`, 41, ""},
		{`link["client-server"].backward.queue.bytes_max`, 60000, "B"},
		{"sockets.client.time_wait.peak", 2, ""},
		{"sockets.client.time_wait.longest", 60, "s"},
		{"sockets.client.close_wait.entered", 0, ""},
		{"flow.get.client.congestion_info.bbr.bandwidth_bps", 8e6, "bit/s"},
		{"0.9 * 40", 36, ""},
		{"capture.client.packets", 100, ""},
		{"capture.client.all.connections", 2, ""},
		{"capture.client.flow.get.client.retransmissions", 2, ""},
		{"capture.client.flow.get.client.bytes", 4000, "B"},
		{"capture.client.flow.get.client.mss", 1460, "B"},
		{"capture.client.flow.get.client.nagle_time / 2", 0.02, "s"},
		{"capture.client.flow.get.handshake.p50", 0.02, "s"},
		{`capture["node-1"].dropped`, 1, ""},
		{"rtt * 2", 0.04, "s"},
		{"2 * rtt + 40 / 1000", 0.08, "s"},
		{"-(rtt)", -0.02, "s"},
		{"size * 8 / rate", 0.0524288, "s"},
		{"rate * rtt / 8", 25000, "B"},
		{"count", 40, ""},
		{"1e-3", 0.001, ""},
		{"flow.get.connect.p50", 0.02, "s"},
		{"flow.get.latency.p50", 0.084, "s"},
		{"flow.get.client.latency.p50", 0.084, "s"},
		{"flow.get.client.connect.max", 0.02, "s"},
		{"flow.get.latency.p50 / flow.get.connect.p50", 4.2, ""},
		{"flow.get.client.tcp_info.snd_cwnd", 10, ""},
		{"flow.get.client.tcp_info.snd_mss", 1448, "B"},
		{"flow.get.client.tcp_info.rwnd_limited", 0, "s"},
		{"flow.get.goodput_bps", 9.5e6, "bit/s"},
		{"flow.get.bytes", 4000, "B"},
		{"counter.client.TcpActiveOpens", 1, ""},
		{`counter["node-1"].TcpExtDelayedACKs`, 39, ""},
		{`counter['client'].TcpRetransSegs`, 0, ""},
		{"size(flow.get.server.cwnd_series)", 3, ""},
		{"at(flow.get.server.cwnd_series, 2 * rtt)", 10, ""},
		{"at(flow.get.server.cwnd_series, 0.05)", 20, ""},
		{"at(flow.get.server.cwnd_series, 10)", 40, ""},
		{"flow.get.server.cwnd_series[2].snd_ssthresh", 30, ""},
		{"flow.get.server.cwnd_series[1].at", 0.05, "s"},
		{"flow.get.writes[1].latency", 0.03, "s"},
		{"flow.get.writes[1].bytes", 100, "B"},
		{"flow.get.connections.made", 7, ""},
		{"flow.get.connections.rate", 12.5, ""},
		{"flow.get.connections.errors.refused", 3, ""},
		{"flow.get.errors.refused + flow.get.errors.total", 7, ""},
		{"kernel.hz", 250, ""},
		{"kernel.jiffy", 0.004, "s"},
		{"2 * kernel.jiffy", 0.008, "s"},
		{"kernel.at_least(6, 5) ? 1 : 2", 1, ""},
		{"kernel.at_least(6, 19) ? 1 : 2", 2, ""},
		{"kernel.at_least(5, 30) ? rtt : 2 * rtt", 0.02, "s"},
		{"no_delay ? 1 : 2", 2, ""},
		{`congestion == "reno" ? 1 : 2`, 1, ""},
		{`flow.get.client.congestion == congestion ? 1 : 2`, 1, ""},
		{"theory.write_write_read(rtt, theory.nagle, kernel.hz)", 0.084, "s"},
		{"theory.write_write_read(rtt, theory.no_delay, kernel.hz)", 0.02, "s"},
		{"theory.write_write_read(rtt, theory.quick_ack, kernel.hz)", 0.04, "s"},
		{"theory.handshake(rtt, 0)", 0.02, "s"},
		{"theory.first_request(rtt, 0.001, 100, 100, 0)", 0.041, "s"},
		{"theory.fast_open_request(rtt, 0, 100, 100, 0)", 0.02, "s"},
		{"theory.request(rtt, 0, 100, 100, 0)", 0.02, "s"},
		{"theory.slow_start(14481, rtt, 0)", 0.06, "s"},
		{"theory.rounds(14481)", 2, ""},
		{"theory.window(3)", 40, ""},
		{"theory.syn_delay(6, 4)", 7, "s"},
		{"theory.serialization(1250, rate)", 0.001, "s"},
		{"theory.initial_window * theory.mss", 14480, "B"},
		{"theory.infinite", 2147483647, ""},
		{"theory.delayed_ack", 0.04, "s"},
		{"max(rtt, 1, 2)", 2, "s"},
		{"min(rtt, 1)", 0.02, "s"},
		{"ceil(log2(14481 / 14480 + 1))", 2, ""},
		{"floor(2.7) + round(2.5) + abs(-1) + sqrt(16) + pow(2, 3)", 18, ""},
	} {
		got, err := evaluate(t, &tcplabv1.Expectation{Measure: c.expr, Predict: "0", WithinSlack: "0"}, results(84*ms))
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		if math.Abs(got.GetMeasured()-c.want) > 1e-12*math.Max(1, math.Abs(c.want)) || got.GetUnit() != c.unit {
			t.Errorf("%s = %v %q, want %v %q", c.expr, got.GetMeasured(), got.GetUnit(), c.want, c.unit)
		}
	}
}

// Each wrong expression beside the place in it (marked ^) and what is said.
func TestCompileErrors(t *testing.T) {
	for _, c := range []struct{ field, expr, want string }{
		{"measure", "flow.^gett.connect.p50", "the lab has no flow gett (did you mean get?)"},
		{"measure", "flow.get.^conect.p50", "flow.get has no field conect (did you mean connect?)"},
		{"measure", "flow.get.connect.^p51", "flow.get.connect has no field p51 (did you mean p50?)"},
		{"measure", "flow.get.client.tcp_info.^snd_cwmd", "did you mean snd_cwnd?"},
		{"measure", "flow.get.^erorrs.reset", "flow.get has no field erorrs (did you mean error"},
		{"measure", "flow.get.errors.^address_in_used", "did you mean address_in_use?"},
		{"measure", "flow.get.server.cwnd_series[0].^cwnd", "has no field cwnd"},
		{"measure", "flow.get.connect.p50.^x", "flow.get.connect.p50 is a number and has no field x"},
		{"measure", "counter.^clint.TcpActiveOpens", "the lab has no node clint (did you mean client?)"},
		{"measure", "counter.client.^opens", "opens is not the name of a kernel counter, such as TcpExtDelayedACKs"},
		{"measure", `counter["^node-2"].TcpActiveOpens`, "the lab has no node node-2 (did you mean node-1?)"},
		{"measure", "link.^acces.forward.lost", "the lab has no link acces (did you mean access?)"},
		{"measure", "link.access.^forwards.lost", "link.access has no field forwards (did you mean forward?)"},
		{"measure", "link.access.forward.^lots", "has no field lots (did you mean lost?)"},
		{"predict", "^link.access.forward.lost", "link is what was measured"},
		{"measure", "capture.^clint.packets", "the lab captures at no node clint (did you mean client?)"},
		{"measure", "capture.client.^flows[0].connections", "capture.client has no field flows (did you mean flow?)"},
		{"measure", "capture.client.flow.^gett.connections", "the lab has no flow gett (did you mean get?)"},
		{"measure", "capture.client.flow.get.client.^retransmits", "has no field retransmits"},
		{"predict", "^capture.client.packets", "capture is what was measured"},
		{"measure", "^flw.get.connect.p50", "unknown name flw (did you mean flow?)"},
		{"measure", "1 + ^rrt", "unknown name rrt (did you mean rtt?)"},
		{"measure", "kernel.^hzz", "kernel has no field hzz (did you mean hz?)"},
		{"measure", "flow.get^", "a number is needed, this is the object FlowResult"},
		{"measure", "rtt ^> 1", "a number is needed, this is a condition (true or false)"},
		{"measure", "rtt ^+ congestion", "+ cannot be applied to (a number, a text)"},
		{"measure", "no_delay ^* 2", "* cannot be applied to (a condition (true or false), a number)"},
		{"measure", "rtt +^", "the expression ends too early"},
		{"measure", "^" + strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200), "too long or nested too deeply"},
		{"measure", "^1" + strings.Repeat(" + 1", 1100), "too long or nested too deeply"},
		{"measure", "rtt ^rtt", `"rtt" does not belong here`},
		{"measure", "rtt ^# 2", `'#' does not belong here`},
		{"measure", "^cel(2)", "unknown function cel (did you mean ceil?)"},
		{"measure", "^ceil(2, 3)", "it is called ceil(x); given are (a number, a number)"},
		{"measure", "^[1, 2][0]", "lists and maps have no place"},
		{"measure", "rtt + ^{1: 2}[1]", "lists and maps have no place"},
		{"measure", "theory.nagle ^== theory.nagle ? 1 : 2", "== cannot be applied to (a policy, a policy)"},
		{"predict", "^flow.get.connect.p50", "flow is what was measured"},
		{"predict", "^theory.slow_tsart(1, 2, 3)", "unknown function theory.slow_tsart (did you mean theory.slow_start?)"},
		{"predict", "^theory.slow_start(1, 2)", "it is called theory.slow_start(bytes, rtt, rate); given are (a number, a number)"},
		{"predict", "^theory.write_write_read(rtt, 2, kernel.hz)", "it is called theory.write_write_read(rtt, policy, hz)"},
		{"predict", "theory.^nagel", "theory has no nagel (did you mean nagle?)"},
		{"predict", "^at(rtt, 2)", "it is called at(series, t)"},
		{"predict", "^kernel.at_least(6) ? 1 : 2", "it is called kernel.at_least(major, minor); given are (a number)"},
		{"where", "^kernel.hz > 100", "kernel is not known before the run"},
		{"where", "rtt^", "a condition (true or false) is needed, this is a number"},
		{"that", "counter.client.TcpActiveOpens^", "a condition (true or false) is needed, this is a number"},
		{"that", "rtt ^== \"x\"", "== cannot be applied to (a number, a text)"},
		{"that", "flow.get.outcome == ^\"refuse\"", `flow.get.outcome is never "refuse" (did you mean refused?): it is one of completed, refused, reset`},
		{"that", "^\"DEADLINE\" != flow.get.outcome", "did you mean deadline?"},
		{"rival", "^counter.client.TcpActiveOpens", "counter is what was measured"},
		{"within.slack", "^jiffy", "unknown name jiffy"},
		{"measure", "\"é\" == congestion ? ^ratt : 1", "did you mean rate?"},
		{"measure", "rtt +\n  ^ratt", "did you mean rate?"},
	} {
		offset := strings.Index(c.expr, "^")
		expr := c.expr[:offset] + c.expr[offset+1:]
		e := &tcplabv1.Expectation{Name: "test", Measure: "1", Predict: "1"}
		switch c.field {
		case "measure":
			e.Measure = expr
		case "predict":
			e.Predict = expr
		case "where":
			e.Where = expr
		case "rival":
			e.Rival = expr
		case "within.slack":
			e.WithinSlack = expr
		case "that":
			e = &tcplabv1.Expectation{Name: "test", That: expr}
		}
		_, err := expect.Compile(testLab(), e)
		var got *expect.Error
		if !errors.As(err, &got) {
			t.Errorf("%s: error is %v, want an *expect.Error", expr, err)
			continue
		}
		for _, jargon := range []string{"overload", "double", "undeclared", "container", "'_"} {
			if strings.Contains(got.Message, jargon) {
				t.Errorf("%s: %q speaks of %s", expr, got.Message, jargon)
			}
		}
		whole := strings.Contains(c.want, "is needed, this is") // said of the whole expression
		if got.Field != c.field || !strings.Contains(got.Message, c.want) || !whole && got.Offset != offset {
			t.Errorf("%s: %s at %d: %q\n\twant %s at %d: %q", expr, got.Field, got.Offset, got.Message, c.field, offset, c.want)
		}
	}
}

// What was not measured is never compared.
func TestEvaluationErrors(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{"flow.bulk.goodput_bps", "the flow bulk failed: connection reset by peer"},
		{"flow.bulk.latency.p50", "the flow bulk failed: connection reset by peer"},
		{"flow.bulk.client.latency.p50", "the flow bulk failed: connection reset by peer"},
		{"flow.get.server.tcp_info.snd_cwnd", "flow.get.server.tcp_info was not reported"},
		{"flow.bulk.errors.reset", "flow.bulk.connections was not reported"},
		{`capture["node-1"].all.connections`, "the capture at node-1 is not whole: 1 packets were dropped and 0 left out"},
		{`capture["node-1"].flow.get.connections`, "the capture at node-1 is not whole"},
		{"capture.client.flow.bulk.connections", "at client no connection of the flow bulk was captured"},
		{"capture.client.flow.get.syn_ack.p50", "is of no measurement: the count is 0"},
		{"counter.client.TcpActiveOpen", "the kernel of client has no counter TcpActiveOpen (did you mean TcpActiveOpens?)"},
		{"counter.client.TcpExtDelayedACKs", "the kernel of client has no counter TcpExtDelayedACKs"},
		{"link.access.forward.lateness.p50", "was not measured: the engine cannot know it"},
		{"link.access.forward.queue.mean", "link[\"access\"].forward.queue was not looked at: give the experiment `observe: {queues: true}`"},
		{`sockets["node-1"].time_wait.peak`, "5 changes were lost"},
		{"flow.get.client.congestion_info.vegas.rtt", "flow.get.client.congestion_info.vegas was not reported"},
		{`link["client-server"].backward.peak_queue`, "was not measured: the engine cannot know it"},
		{"link.access.backward.lost", "the trial has no report of the link access backward"},
		{"rtt / (count - 40)", "a / b: the result is +Inf"},
		{"log2(0 - 1)", "log2(x): the result is NaN"},
		{"(count - 40) / (count - 40)", "the result is NaN"},
		{"at(flow.get.server.cwnd_series, 0.001)", "nothing is known at 0.001 s: the first sample is from 0.03 s"},
		{"at(flow.get.client.cwnd_series, 1)", "the series is empty"},
		{"flow.get.server.cwnd_series[7].snd_cwnd", "index out of bounds"},
		{"theory.slow_start(0 - 1, rtt, rate)", "argument 1 is -1, out of range"},
		{"theory.handshake(1e9, rate)", "out of range"},
	} {
		got, err := evaluate(t, &tcplabv1.Expectation{Measure: c.expr, Predict: "0"}, results(84*ms))
		if err == nil {
			t.Errorf("%s is %v, want an error", c.expr, got.GetMeasured())
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %q, want %q in it", c.expr, err, c.want)
		}
	}
	got, err := evaluate(t, &tcplabv1.Expectation{That: `flow.bulk.error == "connection reset by peer"`}, results(84*ms))
	if err != nil || got.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
		t.Errorf("a flow's error can be asked for: %v, %v", got.GetVerdict(), err)
	}
	got, err = evaluate(t, &tcplabv1.Expectation{That: `flow.get.client.state_path == "SYN_SENT ESTABLISHED"`}, results(84*ms))
	if err != nil || got.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
		t.Errorf("a socket's states can be asked for: %v, %v", got.GetVerdict(), err)
	}
	if _, err = evaluate(t, &tcplabv1.Expectation{That: `flow.get.server.state_path == ""`}, results(84*ms)); err == nil || !strings.Contains(err.Error(), "observe: {states: true}") {
		t.Errorf("states that nobody followed: %v", err)
	}
	got, err = evaluate(t, &tcplabv1.Expectation{That: `flow.bulk.outcome == "reset" && flow.bulk.bytes == 77 && flow.bulk.client.bytes_written == 100 && flow.get.outcome != "deadline"`}, results(84*ms))
	if err != nil || got.GetVerdict() != tcplabv1.Verdict_VERDICT_PASSED {
		t.Errorf("a flow's outcome can be asked for: %v, %v", got.GetVerdict(), err)
	}
	nan := testResult(84 * ms)
	nan.Flows[0].GoodputBps = math.NaN()
	if got, err := evaluate(t, &tcplabv1.Expectation{That: "flow.get.goodput_bps < 1 || flow.get.goodput_bps >= 1"}, []*tcplabv1.TrialResult{nan}); err == nil {
		t.Errorf("a NaN in a condition gives %v, want an error", got.GetVerdict())
	}
}

func TestEvaluate(t *testing.T) {
	const passed, failed = tcplabv1.Verdict_VERDICT_PASSED, tcplabv1.Verdict_VERDICT_FAILED
	nagle := func(over tcplabv1.Over) *tcplabv1.Expectation {
		return &tcplabv1.Expectation{
			Measure:     "flow.get.latency.p50",
			Predict:     "theory.write_write_read(rtt, theory.nagle, kernel.hz)",
			WithinRatio: 0.03, WithinSlack: "kernel.jiffy", Over: over, Source: "RFC 896",
		}
	}
	for _, c := range []struct {
		name   string
		e      *tcplabv1.Expectation
		rs     []*tcplabv1.TrialResult
		want   tcplabv1.Verdict
		detail string
	}{
		{"one", nagle(0), results(84 * ms), passed, "measured 84 ms, predicted 84 ms within 4 ms"},
		{"the median", nagle(0), results(84*ms, 40*ms, 86*ms), passed, "measured 84 ms, predicted 84 ms within 4 ms"},
		{"median of an even number", nagle(0), results(84*ms, 92*ms), passed, "measured 88 ms, predicted 84 ms within 4 ms"},
		{"too far", nagle(0), results(40*ms, 40*ms, 84*ms), failed, "measured 40 ms, predicted 84 ms: they differ by 44 ms, permitted is 4 ms"},
		{"every", nagle(tcplabv1.Over_OVER_EVERY), results(84*ms, 90*ms, 82*ms), failed, "measured 90 ms, the farthest of 3, predicted 84 ms: they differ by 6 ms, permitted is 4 ms"},
		{"a condition", &tcplabv1.Expectation{That: `counter["node-1"].TcpExtDelayedACKs >= 0.9 * count`}, results(84*ms, 84*ms), passed, "39 >= 36 holds"},
		{"a condition that fails", &tcplabv1.Expectation{That: "flow.get.latency.max < 2 * rtt"}, results(84 * ms), failed, "84 ms < 40 ms does not hold"},
		{"every condition", &tcplabv1.Expectation{That: "flow.get.latency.max < 2 * rtt", Over: tcplabv1.Over_OVER_EVERY}, results(20*ms, 50*ms, 20*ms), failed, "50 ms < 40 ms does not hold in repetition 2 of 3"},
		{"every condition holds", &tcplabv1.Expectation{That: "flow.get.latency.max < 2 * rtt", Over: tcplabv1.Over_OVER_EVERY}, results(20*ms, 30*ms), passed, "20 ms < 40 ms holds in each of 2 repetitions"},
		{"two conditions", &tcplabv1.Expectation{That: "flow.get.latency.max < 2 * rtt && !no_delay"}, results(20*ms, 50*ms, 21*ms), passed, "holds in 2 of 3 repetitions"},
		{"half of them is not enough", &tcplabv1.Expectation{That: "flow.get.latency.max < 2 * rtt && !no_delay"}, results(20*ms, 50*ms), failed, "holds in 1 of 2 repetitions"},
		{"none", nagle(0), nil, tcplabv1.Verdict_VERDICT_INCONCLUSIVE, "no trial was carried out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := evaluate(t, c.e, c.rs)
			if err != nil {
				t.Fatal(err)
			}
			if got.GetVerdict() != c.want || got.GetDetail() != c.detail {
				t.Errorf("%v: %s\nwant %v: %s", got.GetVerdict(), got.GetDetail(), c.want, c.detail)
			}
		})
	}
	got, err := evaluate(t, nagle(0), results(84*ms, 85*ms, 86*ms))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{0.084, 0.085, 0.086}, got.GetRepetitions()); diff != "" {
		t.Errorf("repetitions (-want +got):\n%s", diff)
	}
	if got.GetUnit() != "s" || got.GetSource() != "RFC 896" || got.GetName() != "test" || len(got.GetPoint()) != 6 {
		t.Errorf("result lacks unit, source, name or point: %v", got)
	}
}

func TestApplies(t *testing.T) {
	for where, want := range map[string]bool{
		"": true, "no_delay": false, "!no_delay": true, "rtt >= 0.02 && count > 3": true,
		"theory.rounds(14481) == 1": false, "no_delay == false": true, `congestion != "reno"`: false,
	} {
		p, err := expect.Compile(testLab(), &tcplabv1.Expectation{Name: "test", That: "true", Where: where})
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if got, err := p.Applies(); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", where, got, err, want)
		}
	}
}

func TestCheckContrast(t *testing.T) {
	for _, c := range []struct {
		slack, rival string
		hz           uint32
		want         string
	}{
		{"kernel.jiffy", "rtt", 250, ""},
		{"kernel.jiffy", "rtt", 100, ""},
		{"4 * kernel.jiffy", "rtt", 250, "permits 16 ms, which is not below a quarter of the contrast between 84 ms and its rival 20 ms"},
		{"0", "theory.write_write_read(rtt, theory.nagle, kernel.hz)", 250, "permits 0 s"},
	} {
		p, err := expect.Compile(testLab(), &tcplabv1.Expectation{
			Name: "test", Measure: "flow.get.latency.p50", WithinSlack: c.slack, Rival: c.rival,
			Predict: "theory.write_write_read(rtt, theory.nagle, kernel.hz)",
		})
		if err != nil {
			t.Fatal(err)
		}
		err = p.CheckContrast(&tcplabv1.Kernel{Hz: c.hz})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("slack %s: %v", c.slack, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("slack %s: error %v, want %q in it", c.slack, err, c.want)
		}
	}
	p, err := expect.Compile(testLab(), &tcplabv1.Expectation{Name: "test", Measure: "1", Predict: "kernel.jiffy", Rival: "0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckContrast(&tcplabv1.Kernel{}); err == nil {
		t.Error("a kernel without HZ has a jiffy")
	}
}

func TestVerdict(t *testing.T) {
	const passed, failed, inconclusive = tcplabv1.Verdict_VERDICT_PASSED, tcplabv1.Verdict_VERDICT_FAILED, tcplabv1.Verdict_VERDICT_INCONCLUSIVE
	for _, c := range []struct {
		in   []tcplabv1.Verdict
		want tcplabv1.Verdict
	}{
		{nil, inconclusive},
		{[]tcplabv1.Verdict{passed, passed}, passed},
		{[]tcplabv1.Verdict{passed, failed, inconclusive}, failed},
		{[]tcplabv1.Verdict{inconclusive, failed}, failed},
		{[]tcplabv1.Verdict{passed, inconclusive}, inconclusive},
	} {
		var rs []*tcplabv1.ExpectationResult
		for _, v := range c.in {
			rs = append(rs, &tcplabv1.ExpectationResult{Verdict: v})
		}
		if got := expect.Verdict(rs); got != c.want {
			t.Errorf("Verdict(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// An expectation has measure and predict, or that, and nothing of both.
func TestCompleteness(t *testing.T) {
	for _, c := range []struct {
		field string
		e     *tcplabv1.Expectation
	}{
		{"measure", &tcplabv1.Expectation{}},
		{"that", &tcplabv1.Expectation{Measure: "1", Predict: "1", That: "true"}},
		{"predict", &tcplabv1.Expectation{Measure: "1"}},
		{"predict", &tcplabv1.Expectation{That: "true", Predict: "1"}},
		{"rival", &tcplabv1.Expectation{That: "true", Rival: "1"}},
		{"within.slack", &tcplabv1.Expectation{That: "true", WithinSlack: "1"}},
		{"within.ratio", &tcplabv1.Expectation{Measure: "1", Predict: "1", WithinRatio: math.NaN()}},
	} {
		var got *expect.Error
		if _, err := expect.Compile(testLab(), c.e); !errors.As(err, &got) || got.Field != c.field {
			t.Errorf("%v: %v, want an error of %s", c.e, err, c.field)
		}
	}
	lab := testLab()
	lab.Point["kernel"] = structpb.NewStringValue("x")
	if _, err := expect.Compile(lab, &tcplabv1.Expectation{That: "true"}); err == nil || !strings.Contains(err.Error(), "hides") {
		t.Errorf("a parameter called kernel: %v", err)
	}
}
