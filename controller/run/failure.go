package run

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// failure is why a run could not be carried out.
type failure struct {
	reason tcplabv1.FailureReason
	words  string // what happened
	remedy string // what to do about it; may be empty
	cause  error
}

func (f *failure) Error() string { return f.words }
func (f *failure) Unwrap() error { return f.cause }

// state is what becomes of a run or trial that failed so.
func (f *failure) state() tcplabv1.RunState {
	if f.reason == tcplabv1.FailureReason_FAILURE_REASON_CANCELLED {
		return tcplabv1.RunState_RUN_STATE_CANCELLED
	}
	return tcplabv1.RunState_RUN_STATE_FAILED
}

// Causes for which a run's context ends.
var (
	errCancelled = &failure{reason: tcplabv1.FailureReason_FAILURE_REASON_CANCELLED, words: "it was cancelled"}
	errOther     = &failure{reason: tcplabv1.FailureReason_FAILURE_REASON_CANCELLED, words: "another trial of the run failed"}
	errEnding    = &failure{reason: tcplabv1.FailureReason_FAILURE_REASON_CANCELLED, words: "its controller was stopped"}
	errLeft      = &failure{reason: tcplabv1.FailureReason_FAILURE_REASON_INTERRUPTED, words: "it is left to the next controller"}
)

// agentFailure judges an error of an agent's method: where the run was stopped
// meanwhile, that is why; a host that cannot carry the lab says so in the
// error; all else is the trial's.
func agentFailure(ctx context.Context, op string, err error) *failure {
	if f := stopped(ctx); f != nil {
		return f
	}
	e := rpcerr.From(err)
	reason := tcplabv1.FailureReason_FAILURE_REASON_TRIAL
	if e.Reason == rpcerr.HostUnsupported || e.Code == codes.FailedPrecondition && e.Reason == "" {
		reason = tcplabv1.FailureReason_FAILURE_REASON_HOST
	}
	return &failure{reason: reason, words: words(op, e), remedy: e.Remedy, cause: err}
}

// storeFailure judges an error of the store.
func storeFailure(ctx context.Context, op string, err error) *failure {
	if e := rpcerr.From(err); e.Reason != rpcerr.Storage {
		if f := stopped(ctx); f != nil {
			return f
		}
	}
	e := rpcerr.From(err)
	return &failure{reason: tcplabv1.FailureReason_FAILURE_REASON_STORAGE, words: words(op, e), remedy: e.Remedy, cause: err}
}

// stopped is why the run's context ended, or nil while it goes on.
func stopped(ctx context.Context) *failure {
	if f, ok := errors.AsType[*failure](context.Cause(ctx)); ok {
		return f
	}
	return nil
}

// words puts what happened in one line.
func words(op string, e *rpcerr.Error) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", op, e.Message)
	for _, v := range e.Violations {
		fmt.Fprintf(&text, "; %s: %s", v.Field, v.Description)
	}
	return text.String()
}

func failed(reason tcplabv1.FailureReason, format string, args ...any) *failure {
	return &failure{reason: reason, words: fmt.Sprintf(format, args...)}
}
