package cli

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func live(flow, end string, acked, received float64) *tcplabv1.LiveSample {
	return &tcplabv1.LiveSample{
		Flow: flow, End: end, AckedBps: acked, ReceiveBps: received, Time: timestamppb.New(time.Unix(1e9, 0)),
		TcpInfo: &tcplabv1.TcpInfo{SndCwnd: 42, Rtt: durationpb.New(20 * time.Millisecond)},
	}
}

// A terminal shows each flow once, by the end that sends.
func TestLiveText(t *testing.T) {
	news := &tcplabv1.LiveSamples{Samples: []*tcplabv1.LiveSample{
		live("up", "server", 0, 9e6), live("up", "client", 9.5e6, 0), live("get", "server", 1e3, 0),
	}}
	const want = "get 1 kbit/s cwnd 42 rtt 20 ms, up 9.5 Mbit/s cwnd 42 rtt 20 ms"
	if got := liveText(news); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPrintSamples(t *testing.T) {
	var out bytes.Buffer
	a := &app{Environment: &Environment{Out: &out}}
	news := &tcplabv1.WatchSamplesResponse{Trial: 3, Samples: &tcplabv1.LiveSamples{
		Samples: []*tcplabv1.LiveSample{live("up", "client", 9.5e6, 0), live("up", "server", 0, 9e6)}, LeftOut: 7,
	}}
	if err := a.printSamples(news, formatTable); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1e9, 0).Local().Format("15:04:05.000")
	want := at + "  trial 3  up client sends 9.5 Mbit/s, cwnd 42, rtt 20 ms\n" + at + "  trial 3  up server receives 9 Mbit/s, cwnd 42, rtt 20 ms\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	out.Reset()
	if err := a.printSamples(news, formatJSON); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out.Bytes(), []byte(`"leftOut"`)) && !bytes.Contains(out.Bytes(), []byte(`"left_out"`)) {
		t.Errorf("JSON says nothing of what was left out: %s", out.String())
	}
}
