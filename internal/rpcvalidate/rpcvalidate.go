// Package rpcvalidate stands between the wire and a gRPC service: requests
// that break a rule of the contract (buf.validate) are refused with every
// violation named, before the service sees them, and a panic in a service
// becomes an error of that one call.
//
// It refuses to judge what the rules cannot say; that is the service's part.
package rpcvalidate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// ServerOptions are the interceptors of a tcplab server, unary and streaming.
// Panics go to log with their stack; the client gets INTERNAL. The error is one
// of the validator's own making.
func ServerOptions(log *slog.Logger) ([]grpc.ServerOption, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("prepare the rules of the contract: %w", err)
	}
	g := guard{validator: validator, log: log}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.stream),
	}, nil
}

type guard struct {
	validator protovalidate.Validator
	log       *slog.Logger
}

func (g guard) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	defer g.rescue(ctx, info.FullMethod, &err)
	if err := g.check(request); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (g guard) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer g.rescue(stream.Context(), info.FullMethod, &err)
	return handle(service, checkedStream{stream, g})
}

// checkedStream checks each message that it receives.
type checkedStream struct {
	grpc.ServerStream
	guard guard
}

// RecvMsg receives the next message that keeps the rules.
func (s checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.guard.check(m)
}

// check holds a message against the rules of its fields.
func (g guard) check(m any) error {
	message, ok := m.(proto.Message)
	if !ok {
		return rpcerr.New(codes.Internal, "", "", "a request of type %T is no protobuf message", m)
	}
	err := g.validator.Validate(message)
	if err == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return rpcerr.New(codes.Internal, "", "", "check the request: %w", err)
	}
	refusal := rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "the request breaks the contract")
	var said []string
	for _, v := range broken.Violations {
		field := protovalidate.FieldPathString(v.Proto.GetField())
		refusal.Violations = append(refusal.Violations, rpcerr.Violation{Field: field, Description: v.Proto.GetMessage()})
		said = append(said, strings.TrimSpace(field+" "+v.Proto.GetMessage()))
	}
	refusal.Message += ": " + strings.Join(said, "; ")
	return refusal
}

// rescue turns a panic into the call's error.
func (g guard) rescue(ctx context.Context, method string, err *error) {
	reason := recover()
	if reason == nil {
		return
	}
	g.log.ErrorContext(ctx, "a call panicked", "method", method, "panic", reason, "stack", string(debug.Stack()))
	*err = rpcerr.New(codes.Internal, "", "Report it, with the log of this process.", "%s panicked: %v", method, reason)
}
