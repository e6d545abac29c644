package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestBar(t *testing.T) {
	for _, test := range []struct {
		done, total int
		want        string
	}{
		{0, 4, "┄┄┄┄┄┄┄┄"}, {1, 4, "━━┄┄┄┄┄┄"}, {4, 4, "━━━━━━━━"}, {5, 4, "━━━━━━━━"}, {0, 0, "┄┄┄┄┄┄┄┄"},
	} {
		if got := bar(test.done, test.total, 8); got != test.want {
			t.Errorf("bar(%d, %d) = %q, want %q", test.done, test.total, got, test.want)
		}
	}
}

// However narrow the terminal, the line fits and ends with the times.
func TestProgressLine(t *testing.T) {
	const what, point, times = "trial 12 of 40 verifying", " (no_delay=false rtt=20ms)", "2 min, about 4 min left"
	for width, want := range map[int]string{
		120: "━━━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ trial 12 of 40 verifying (no_delay=false rtt=20ms)  2 min, about 4 min left",
		88:  "━━┄┄┄┄┄┄┄┄ trial 12 of 40 verifying (no_delay=false rtt=20ms)  2 min, about 4 min left",
		72:  "trial 12 of 40 verifying (no_delay=false rtt=2…  2 min, about 4 min left",
		57:  "trial 12 of 40 verifying (no_de…  2 min, about 4 min left",
		50:  "trial 12 of 40 verifying  2 min, about 4 min left",
		40:  "trial 12 of 40…  2 min, about 4 min left",
	} {
		got := progressLine(11, 40, what, point, times, width)
		if got != want {
			t.Errorf("%d columns:\n got %q\nwant %q", width, got, want)
		}
		if n := ansi.StringWidth(got); n > width {
			t.Errorf("%d columns are %d wide", width, n)
		}
	}
	if got, want := progressLine(0, 3, "waits for its turn", "", "", 80), "waits for its turn"; got != want {
		t.Errorf("before the first trial it is %q, want %q", got, want)
	}
}

func planOf(t *testing.T, estimates map[string]time.Duration) *tcplabv1.RunPlan {
	t.Helper()
	plan := &tcplabv1.RunPlan{Repeat: 2, Estimate: durationpb.New(0)}
	var sum time.Duration
	for size, estimate := range estimates {
		point := map[string]*structpb.Value{"size": structpb.NewStringValue(size), "rtt": structpb.NewStringValue("1ms")}
		plan.Points = append(plan.Points, &tcplabv1.PlannedPoint{Lab: &tcplabv1.Lab{Point: point}, Estimate: durationpb.New(estimate)})
		sum += 2 * estimate
	}
	plan.TrialsCount, plan.Estimate = uint32(2*len(estimates)), durationpb.New(sum)
	return plan
}

func sizeIs(size string) map[string]*structpb.Value {
	return map[string]*structpb.Value{"size": structpb.NewStringValue(size), "rtt": structpb.NewStringValue("1ms")}
}

func TestTimeLeft(t *testing.T) {
	left := newTimeLeft(planOf(t, map[string]time.Duration{"big": 10 * time.Second, "small": time.Second}))
	start := time.Unix(1000, 0)
	at := func(seconds int, wantElapsed, wantLeft time.Duration) {
		t.Helper()
		elapsed, rest := left.at(start.Add(time.Duration(seconds) * time.Second))
		if elapsed != wantElapsed || rest != wantLeft {
			t.Errorf("after %d s: %v and %v left, want %v and %v", seconds, elapsed, rest, wantElapsed, wantLeft)
		}
	}
	at(0, 0, 0)
	left.trial(sizeIs("big"), false, start)
	at(0, 0, 22*time.Second)
	at(5, 5*time.Second, 17*time.Second)
	// It took twice what was planned, and so will the rest.
	left.trial(sizeIs("big"), true, start.Add(20*time.Second))
	at(20, 20*time.Second, 24*time.Second)
	left.trial(sizeIs("big"), false, start.Add(20*time.Second))
	at(30, 30*time.Second, 14*time.Second)
	// What takes longer than all that is left leaves nothing, not less.
	at(60, 60*time.Second, 0)
	left.trial(sizeIs("big"), true, start.Add(40*time.Second))
	left.trial(sizeIs("small"), true, start.Add(42*time.Second))
	left.trial(sizeIs("small"), true, start.Add(44*time.Second))
	at(44, 44*time.Second, 0)
}

// A terminal's line is drawn over itself without a wrap, and is gone at the end.
func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	columns := 70
	a := &app{errs: &terminal{w: &out}, Environment: &Environment{Terminal: true, Width: func() int { return columns }}}
	run := &tcplabv1.Run{Id: "nagle-7k2q", Title: "A title", TrialsCount: 4}
	p := a.newProgress(run, planOf(t, map[string]time.Duration{"big": 10 * time.Second, "small": time.Second}))
	for _, phase := range []tcplabv1.TrialPhase{
		tcplabv1.TrialPhase_TRIAL_PHASE_BUILDING, tcplabv1.TrialPhase_TRIAL_PHASE_VERIFYING, tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING, tcplabv1.TrialPhase_TRIAL_PHASE_DONE,
	} {
		detail := ""
		if phase == tcplabv1.TrialPhase_TRIAL_PHASE_VERIFYING {
			detail = "wire: this kernel has no sch_netem"
		}
		p.show(&tcplabv1.RunEvent{Event: &tcplabv1.RunEvent_Trial{Trial: &tcplabv1.TrialProgress{Number: 1, Point: sizeIs("big"), Phase: phase, Detail: detail}}})
	}
	a.printf("a word of the log\n")
	p.stopping()
	p.close()
	p.close()
	p.stopping() // too late to leave a line
	text := out.String()
	for _, want := range []string{"nagle-7k2q: A title\n", "nagle-7k2q: wire: this kernel has no sch_netem\n", "trial 1 of 4 running", "(size=big)", wipe + "a word of the log\n━━", "stopping"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown:\n%q", want, text)
		}
	}
	if strings.Contains(text, "rtt=") {
		t.Errorf("a parameter that never varies is shown:\n%q", text)
	}
	if !strings.HasSuffix(text, "\r\x1b[K") {
		t.Errorf("a line is left:\n%q", text)
	}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if n := ansi.StringWidth(ansi.Strip(line)); n > columns-len("^C") {
			t.Errorf("%q is %d columns wide", line, n)
		}
	}
}
