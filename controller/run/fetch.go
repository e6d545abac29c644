package run

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// fetchFile brings one file of the trial here; the store checks its size and
// hash.
func (t *trial) fetchFile(ctx context.Context, files *store.Incoming, artifact *tcplabv1.Artifact) *failure {
	ctx, cancel := context.WithCancel(ctx) // ends a stream that is longer than announced
	defer cancel()
	op := fmt.Sprintf("fetch %s", artifact.GetName())
	read := &pieceReader{open: func(offset uint64) (grpc.ServerStreamingClient[tcplabv1.ReadArtifactResponse], error) {
		return t.drive.agent.ReadArtifact(ctx, &tcplabv1.ReadArtifactRequest{TrialId: t.message.GetId(), Name: artifact.GetName(), Offset: offset})
	}}
	switch err := files.Put(artifact, read); {
	case err == nil:
		return nil
	case read.err != nil:
		return agentFailure(ctx, op, read.err)
	case errors.Is(err, store.ErrContent):
		return failed(tcplabv1.FailureReason_FAILURE_REASON_TRIAL, "%s", words(op, rpcerr.From(err)))
	default:
		return storeFailure(ctx, op, err)
	}
}

// pieceReader reads a stream of pieces as bytes. Where the connection breaks it goes on in the next, a few times.
type pieceReader struct {
	open   func(offset uint64) (grpc.ServerStreamingClient[tcplabv1.ReadArtifactResponse], error)
	pieces grpc.ServerStreamingClient[tcplabv1.ReadArtifactResponse] // nil: to be opened
	rest   []byte
	taken  uint64 // bytes that came so far
	breaks int
	err    error // the stream's, other than its end
}

func (r *pieceReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, err := r.next()
		switch {
		case err == nil:
			r.rest = piece.GetData()
			r.taken += uint64(len(r.rest))
		case errors.Is(err, io.EOF):
			return 0, err
		case rpcerr.From(err).Code == codes.Unavailable && rpcerr.From(err).Reason == "" && r.breaks < maxBreaks:
			r.breaks++
			r.pieces = nil
		default:
			r.err = err
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *pieceReader) next() (_ *tcplabv1.ReadArtifactResponse, err error) {
	if r.pieces == nil {
		if r.pieces, err = r.open(r.taken); err != nil {
			return nil, err
		}
	}
	return r.pieces.Recv()
}
