package flow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func TestOutcomeOfErrors(t *testing.T) {
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	outOfTime := &OutOfTime{What: "the experiment", Limit: time.Second}
	for _, test := range []struct {
		err  error
		want tcplabv1.FlowOutcome
	}{
		{nil, tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED},
		{refused, tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED},
		{fmt.Errorf("connecting: %w", syscall.ECONNRESET), tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET},
		{syscall.EPIPE, tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET},
		{syscall.ETIMEDOUT, tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT},
		{syscall.EHOSTUNREACH, tcplabv1.FlowOutcome_FLOW_OUTCOME_UNREACHABLE},
		{syscall.ENETUNREACH, tcplabv1.FlowOutcome_FLOW_OUTCOME_UNREACHABLE},
		{syscall.EMFILE, tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR},
		{errors.New("no idea"), tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR},
		{&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND},
		{&net.DNSError{IsTimeout: true}, tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT},
		{&net.DNSError{}, tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR},
		{&exec.Error{Name: "nothing", Err: exec.ErrNotFound}, tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED},
		{fmt.Errorf("wait: %w", &exec.ExitError{}), tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED},
		{context.DeadlineExceeded, tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE},
		{context.Canceled, tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED},
		{ErrClosed, tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED},
		{&Stopped{"waiting", outOfTime}, tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE},
		{fmt.Errorf("client: %w", &Stopped{"waiting", errors.New("the user cancelled it")}), tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED},
		// What stopped it is another's failure, and none of its own.
		{&Stopped{"waiting", fmt.Errorf("the client failed: %w", refused)}, tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED},
		{fmt.Errorf("server: %w", ErrEnded), tcplabv1.FlowOutcome_FLOW_OUTCOME_ENDED_EARLY},
		{WithOutcome(tcplabv1.FlowOutcome_FLOW_OUTCOME_NEVER_READY, context.DeadlineExceeded), tcplabv1.FlowOutcome_FLOW_OUTCOME_NEVER_READY},
	} {
		if got := OutcomeOf(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
	if text, want := outOfTime.Error(), "the experiment did not end within its timeout of 1s"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
}
