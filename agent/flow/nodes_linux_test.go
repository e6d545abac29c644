package flow

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit is when a flow that should long have ended is given up: no figure, only
// the end of a test that hangs.
const limit = 30 * time.Second

// nodes are a client and a server, joined by a veth.
func nodes(t testing.TB, plain bool) Config {
	t.Helper()
	client, server := flowtest.Nodes(t, plain)
	return Config{Client: client, Server: server, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func listening(t testing.TB, spec *tcplabv1.Flow, cfg Config) *Flow {
	t.Helper()
	f, err := New(spec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func run(t testing.TB, spec *tcplabv1.Flow, cfg Config) *tcplabv1.FlowResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := listening(t, spec, cfg).Run(ctx)
	if r.GetError() != "" {
		t.Fatalf("flow: %s", r.GetError())
	}
	return r
}

func bulkBytes(n uint64) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "b", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Bulk{
		Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Bytes{Bytes: n}},
	}}
}

func bulkFor(d time.Duration) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "b", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Bulk{
		Bulk: &tcplabv1.Bulk{Amount: &tcplabv1.Bulk_Duration{Duration: durationpb.New(d)}},
	}}
}

func transactions(count uint32, reply uint64, writes ...uint32) *tcplabv1.Flow {
	return &tcplabv1.Flow{Name: "t", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Transaction{
		Transaction: &tcplabv1.Transaction{Writes: writes, Reply: reply, Count: count},
	}}
}
