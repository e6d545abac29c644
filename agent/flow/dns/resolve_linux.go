package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/latency"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Traffic is a flow of any other kind.
type Traffic interface {
	Listen(ctx context.Context) error
	Run(ctx context.Context) *tcplabv1.FlowResult
	Close() error
}

// Resolving is a flow whose client looks its server's name up before it begins (Flow.resolve).
type Resolving struct {
	Traffic
	spec   *tcplabv1.Flow
	query  Query
	server netip.Addr
}

// NewResolving has a flow look its server's name up first. query says from where and whom to ask; server is
// the address at which the flow's server listens.
func NewResolving(t Traffic, spec *tcplabv1.Flow, query Query, server netip.Addr) *Resolving {
	r := spec.GetResolve()
	query.Name = r.GetName()
	if query.Name == "" {
		query.Name = spec.GetServer()
	}
	return &Resolving{Traffic: t, spec: spec, query: QueryOf(r.GetQuery(), spec.GetFamily(), query), server: server}
}

// Run looks the name up, and then runs the flow.
func (r *Resolving) Run(ctx context.Context) *tcplabv1.FlowResult {
	answer, err := Lookup(ctx, r.query)
	var took latency.Set
	took.Add(answer.Took)
	switch cause := context.Cause(ctx); {
	case err != nil && cause != nil:
		err = &flow.Stopped{Doing: "looking up " + r.query.Name, Cause: cause}
	case err != nil:
		err = fmt.Errorf("client: %w", err)
	case !slices.Contains(answer.Addresses, r.server):
		err = &net.DNSError{
			Err: fmt.Sprintf("it has the addresses %v, and the flow's server listens at %s", answer.Addresses, r.server), Name: r.query.Name,
			Server: r.query.Server.String(), IsNotFound: true,
		}
	}
	if err != nil {
		return &tcplabv1.FlowResult{
			Name: r.spec.GetName(), Kind: flow.Kind(r.spec), Error: err.Error(), Outcome: flow.OutcomeOf(err), Resolve: took.Summary(),
		}
	}
	result := r.Traffic.Run(ctx)
	result.Resolve = took.Summary()
	if first := result.GetHttp().GetFirst(); first != nil {
		first.Resolve = durationpb.New(answer.Took)
		if total := first.GetTotal().AsDuration(); total > 0 {
			first.Total = durationpb.New(total + answer.Took)
		}
	}
	return result
}
