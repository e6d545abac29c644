package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// slow is a flow whose server thinks for longer than any test lasts.
func slow(name string) *tcplabv1.Flow {
	return &tcplabv1.Flow{
		Name: name, Client: "client", Server: "server",
		Kind: &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{10}, Reply: 10, Count: 1, ServerTime: durationpb.New(50 * time.Second)}},
	}
}

// carriedOut runs a trial of the flows, with a timeout of the experiment, and returns its end and the
// flows in the order in which they ended.
func carriedOut(t *testing.T, timeout time.Duration, flows ...*tcplabv1.Flow) (*tcplabv1.TrialEnded, []string) {
	t.Helper()
	r := start(t, t.TempDir())
	lab := twoNodes(t, nil, flows...)
	lab.Experiments[0].Timeout = durationpb.New(timeout)
	r.apply(t, "d", lab)
	r.startTrial(t, "d", "t")
	var order []string
	ended := r.watch(t, "t", func(e *tcplabv1.WatchTrialResponse) {
		if f := e.GetFlowEnded(); f != nil {
			order = append(order, f.GetFlow())
		}
	})
	return ended, order
}

// outcomes are those of the flows, in the order of the lab.
func outcomes(ended *tcplabv1.TrialEnded) []string {
	var words []string
	for _, f := range ended.GetResult().GetFlows() {
		words = append(words, f.GetName()+" "+strings.TrimPrefix(f.GetOutcome().String(), "FLOW_OUTCOME_"))
	}
	return words
}

func TestFlowsComeAfterOthers(t *testing.T) {
	first, second, third := bulk("first", 10_000), bulk("second", 1000), bulk("third", 1)
	third.After, third.Start = []string{"second", "first"}, durationpb.New(10*time.Millisecond)
	second.After = []string{"first"}
	first.Start = durationpb.New(20 * time.Millisecond)
	ended, order := carriedOut(t, limit, third, second, first)
	if ended.GetFailure() != "" {
		t.Fatal(ended.GetFailure())
	}
	if want := []string{"first", "second", "third"}; !slices.Equal(order, want) {
		t.Errorf("they ended in the order %v", order)
	}
	if took := ended.GetResult().GetElapsed().AsDuration(); took < 30*time.Millisecond {
		t.Errorf("with starts of 20 ms and then 10 ms the trial took %v", took)
	}
	if got := outcomes(ended); !slices.Equal(got, []string{"third COMPLETED", "second COMPLETED", "first COMPLETED"}) {
		t.Errorf("outcomes %v", got)
	}
}

// Where a flow fails that may, what comes after it begins and the trial succeeds; where it may not, the
// others are stopped and what comes after it is skipped.
func TestFlowThatMayFail(t *testing.T) {
	for name, test := range map[string]struct {
		mayFail bool
		failure string
		want    []string
	}{
		"it may":     {true, "", []string{"bad ERROR", "refused REFUSED", "next COMPLETED", "other COMPLETED"}},
		"it may not": {false, "flow refused: client: connecting from ", []string{"bad ERROR", "refused REFUSED", "next SKIPPED", "other CANCELLED"}},
	} {
		t.Run(name, func(t *testing.T) {
			bad, refused, next, other := bulk("bad", 1), bulk("refused", 1), bulk("next", 1000), slow("other")
			bad.Socket = &tcplabv1.SocketOptions{Congestion: "no_such_control"}
			bad.MayFail = true
			refused.Fault, refused.MayFail = tcplabv1.FlowFault_FLOW_FAULT_REFUSE, test.mayFail
			next.After = []string{"bad", "refused"}
			if test.mayFail {
				other.GetTransaction().ServerTime = nil
			}
			ended, _ := carriedOut(t, limit, bad, refused, next, other)
			if (ended.GetFailure() == "") != (test.failure == "") || !strings.HasPrefix(ended.GetFailure(), test.failure) {
				t.Errorf("failure %q", ended.GetFailure())
			}
			if got := outcomes(ended); !slices.Equal(got, test.want) {
				t.Errorf("outcomes %v, want %v", got, test.want)
			}
		})
	}
}

// Each flow ends at the experiment's deadline, with what it counted so far.
func TestDeadlineOfAnExperiment(t *testing.T) {
	waits := bulk("waits", 1)
	waits.After = []string{"late"}
	for _, mayFail := range []bool{true, false} {
		late, deaf := slow("late"), bulk("deaf", 50_000_000)
		deaf.Fault = tcplabv1.FlowFault_FLOW_FAULT_DEAF
		late.MayFail, deaf.MayFail, waits.MayFail = mayFail, mayFail, mayFail
		ended, _ := carriedOut(t, 300*time.Millisecond, late, deaf, waits)
		if (ended.GetFailure() == "") != mayFail {
			t.Errorf("where they may fail is %v: failure %q", mayFail, ended.GetFailure())
		}
		if got := outcomes(ended); !slices.Equal(got[:2], []string{"late DEADLINE", "deaf DEADLINE"}) || got[2] == "waits COMPLETED" {
			t.Errorf("outcomes %v", got)
		}
		if f := ended.GetResult().GetFlows()[0]; f.GetServer().GetBytesRead() != 10 || f.GetClient().GetTcpInfo().GetBytesAcked() != 11 {
			t.Errorf("counted so far: %v", f)
		}
		if f := ended.GetResult().GetFlows()[1]; f.GetClient().GetBytesWritten() == 0 || f.GetServer().GetBytesRead() != 0 {
			t.Errorf("counted so far: %v", f)
		}
	}
}

