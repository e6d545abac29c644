package flow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// ErrClosed is why a flow that was closed did not go on.
var ErrClosed = errors.New("the flow was closed")

// OutcomeOf names what became of a flow from the error that ended it. A stop comes before
// what the kernel says, which is then its consequence, and what an error says of itself
// (see [WithOutcome]) before both. It is the same for all kinds of flows.
func OutcomeOf(err error) tcplabv1.FlowOutcome {
	var told *withOutcome
	var stopped *Stopped
	var name *net.DNSError
	var program *exec.Error
	var exit *exec.ExitError
	var errno syscall.Errno
	switch {
	case err == nil:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
	case errors.As(err, &told):
		return told.outcome
	case errors.As(err, &stopped):
		return outcomeOfStop(stopped.Cause)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrClosed):
		return outcomeOfStop(err)
	case errors.As(err, &name):
		return outcomeOfLookup(name)
	case errors.As(err, &program), errors.As(err, &exit):
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_PROGRAM_FAILED
	case errors.As(err, &errno):
		return OutcomeOfErrno(errno)
	}
	return tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR
}

// outcomeOfStop tells a time that was up from a stop that somebody wanted.
func outcomeOfStop(cause error) tcplabv1.FlowOutcome {
	if errors.Is(cause, context.DeadlineExceeded) {
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_DEADLINE
	}
	return tcplabv1.FlowOutcome_FLOW_OUTCOME_CANCELLED
}

func outcomeOfLookup(err *net.DNSError) tcplabv1.FlowOutcome {
	switch {
	case err.IsNotFound:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_NAME_NOT_FOUND
	case err.IsTimeout:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT
	}
	return tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR
}

// OutcomeOfErrno is what a socket's error number makes of its flow; 0 is none.
func OutcomeOfErrno(errno syscall.Errno) tcplabv1.FlowOutcome {
	switch errno {
	case 0:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
	case syscall.ECONNREFUSED:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_REFUSED
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_RESET
	case syscall.ETIMEDOUT:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_TIMED_OUT
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN:
		return tcplabv1.FlowOutcome_FLOW_OUTCOME_UNREACHABLE
	}
	return tcplabv1.FlowOutcome_FLOW_OUTCOME_ERROR
}

// WithOutcome makes an error say what it makes of its flow, where its chain does not.
func WithOutcome(outcome tcplabv1.FlowOutcome, err error) error {
	return &withOutcome{outcome, err}
}

type withOutcome struct {
	outcome tcplabv1.FlowOutcome
	err     error
}

func (e *withOutcome) Error() string { return e.err.Error() }
func (e *withOutcome) Unwrap() error { return e.err }

// Stopped is the error of what was stopped before it was done.
type Stopped struct {
	Doing string // what it did then: "exchanging data"
	Cause error  // why it was stopped, as of context.Cause
}

// Error says both.
func (e *Stopped) Error() string { return fmt.Sprintf("stopped while %s: %v", e.Doing, e.Cause) }

// Unwrap returns the cause.
func (e *Stopped) Unwrap() error { return e.Cause }

// OutOfTime is why something was stopped whose time was up: a context's cause.
type OutOfTime struct {
	What  string        // whose time it was: "the experiment", as the subject of a sentence
	Limit time.Duration // the time
}

// Error says whose time, and how long it was.
func (e *OutOfTime) Error() string {
	return fmt.Sprintf("%s did not end within its timeout of %v", e.What, e.Limit)
}

// Is makes it a deadline, as those of contexts are.
func (e *OutOfTime) Is(target error) bool { return target == context.DeadlineExceeded }
