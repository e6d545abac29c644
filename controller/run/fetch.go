package run

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

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
	pieces, err := t.drive.Agent.ReadArtifact(ctx, &tcplabv1.ReadArtifactRequest{TrialId: t.message.GetId(), Name: artifact.GetName()})
	if err != nil {
		return agentFailure(ctx, op, err)
	}
	read := &pieceReader{pieces: pieces}
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

// pieceReader reads a stream of pieces as bytes.
type pieceReader struct {
	pieces grpc.ServerStreamingClient[tcplabv1.ReadArtifactResponse]
	rest   []byte
	err    error // the stream's, other than its end
}

func (r *pieceReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, err := r.pieces.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.err = err
			}
			return 0, err
		}
		r.rest = piece.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
