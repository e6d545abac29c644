package rpcerr_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

func TestErrorSurvivesTheWire(t *testing.T) {
	sent := rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "look at `tcplab lab schema`", "lab nagle: 2 mistakes: %w", fs.ErrInvalid)
	sent.Violations = []rpcerr.Violation{
		{Field: "lab.yaml:3:9", Description: `unknown key "nods": did you mean "nodes"?`},
		{Field: "lab.yaml:7:1", Description: "no flow"},
	}
	if !errors.Is(sent, fs.ErrInvalid) {
		t.Error("the cause is lost on the sender's side")
	}
	// What grpc-go does to an error between handler and caller.
	arrived := status.FromProto(status.Convert(sent).Proto()).Err()

	got := rpcerr.From(fmt.Errorf("create run: %w", arrived))
	if diff := cmp.Diff(sent.Violations, got.Violations); diff != "" {
		t.Errorf("violations (-sent +got):\n%s", diff)
	}
	if want := "create run: " + sent.Message; got.Message != want {
		t.Errorf("message %q, want %q", got.Message, want)
	}
	ignore := cmpopts.IgnoreFields(rpcerr.Error{}, "Cause", "Violations", "Message")
	if diff := cmp.Diff(sent, got, ignore); diff != "" {
		t.Errorf("error (-sent +got):\n%s", diff)
	}
}

func TestFromOtherErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"plain", errors.New("boom"), codes.Internal},
		{"cancelled", fmt.Errorf("wait: %w", context.Canceled), codes.Canceled},
		{"too late", fmt.Errorf("wait: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{"foreign status", status.Error(codes.Unavailable, "gone"), codes.Unavailable},
	} {
		if got := rpcerr.From(tt.err); got.Code != tt.want {
			t.Errorf("%s: code %v, want %v", tt.name, got.Code, tt.want)
		}
	}
	if rpcerr.From(nil) != nil {
		t.Error("nil became an error")
	}
}
