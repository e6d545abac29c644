package controller_test

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *scriptedAgent) WatchTrialSamples(req *tcplabv1.WatchTrialSamplesRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialSamplesResponse]) error {
	for left := range uint64(2) {
		err := stream.Send(&tcplabv1.WatchTrialSamplesResponse{Samples: &tcplabv1.LiveSamples{
			Samples: []*tcplabv1.LiveSample{{Flow: req.GetTrialId()}}, LeftOut: left,
		}})
		if err != nil {
			return err
		}
	}
	return a.called(stream.Context(), "WatchTrialSamples")
}

// Who watches a run's samples gets those of its trials, and an end with the run's.
func TestWatchSamples(t *testing.T) {
	agent := newScriptedAgent()
	agent.block, agent.release = "WatchTrial", make(chan struct{})
	h := start(t, agent, 0)
	id := h.create(t, nil).GetId()
	stream, err := h.WatchSamples(t.Context(), &tcplabv1.WatchSamplesRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	for left := range uint64(2) {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetTrial() != 1 || got.GetSamples().GetLeftOut() != left || got.GetSamples().GetSamples()[0].GetFlow() != id+".1" {
			t.Errorf("view %d: %v", left, got)
		}
	}
	close(agent.release)
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the view ended with %v", err)
	}
	h.end(t, id)

	// A run that has ended has no samples to watch, and one that there is not is an error.
	stream, err = h.WatchSamples(t.Context(), &tcplabv1.WatchSamplesRequest{RunId: id})
	if err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("a run that has ended: %v", err)
	}
	stream, err = h.WatchSamples(t.Context(), &tcplabv1.WatchSamplesRequest{RunId: "none"})
	if err == nil {
		_, err = stream.Recv()
	}
	if rpcerr.From(err).Code != codes.NotFound {
		t.Errorf("no run: %v", err)
	}
}
