package agent

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/observe"
	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// rowsOf reads an artifact of a trial.
func rowsOf[R any](t *testing.T, r *running, trial, name string) []R {
	t.Helper()
	content, err := r.artifact(t, trial, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.Read[R](bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Everything is watched: queues that fill, states of the flow's sockets, what its congestion control does, and it
// agrees with what the link and the kernel have counted.
func TestObservers(t *testing.T) {
	need.Congestion(t, "bbr")
	r := start(t, t.TempDir())
	shape := &tcplabv1.Shape{
		RateBps: 1e7, Delay: durationpb.New(5 * time.Millisecond),
		Queue: &tcplabv1.Queue{Limit: &tcplabv1.Queue_Packets{Packets: 20}},
	}
	down := bulk("down", 1<<20)
	down.Socket.Congestion = "reno"
	model := bulk("model", 1<<18)
	model.Socket.Congestion = "bbr"
	lab := twoNodes(t, shape, down, model)
	lab.Experiments[0].Observe = &tcplabv1.Observers{Sockets: true, States: true, Queues: true, Congestion: true, Interval: durationpb.New(2 * time.Millisecond)}
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t.1")
	ended := r.watch(t, "t.1", nil)
	if ended.GetFailure() != "" {
		t.Fatalf("the trial failed: %s", ended.GetFailure())
	}
	result := ended.GetResult()

	forward := result.GetLinks()[0]
	if q := forward.GetQueue(); q.GetCount() < 100 || q.GetMax() < 10 || q.GetMax() > 20 || q.GetP99() > q.GetMax() || q.GetMean() <= 0 || q.GetBytesMax() < 10*1000 || q.GetBytesMax() > 20*1514 {
		t.Errorf("the queue forward: %v", q)
	}
	looks := rowsOf[observe.QueueRow](t, r, "t.1", queuesName)
	count, overflow := uint64(0), uint64(0)
	for _, look := range looks {
		if look.Link == "client-server" && look.Direction == "forward" {
			count, overflow = count+1, look.Overflow
		}
	}
	if count != forward.GetQueue().GetCount() || overflow == 0 || overflow > forward.GetCounters().GetOverflow() {
		t.Errorf("%d looks of %d, which last saw %d frames dropped of %d", count, forward.GetQueue().GetCount(), overflow, forward.GetCounters().GetOverflow())
	}

	for _, f := range result.GetFlows() {
		client, server := f.GetClient(), f.GetServer()
		if f.GetSamplesCount() == 0 || len(f.GetHistograms()) != 2 || f.GetHistograms()[0].GetCount() != 1 || len(f.GetHistograms()[0].GetHdr()) == 0 {
			t.Errorf("flow %s: %d samples, histograms %v", f.GetName(), f.GetSamplesCount(), f.GetHistograms())
		}
		if bbr := client.GetCongestionInfo().GetBbr(); (f.GetName() == "model") != (bbr.GetBandwidthBps() > 0) {
			t.Errorf("flow %s says of its congestion control: %v", f.GetName(), client.GetCongestionInfo())
		}
		if result.GetSockets()[0].GetSource() != tcplabv1.StateSource_STATE_SOURCE_KERNEL {
			continue
		}
		if client.GetStatePath() != "SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE" || server.GetStatePath() != "SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT" {
			t.Errorf("flow %s: states %q and %q", f.GetName(), client.GetStatePath(), server.GetStatePath())
		}
		if first := client.GetStates()[0].GetAt().AsDuration(); first < 0 || first > time.Second {
			t.Errorf("flow %s connects at %v", f.GetName(), first)
		}
	}
	for _, s := range result.GetSockets()[1].GetStates() {
		if s.GetState() == tcplabv1.TcpState_TCP_STATE_TIME_WAIT && uint64(s.GetLast()) != 2 {
			t.Errorf("TIME_WAIT: %v", s)
		}
	}
	if n := result.GetCounters()[1].GetValues()["SockstatTCPTw"]; n != 2 {
		t.Errorf("the server, which ends a bulk flow, has %d sockets in TIME_WAIT at the end", n)
	}

	modelled := false
	for _, row := range rowsOf[observe.SampleRow](t, r, "t.1", samplesName) {
		switch row.Flow {
		case "model":
			modelled = modelled || row.BBRBandwidthBps > 0
		case "down":
			if row.Congestion != (observe.Congestion{}) {
				t.Fatalf("reno says %+v", row.Congestion)
			}
		default:
			t.Fatalf("a sample of %s at %s: all sockets are flows'", row.Flow, row.End)
		}
	}
	if !modelled {
		t.Error("no sample has BBR's model")
	}
}

// What a trial samples can be watched while it runs, and ends with it.
func TestLiveSamples(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil, endless("up")))
	r.startTrial(t, "d", "t.1")
	stream, err := r.WatchTrialSamples(r.ctx, &tcplabv1.WatchTrialSamplesRequest{TrialId: "t.1", Interval: durationpb.New(30 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	var left uint64
	received := 0.0
	for received == 0 || left == 0 {
		news, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		left += news.GetSamples().GetLeftOut()
		seen := map[string]bool{}
		for _, s := range news.GetSamples().GetSamples() {
			if s.GetFlow() != "up" || seen[s.GetEnd()] || s.GetTcpInfo().GetState() == 0 {
				t.Errorf("%v", s)
			}
			seen[s.GetEnd()] = true
			if s.GetEnd() == "server" {
				received = max(received, s.GetReceiveBps())
			}
		}
	}
	if _, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{TrialId: "t.1"}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	again, err := r.WatchTrialSamples(r.ctx, &tcplabv1.WatchTrialSamplesRequest{TrialId: "t.1"})
	if err == nil {
		_, err = again.Recv()
	}
	if codeOf(err) != codes.NotFound {
		t.Errorf("a trial that has ended is watched: %v", err)
	}
}
