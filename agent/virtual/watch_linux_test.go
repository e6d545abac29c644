package virtual

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestWatch(t *testing.T) {
	const spin = 15 * time.Second
	answer := func(clock time.Duration, running ...string) *tcplabv1.GuestEvent {
		e := alive(running...)
		e.Clock = durationpb.New(clock)
		return e
	}
	for name, test := range map[string]struct {
		turns [][]*tcplabv1.GuestEvent // what comes before each question
		says  string                   // in the error of the last; empty: none
	}{
		"a clock that goes on": {[][]*tcplabv1.GuestEvent{
			{answer(1 * time.Second)}, {answer(2*time.Second, "iperf3 (9)")}, {answer(3*time.Second, "iperf3 (9)")}, {answer(4*time.Second, "iperf3 (9)")}, {answer(5*time.Second, "iperf3 (9)")},
		}, ""},
		"a little slower than the heaviest traffic": {[][]*tcplabv1.GuestEvent{
			{answer(0)}, {answer(6 * time.Millisecond)}, {answer(12 * time.Millisecond)}, {answer(18 * time.Millisecond)}, {answer(24 * time.Millisecond)},
		}, ""},
		"a program that spins": {[][]*tcplabv1.GuestEvent{
			nil, {answer(time.Second, "sh (7)", "busy (9)")}, {answer(time.Second, "busy (9)")}, {answer(time.Second, "busy (9)")}, {answer(time.Second, "busy (9)", "sh (7)")},
		}, "busy (9) in the guest spins"},
		"nobody answers":  {[][]*tcplabv1.GuestEvent{{answer(time.Second)}, nil, nil, nil, nil}, "does not answer"},
		"nothing is due":  {[][]*tcplabv1.GuestEvent{nil, {answer(time.Second)}, {answer(time.Second)}, {answer(time.Second)}, {answer(time.Second)}}, "nothing is due"},
		"too soon to say": {[][]*tcplabv1.GuestEvent{nil, nil, nil}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var w watch
			var err error
			for _, turn := range test.turns {
				for _, e := range turn {
					w.see(e)
				}
				err = w.judge(spin)
			}
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v, want one that says %q", err, test.says)
			}
		})
	}
}

func TestSuspects(t *testing.T) {
	var w watch
	if got := w.suspects(); got != "" {
		t.Errorf("without an answer: %q", got)
	}
	for _, running := range [][]string{{"ping (4)"}, {"ping (4)", "sh (3)"}, {"ping (4)"}} {
		w.see(alive(running...))
	}
	if got := w.suspects(); !strings.Contains(got, "; ping (4) ran") {
		t.Errorf("%q", got)
	}
}