func TestAgreedStart(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil, bulk("b", 1)))
	agreed := time.Now().Add(2 * time.Second)
	run := func(id string, at time.Time) (*tcplabv1.TrialEnded, error) {
		_, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: id, StartTime: timestamppb.New(at)})
		if err != nil {
			return nil, err
		}
		return r.watch(t, id, nil), nil
	}
	ended, err := run("t.1", agreed)
	if err != nil || ended.GetFailure() != "" {
		t.Fatal(err, ended.GetFailure())
	}
	if began := ended.GetResult().GetStartTime().AsTime(); began.Before(agreed) {
		t.Errorf("it began %v early", agreed.Sub(began))
	}
	if ended, err = run("t.2", agreed); err != nil || !strings.Contains(ended.GetFailure(), "after the agreed start") {
		t.Errorf("an agreed time that is over: %q, %v", ended.GetFailure(), err)
	}
	if _, err := run("t.3", time.Now().Add(2*maxAhead)); codeOf(err) != codes.InvalidArgument {
		t.Errorf("an agreed time too far ahead: %v", err)
	}
	if ended, err = run("t.4", time.Now().Add(2*time.Second)); err != nil || ended.GetFailure() != "" {
		t.Errorf("after those: %q, %v", ended.GetFailure(), err)
	}
	// A cancelled trial does not wait for its time.
	if _, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t.5", StartTime: timestamppb.New(time.Now().Add(maxAhead / 2))}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CancelTrial(r.ctx, &tcplabv1.CancelTrialRequest{TrialId: "t.5"}); err != nil {
		t.Fatal(err)
	}
	if ended := r.watch(t, "t.5", nil); ended.GetFailure() == "" {
		t.Error("a cancelled trial succeeded")
	}
}

func TestFlowThatIsRepeated(t *testing.T) {
	often := bulk("often", 10_000)
	often.Repeat, often.RepeatGap = 3, durationpb.New(20*time.Millisecond)
	next := bulk("next", 1)
	next.After = []string{"often"}
	ended, order := carriedOut(t, limit, often, next)
	if ended.GetFailure() != "" || !slices.Equal(order, []string{"often", "next"}) {
		t.Fatalf("%q, in the order %v", ended.GetFailure(), order)
	}
	f := ended.GetResult().GetFlows()[0]
	if len(f.GetRepetitions()) != 3 || f.GetBytes() != 30_000 || f.GetLatency().GetCount() != 3 || f.GetConnect().GetCount() != 3 || f.GetGoodputBps() <= 0 {
		t.Errorf("%v", f)
	}
	for i, r := range f.GetRepetitions() {
		if r.GetBytes() != 10_000 || r.GetClient().GetTcpInfo().GetBytesAcked() != 10_001 {
			t.Errorf("time %d: %v", i+1, r)
		}
	}
	if took := ended.GetResult().GetElapsed().AsDuration(); took < 40*time.Millisecond {
		t.Errorf("with two gaps of 20 ms it took %v", took)
	}
	if opened := ended.GetResult().GetCounters()[0].GetValues()["TcpActiveOpens"]; opened != 4 {
		t.Errorf("%d connections", opened)
	}
}

func TestRepeatedFlowThatFails(t *testing.T) {
	for mayFail, want := range map[bool]int{true: 3, false: 1} {
		f := bulk("f", 1)
		f.Repeat, f.MayFail, f.Fault = 3, mayFail, tcplabv1.FlowFault_FLOW_FAULT_REFUSE
		ended, _ := carriedOut(t, limit, f)
		r := ended.GetResult().GetFlows()[0]
		if len(r.GetRepetitions()) != want || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED || !strings.HasPrefix(r.GetError(), "time 1 of 3: ") {
			t.Errorf("where it may fail is %v: %d times, %s: %s", mayFail, len(r.GetRepetitions()), r.GetOutcome(), r.GetError())
		}
	}
	stuck := slow("stuck")
	stuck.Repeat, stuck.MayFail = 3, true
	ended, _ := carriedOut(t, 300*time.Millisecond, stuck)
	if r := ended.GetResult().GetFlows()[0]; len(r.GetRepetitions()) != 1 || r.GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE {
		t.Errorf("at the deadline: %d times, %s", len(r.GetRepetitions()), r.GetOutcome())
	}
}
