// Package rpcerr is the one form of an error between tcplab's programs: a gRPC
// status with a code, a reason that programs can tell apart
// (google.rpc.ErrorInfo, domain "tcplab"), a remedy for the person who reads
// it, and for a lab file one violation for each mistake
// (google.rpc.BadRequest, field file:line:column).
//
// It refuses to guess: an error that carries no status of its own becomes
// INTERNAL when it is sent, and keeps its words.
package rpcerr

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Domain of every ErrorInfo that tcplab sends.
const Domain = "tcplab"

// remedyKey is the key of the remedy in ErrorInfo's metadata.
const remedyKey = "remedy"

// Reason tells programs what kind of error it is.
type Reason string

// The reasons there are.
const (
	// LabInvalid: the lab or its parameters are wrong; violations say where.
	LabInvalid Reason = "LAB_INVALID"
	// RequestInvalid: the request breaks a rule of the contract.
	RequestInvalid Reason = "REQUEST_INVALID"
	// HostUnsupported: this host cannot carry what was asked.
	HostUnsupported Reason = "HOST_UNSUPPORTED"
	// NotFound: there is no such run, trial, deployment or file.
	NotFound Reason = "NOT_FOUND"
	// Ambiguous: a prefix names more than one run.
	Ambiguous Reason = "AMBIGUOUS"
	// Busy: another run has the host.
	Busy Reason = "BUSY"
	// Stale: the command is of an older term.
	Stale Reason = "STALE_TERM"
	// Storage: results cannot be stored.
	Storage Reason = "STORAGE"
	// Conflict: the ID stands with other content.
	Conflict Reason = "CONFLICT"
	// Changed: it is not any more as the etag says; violations say what differs.
	Changed Reason = "CHANGED"
	// LinkWrong: a link is not what it should be.
	LinkWrong Reason = "LINK_WRONG"
	// NotPermitted: the lab would start programs that nobody has permitted; violations say which.
	NotPermitted Reason = "NOT_PERMITTED"
	// AccessDenied: the caller is not known here, or its role does not suffice.
	AccessDenied Reason = "ACCESS_DENIED"
	// NotConnected: the host's agent cannot be reached now.
	NotConnected Reason = "NOT_CONNECTED"
	// VersionSkew: the two programs are too many versions apart.
	VersionSkew Reason = "VERSION_SKEW"
)

// Violation is one mistake in a file or request.
type Violation struct {
	Field       string // "lab.yaml:3:9", or the request's field
	Description string // what is wrong, and what was meant
}

// Error is an error on its way to another program.
type Error struct {
	Code       codes.Code
	Reason     Reason
	Message    string // what, and where
	Remedy     string // what to do; may be empty
	Violations []Violation
	Cause      error // for errors.Is on this side; not sent
}

// New makes an error with a remedy; the remedy may be empty.
func New(code codes.Code, reason Reason, remedy, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Reason: reason, Message: err.Error(), Remedy: remedy, Cause: errors.Unwrap(err)}
}

// Error is the message without the remedy.
func (e *Error) Error() string { return e.Message }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus makes grpc-go send the error with its details.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Code, e.Message)
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: Domain}
	if e.Remedy != "" {
		info.Metadata = map[string]string{remedyKey: e.Remedy}
	}
	detailed, err := st.WithDetails(info)
	if err != nil {
		return st
	}
	if len(e.Violations) == 0 {
		return detailed
	}
	bad := &errdetails.BadRequest{}
	for _, v := range e.Violations {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: v.Field, Description: v.Description,
		})
	}
	if withViolations, err := detailed.WithDetails(bad); err == nil {
		return withViolations
	}
	return detailed
}

// From reads an error as it arrived from another program, or returns one of
// this side as it is. Nil stays nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &Error{Code: codes.Canceled, Message: err.Error(), Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: codes.DeadlineExceeded, Message: err.Error(), Cause: err}
	}
	var sent interface {
		error
		GRPCStatus() *status.Status
	}
	if !errors.As(err, &sent) {
		return &Error{Code: codes.Internal, Message: err.Error(), Cause: err}
	}
	st := sent.GRPCStatus()
	// What was wrapped around the status stays; gRPC's own wrapping goes.
	message := strings.Replace(err.Error(), sent.Error(), st.Message(), 1)
	e := &Error{Code: st.Code(), Message: message, Cause: err}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				e.Reason = Reason(d.GetReason())
				e.Remedy = d.GetMetadata()[remedyKey]
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{Field: v.GetField(), Description: v.GetDescription()})
			}
		}
	}
	return e
}
