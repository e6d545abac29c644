package run

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// sampling says which trial of each run samples now, to those who wait for it.
type sampling struct {
	mu      sync.Mutex
	trials  map[string]sampledTrial // by run: the last that began
	changed chan struct{}           // closed at the next change
}

// sampledTrial is a trial that samples; its number is 0 where there is none.
type sampledTrial struct {
	id     string
	number uint32
	agent  tcplabv1.AgentServiceClient
}

func newSampling() *sampling {
	return &sampling{trials: map[string]sampledTrial{}, changed: make(chan struct{})}
}

// begin says that a trial of a run samples from now on, at an agent.
func (s *sampling) begin(trial *tcplabv1.Trial, agent tcplabv1.AgentServiceClient) {
	s.change(func() { s.trials[trial.GetRunId()] = sampledTrial{trial.GetId(), trial.GetNumber(), agent} })
}

// end says that a run has ended.
func (s *sampling) end(run string) { s.change(func() { delete(s.trials, run) }) }

func (s *sampling) change(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	close(s.changed)
	s.changed = make(chan struct{})
}

// now is the trial that began last, and a channel that closes when that changes.
func (s *sampling) now(run string) (sampledTrial, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trials[run], s.changed
}

// WatchSamples calls send with the newest samples of each trial of a run while it runs, from now on, until the run has
// ended. A run that has ended, or that this controller does not drive, has none. It returns the error of
// send, of ctx, or of the agent.
func (d *Driver) WatchSamples(ctx context.Context, runID string, interval time.Duration, send func(trial uint32, news *tcplabv1.LiveSamples) error) error {
	seen := uint32(0)
	for {
		trial, changed := d.sampling.now(runID)
		d.mu.Lock()
		job := d.jobs[runID]
		d.mu.Unlock()
		switch {
		case job == nil:
			return nil
		case trial.number > seen:
			seen = trial.number
			if err := trial.relay(ctx, interval, send); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// relay passes on what the trial samples, until it has ended.
func (t sampledTrial) relay(ctx context.Context, interval time.Duration, send func(uint32, *tcplabv1.LiveSamples) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &tcplabv1.WatchTrialSamplesRequest{TrialId: t.id}
	if interval > 0 {
		request.Interval = durationpb.New(interval)
	}
	stream, err := t.agent.WatchTrialSamples(ctx, request)
	for err == nil {
		var response *tcplabv1.WatchTrialSamplesResponse
		if response, err = stream.Recv(); err == nil {
			if err := send(t.number, response.GetSamples()); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) || rpcerr.From(err).Code == codes.NotFound { // it has ended already
		return nil
	}
	return err
}
