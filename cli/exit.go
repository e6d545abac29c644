package cli

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Exit statuses, as `tcplab run --help` lists them.
const (
	exitOK          = 0   // all expectations hold
	exitDisagrees   = 1   // one does not
	exitUsage       = 2   // wrong usage or lab
	exitHost        = 3   // this host cannot run it
	exitTrial       = 4   // a trial could not be carried out, or a link was not what it should be
	exitInterrupted = 130 // interrupted
)

// statusError is an error whose exit status is known where it is made. Where the
// report has said everything already its message is empty.
type statusError struct {
	status  int
	message string
	remedy  string
}

func (e *statusError) Error() string { return e.message }

// usageError is the user's to mend.
func usageError(format string, args ...any) error {
	return &statusError{status: exitUsage, message: fmt.Sprintf(format, args...)}
}

// exitStatus prints the error, with what to do about it, and returns its exit
// status.
func (a *app) exitStatus(err error) int {
	if err == nil {
		return exitOK
	}
	if problems, ok := errors.AsType[labs.Problems](err); ok {
		for _, p := range problems {
			a.printf("%v\n", p)
		}
		return exitUsage
	}
	if st, ok := errors.AsType[*statusError](err); ok {
		if st.message == "" && st.status == exitOK {
			return exitOK
		}
		a.printError(st.message, st.remedy)
		return st.status
	}
	if errors.Is(err, errInterrupted) {
		a.printError("interrupted", "")
		return exitInterrupted
	}
	e := rpcerr.From(err)
	if e.Reason == rpcerr.Changed {
		// The violations say what is different, and nobody has broken a rule.
		a.printError(e.Message, "")
		for _, v := range e.Violations {
			a.printf("  %s: %s\n", v.Field, v.Description)
		}
		a.printf("  to do: %s\n", e.Remedy)
		return exitTrial
	}
	if len(e.Violations) > 0 {
		for _, v := range e.Violations {
			a.printf("%s: %s\n", v.Field, v.Description)
		}
		return exitUsage
	}
	a.printError(e.Message, e.Remedy)
	switch {
	case e.Code == codes.Canceled:
		return exitInterrupted
	case e.Reason == rpcerr.HostUnsupported:
		return exitHost
	case e.Code == codes.InvalidArgument, e.Code == codes.NotFound, e.Reason == rpcerr.Ambiguous:
		return exitUsage
	default:
		return exitTrial
	}
}

func (a *app) printError(message, remedy string) {
	if message == "" {
		return
	}
	a.printf("tcplab: %s\n", strings.TrimSuffix(message, "\n"))
	if remedy != "" {
		a.printf("  to do: %s\n", remedy)
	}
}

// runStatus is the exit status of a run that has ended.
func runStatus(run *tcplabv1.Run) int {
	switch run.GetState() {
	case tcplabv1.RunState_RUN_STATE_SUCCEEDED:
		if run.GetVerdict() == tcplabv1.Verdict_VERDICT_FAILED {
			return exitDisagrees
		}
		return exitOK
	case tcplabv1.RunState_RUN_STATE_CANCELLED:
		return exitInterrupted
	default:
		if run.GetFailureReason() == tcplabv1.FailureReason_FAILURE_REASON_HOST {
			return exitHost
		}
		return exitTrial
	}
}
