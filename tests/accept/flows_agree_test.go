package main

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// oneUpload is a bulk of 3000 B in 3 segments, one of them sent again, as all sides see it.
func oneUpload(t *testing.T) *sides {
	t.Helper()
	const client, server = "10.0.0.1:40000", "10.0.0.2:80"
	up, down := way{client, server}, way{server, client}
	reading := func() *tcplabv1.CapturedFlow {
		return &tcplabv1.CapturedFlow{
			SynAck:    &tcplabv1.CapturedTimes{Count: 1},
			Handshake: &tcplabv1.CapturedTimes{Count: 1},
			Client:    &tcplabv1.CapturedEnd{Segments: 8, DataSegments: 4, Bytes: 4000, BytesRetransmitted: 1000, Retransmissions: 1},
			Server:    &tcplabv1.CapturedEnd{Segments: 6},
		}
	}
	tshark := func(atClient bool) *seenByTshark {
		return &seenByTshark{
			streams: map[string]bool{"0": true},
			ways: map[way]*tally{
				up:   {segments: 8, data: 4, bytes: 4000, again: 1, syns: 1, left: atClient},
				down: {segments: 6, syns: 1, left: !atClient},
			},
		}
	}
	capture := func(node string) *tcplabv1.NodeCapture {
		return &tcplabv1.NodeCapture{Node: node, Packets: 14, All: &tcplabv1.CapturedFlow{Connections: 1}}
	}
	took := &tcplabv1.LatencySummary{Count: 1, Min: durationpb.New(time.Millisecond), Max: durationpb.New(time.Millisecond)}
	h := hdrhistogram.New(1000, int64(time.Hour), 3)
	if err := h.RecordValue(int64(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return &sides{
		trial: &tcplabv1.TrialReport{
			Flows: []*tcplabv1.FlowResult{{
				Name: "up", Kind: "bulk", Outcome: tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED, Connect: took, Latency: took,
				Client: &tcplabv1.FlowEnd{
					Node: "client", Address: client, BytesWritten: 3000, StatePath: "ESTABLISHED",
					TcpInfo: &tcplabv1.TcpInfo{DataSegsOut: 4, BytesSent: 4000, BytesRetrans: 1000, TotalRetrans: 1},
				},
				Server: &tcplabv1.FlowEnd{
					Node: "server", Address: server, BytesRead: 3000, StatePath: "ESTABLISHED", TcpInfo: &tcplabv1.TcpInfo{DataSegsIn: 4},
				},
				Histograms: []*tcplabv1.LatencyHistogram{{Name: "connect", Count: 1, Hdr: encoded}, {Name: "latency", Count: 1, Hdr: encoded}},
			}},
			Links: []*tcplabv1.LinkReport{{Name: "client-server", Queue: &tcplabv1.QueueSummary{Count: 10}}},
			Counters: []*tcplabv1.NodeCounters{
				{Node: "client", Values: map[string]int64{"TcpInSegs": 6, "TcpOutSegs": 7, "TcpRetransSegs": 1, "TcpActiveOpens": 1}},
				{Node: "server", Values: map[string]int64{"TcpInSegs": 8, "TcpOutSegs": 6, "TcpPassiveOpens": 1}},
			},
			Captures: []*tcplabv1.NodeCapture{capture("client"), capture("server")},
		},
		read: []*capturedAt{
			{Number: 1, Flow: "up", Node: "client", Client: client, Server: server, read: reading()},
			{Number: 1, Flow: "up", Node: "server", Client: client, Server: server, read: reading()},
		},
		tshark:  map[string]*seenByTshark{"client": tshark(true), "server": tshark(false)},
		samples: []sampleRow{{Flow: client + ">" + server, End: "client", BytesSent: 1000, DataSegsOut: 1}},
	}
}

func TestCompare(t *testing.T) {
	if compared, wrong := oneUpload(t).compare(); compared < 50 || len(wrong) > 0 {
		t.Fatalf("of %d counts differ %v", compared, wrong)
	}
	for name, change := range map[string]func(*sides){
		"a packet was dropped":         func(s *sides) { s.trial.Captures[0].Dropped = 1 },
		"tshark has a segment less":    func(s *sides) { s.tshark["client"].ways[way{"10.0.0.1:40000", "10.0.0.2:80"}].segments-- },
		"tshark has nothing sent anew": func(s *sides) { s.tshark["client"].ways[way{"10.0.0.1:40000", "10.0.0.2:80"}].again = 0 },
		"tshark has a connection more": func(s *sides) { s.tshark["server"].streams["1"] = true },
		"the kernel sent one more":     func(s *sides) { s.trial.Counters[0].Values["TcpOutSegs"]++ },
		"the kernel lost one":          func(s *sides) { s.trial.Counters[1].Values["TcpInSegs"]-- },
		"there are no counters":        func(s *sides) { s.trial.Counters = nil },
		"a byte was not read":          func(s *sides) { s.trial.Flows[0].Server.BytesRead-- },
		"a byte was not captured":      func(s *sides) { s.read[0].read.Client.Bytes--; s.read[1].read.Client.Bytes-- },
		"TCP_INFO is too early":        func(s *sides) { s.trial.Flows[0].Client.TcpInfo.DataSegsOut-- },
		"TCP_INFO of the server":       func(s *sides) { s.trial.Flows[0].Server.TcpInfo.DataSegsIn-- },
		"the states were not seen":     func(s *sides) { s.trial.Flows[0].Server.StatePath = "" },
		"the flow is in no capture":    func(s *sides) { s.trial.Flows[0].Client.Address = "10.0.0.1:40001" },
		"there is no histogram":        func(s *sides) { s.trial.Flows[0].Histograms = nil },
		"the histogram says too much":  func(s *sides) { s.trial.Flows[0].Histograms[0].Count = 2 },
		"another histogram":            func(s *sides) { s.trial.Flows[0].Connect.Min = durationpb.New(time.Second) },
		"the queue was not looked at":  func(s *sides) { s.trial.Links[0].Queue = nil },
		"no program was sampled":       func(s *sides) { s.samples = nil },
		"a sample has too much":        func(s *sides) { s.samples[0].BytesSent = 5000 },
	} {
		s := oneUpload(t)
		change(s)
		if _, wrong := s.compare(); len(wrong) == 0 {
			t.Errorf("%s: nothing differs", name)
		}
	}
}
