package access

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// ServerOptions put the gate before a server: each call is held against the table before anything of it is read, and
// what the table wants written down is written when the call has ended.
func (a *Access) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(a.tap),
		grpc.ChainUnaryInterceptor(a.unary),
		grpc.ChainStreamInterceptor(a.stream),
	}
}

// tap decides, in the connection's own goroutine: nothing here waits.
func (a *Access) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	caller, err := a.caller(ctx)
	if err == nil {
		err = a.permit(caller, info.FullMethodName)
	}
	if err != nil {
		a.writeRefusal(ctx, caller, info.FullMethodName, err)
	}
	return context.WithValue(ctx, callerKey{}, caller), err
}

// writeRefusal has a refusal written down, or counted where too many wait.
func (a *Access) writeRefusal(ctx context.Context, caller Caller, method string, err error) {
	who := caller.String()
	if p, ok := peer.FromContext(ctx); ok && caller.Principal == nil {
		if info, ok := p.AuthInfo.(connInfo); ok && info.identity.Kind != "" {
			who = info.identity.String() // it says so, and was refused
		}
	}
	entry := newEntry(caller, method, "", err)
	entry.Who = who
	select {
	case a.refused <- entry:
	default:
		a.mu.Lock()
		a.lost++
		lost := a.lost
		a.mu.Unlock()
		if lost&(lost-1) == 0 { // at 1, 2, 4, …
			a.cfg.Log.Warn("more calls are refused than can be written down", "not written", lost)
		}
	}
}

func (a *Access) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if !a.rules[info.FullMethod].Audit {
		return handle(ctx, request)
	}
	written := false
	response, err := handle(context.WithValue(ctx, writtenKey{}, &written), request)
	if err != nil || !written {
		a.write(ctx, info.FullMethod, target(request, response), err)
	}
	return response, err
}

// writtenKey is the context's key of whether a call is in the audit log already.
type writtenKey struct{}

// writtenDown says that a call which succeeds is in the audit log: it was written together with what it did.
func writtenDown(ctx context.Context) {
	if written, ok := ctx.Value(writtenKey{}).(*bool); ok {
		*written = true
	}
}

func (a *Access) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if !a.rules[info.FullMethod].Audit {
		return handle(service, stream)
	}
	noted := &notedStream{ServerStream: stream}
	err := handle(service, noted)
	a.write(stream.Context(), info.FullMethod, noted.target, err)
	return err
}

// notedStream notes what its first request is about.
type notedStream struct {
	grpc.ServerStream
	target string
}

// RecvMsg is grpc.ServerStream's.
func (s *notedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil && s.target == "" {
		s.target = target(m, nil)
	}
	return err
}

// auditWithin bounds the write of an entry: the call it is about has ended.
const auditWithin = 5 * time.Second

// write writes a call down.
func (a *Access) write(ctx context.Context, method, about string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditWithin)
	defer cancel()
	entry := newEntry(CallerOf(ctx), method, about, err)
	if err := a.cfg.Store.AppendAudit(ctx, entry); err != nil {
		a.cfg.Log.Error("a call is not in the audit log", "who", entry.GetWho(), "method", entry.GetMethod(), "target", about, "outcome", entry.GetOutcome(), "error", err)
	}
}

func newEntry(caller Caller, method, about string, err error) *tcplabv1.AuditEntry {
	entry := &tcplabv1.AuditEntry{
		Time: timestamppb.Now(), Who: caller.String(), Method: short(method), Target: about, Outcome: "OK",
	}
	if caller.Address.IsValid() {
		entry.Address = caller.Address.String()
	}
	if err != nil {
		e := rpcerr.From(err)
		entry.Outcome, entry.Detail = codeName(e.Code), e.Message
	}
	return entry
}

// short is a method without its package: "LabService/Exec".
func short(method string) string {
	method = strings.TrimPrefix(method, "/")
	if service, name, ok := strings.Cut(method, "/"); ok {
		return service[strings.LastIndexByte(service, '.')+1:] + "/" + name
	}
	return method
}

// naming are the fields by which requests say what they are about, in the order of their weight. No secret is among them.
func naming() []protoreflect.Name { return []protoreflect.Name{"run_id", "deployment", "name", "id"} }

// made are the fields of answers in which what was made stands.
func made() []protoreflect.Name {
	return []protoreflect.Name{"run", "deployment", "principal", "token"}
}

// target is what a call was about, as its request, or else its answer, names it.
func target(request, response any) string {
	if name := named(request); name != "" {
		return name
	}
	m, ok := response.(proto.Message)
	if !ok || !m.ProtoReflect().IsValid() {
		return ""
	}
	r := m.ProtoReflect()
	for _, field := range made() {
		f := r.Descriptor().Fields().ByName(field)
		if f != nil && f.Message() != nil && !f.IsList() && !f.IsMap() && r.Has(f) {
			return named(r.Get(f).Message().Interface())
		}
	}
	return ""
}

func named(message any) string {
	m, ok := message.(proto.Message)
	if !ok {
		return ""
	}
	r := m.ProtoReflect()
	for _, name := range naming() {
		f := r.Descriptor().Fields().ByName(name)
		if f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() && r.Get(f).String() != "" {
			return r.Get(f).String()
		}
	}
	return ""
}
