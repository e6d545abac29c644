package controller

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/controller/access"
	"github.com/tcplab/tcplab/controller/result"
	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Sizes of pages that a request leaves open, and what a page of trials weighs
// at most beside its last trial.
const (
	defaultRunsPage   = 50
	defaultTrialsPage = 20
	trialsPageBytes   = 2 << 20
)

// runService is RunService: convert, call, convert.
type runService struct {
	tcplabv1.UnimplementedRunServiceServer
	store   *store.Store
	driver  *run.Driver
	guarded bool // callers prove who they are
}

// PlanRun says what CreateRun would do.
func (s *runService) PlanRun(_ context.Context, req *tcplabv1.PlanRunRequest) (*tcplabv1.PlanRunResponse, error) {
	plan, err := newPlan(req, req.GetOptions())
	if err != nil {
		return nil, err
	}
	response := &tcplabv1.PlanRunResponse{Plan: plan.Message()}
	if size := proto.Size(response); size > MaxMessage {
		return nil, rpcerr.New(codes.ResourceExhausted, rpcerr.RequestInvalid, "sweep fewer values",
			"the plan of %d points is %d bytes long, more than %d", plan.Points(), size, MaxMessage)
	}
	return response, nil
}

// CreateRun accepts a run.
func (s *runService) CreateRun(ctx context.Context, req *tcplabv1.CreateRunRequest) (*tcplabv1.CreateRunResponse, error) {
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	options := &tcplabv1.RunOptions{}
	proto.Merge(options, req.GetOptions())
	if options.GetSeed() == 0 {
		if options.Seed, err = drawSeed(); err != nil {
			return nil, err
		}
	}
	labs, err := points(req)
	if err != nil {
		return nil, err
	}
	if options.Exec, err = permit(req, labs, options.GetExec()); err != nil {
		return nil, err
	}
	if options.GetExec() > 0 && s.guarded {
		if err := access.PermitExec(ctx); err != nil {
			return nil, err
		}
	}
	plan, err := run.NewPlan(labs, options)
	if err != nil {
		return nil, err
	}
	m := plan.Message()
	options.Repeat = m.GetRepeat()
	created, err := s.driver.Create(ctx, &tcplabv1.Run{
		Lab: m.GetLab(), Title: m.GetTitle(), TrialsCount: m.GetTrialsCount(), Options: options,
	}, plan, store.Request{ID: req.GetRequestId(), Digest: digest})
	if err != nil {
		return nil, err
	}
	return &tcplabv1.CreateRunResponse{Run: created}, nil
}

// GetRun reads one run.
func (s *runService) GetRun(ctx context.Context, req *tcplabv1.GetRunRequest) (*tcplabv1.GetRunResponse, error) {
	found, err := s.store.Run(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.GetRunResponse{Run: found}, nil
}

// ListRuns reads a page of runs.
func (s *runService) ListRuns(ctx context.Context, req *tcplabv1.ListRunsRequest) (*tcplabv1.ListRunsResponse, error) {
	runs, next, err := s.store.Runs(ctx, store.Query{
		Lab: req.GetLab(), Labels: req.GetLabels(), PageToken: req.GetPageToken(),
		PageSize: pageSize(req.GetPageSize(), defaultRunsPage),
	})
	if err != nil {
		return nil, err
	}
	return &tcplabv1.ListRunsResponse{Runs: runs, NextPageToken: next}, nil
}

// CancelRun stops a run.
func (s *runService) CancelRun(ctx context.Context, req *tcplabv1.CancelRunRequest) (*tcplabv1.CancelRunResponse, error) {
	found, err := s.store.Run(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	if s.store.ReadOnly() && !store.Ended(found.GetState()) {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "ask the tcplab that drives it",
			"cancel run %s: another process drives it", found.GetId())
	}
	if err := s.driver.Cancel(ctx, found.GetId()); err != nil {
		return nil, err
	}
	if found, err = s.store.Run(ctx, found.GetId()); err != nil {
		return nil, err
	}
	return &tcplabv1.CancelRunResponse{Run: found}, nil
}

// WatchRun streams a run's events.
func (s *runService) WatchRun(req *tcplabv1.WatchRunRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchRunResponse]) error {
	found, err := s.store.Run(stream.Context(), req.GetRunId())
	if err != nil {
		return err
	}
	id := found.GetId()
	return s.store.Watch(stream.Context(), id, req.GetAfter(),
		func(event *tcplabv1.RunEvent) error { return stream.Send(&tcplabv1.WatchRunResponse{Event: event}) },
		func() error { return s.driver.Unsaved(id) })
}

// WatchSamples streams what the trials of a run sample.
func (s *runService) WatchSamples(req *tcplabv1.WatchSamplesRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchSamplesResponse]) error {
	found, err := s.store.Run(stream.Context(), req.GetRunId())
	if err != nil {
		return err
	}
	if s.store.ReadOnly() && !store.Ended(found.GetState()) {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "ask the tcplab that drives it",
			"watch the samples of run %s: another process drives it", found.GetId())
	}
	return s.driver.WatchSamples(stream.Context(), found.GetId(), req.GetInterval().AsDuration(), func(trial uint32, news *tcplabv1.LiveSamples) error {
		return stream.Send(&tcplabv1.WatchSamplesResponse{Trial: trial, Samples: news})
	})
}

// ListTrials reads a page of a run's trials that have started.
func (s *runService) ListTrials(ctx context.Context, req *tcplabv1.ListTrialsRequest) (*tcplabv1.ListTrialsResponse, error) {
	found, err := s.store.Run(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	after := uint64(0)
	if token := req.GetPageToken(); token != "" {
		if after, err = strconv.ParseUint(token, 36, 32); err != nil {
			return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "start again without a page token",
				"%q is no page token", token)
		}
	}
	response, limit, size := &tcplabv1.ListTrialsResponse{}, pageSize(req.GetPageSize(), defaultTrialsPage), 0
	err = s.store.Trials(ctx, found.GetId(), uint32(after), func(trial *tcplabv1.Trial) (bool, error) {
		if len(response.Trials) == limit || size > trialsPageBytes {
			last := response.Trials[len(response.Trials)-1]
			response.NextPageToken = strconv.FormatUint(uint64(last.GetNumber()), 36)
			return false, nil
		}
		response.Trials = append(response.Trials, trial)
		size += proto.Size(trial)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// GetRunReport reads what a run found.
func (s *runService) GetRunReport(ctx context.Context, req *tcplabv1.GetRunReportRequest) (*tcplabv1.GetRunReportResponse, error) {
	found, err := s.store.Run(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	expectations, err := s.store.Expectations(ctx, found.GetId())
	if err != nil {
		return nil, err
	}
	report, size := result.Report(found, expectations), 0
	err = s.store.Trials(ctx, found.GetId(), 0, func(trial *tcplabv1.Trial) (bool, error) {
		result.Add(report, trial)
		size += proto.Size(report.GetTrials()[len(report.GetTrials())-1])
		if size > MaxMessage/2 {
			return false, rpcerr.New(codes.ResourceExhausted, rpcerr.RequestInvalid, "read its trials in pages (ListTrials)",
				"the report of run %s with %d trials is longer than %d bytes", found.GetId(), found.GetTrialsCount(), MaxMessage/2)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return &tcplabv1.GetRunReportResponse{Report: report}, nil
}

// pieceSize is the most of a file that goes in one message (ReadRunArtifactResponse.data).
const pieceSize = 256 << 10

// ReadRunArtifact streams a file of a trial.
func (s *runService) ReadRunArtifact(req *tcplabv1.ReadRunArtifactRequest, stream grpc.ServerStreamingServer[tcplabv1.ReadRunArtifactResponse]) error {
	found, err := s.store.Run(stream.Context(), req.GetRunId())
	if err != nil {
		return err
	}
	file, err := s.store.OpenArtifact(stream.Context(), found.GetId(), req.GetTrial(), req.GetName())
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		piece := make([]byte, pieceSize)
		n, err := io.ReadFull(file, piece)
		if n > 0 {
			if err := stream.Send(&tcplabv1.ReadRunArtifactResponse{Data: piece[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return rpcerr.New(codes.DataLoss, rpcerr.Storage, "Check the disk.", "read %s of trial %s.%d: %w", req.GetName(), found.GetId(), req.GetTrial(), err)
		}
	}
}

func newPlan(req asked, options *tcplabv1.RunOptions) (*run.Plan, error) {
	labs, err := points(req)
	if err != nil {
		return nil, err
	}
	return run.NewPlan(labs, options)
}

// digestOf tells what a request asks for from what another one does.
func digestOf(req proto.Message) ([]byte, error) {
	req = proto.Clone(req)
	if id := req.ProtoReflect().Descriptor().Fields().ByName("request_id"); id != nil {
		req.ProtoReflect().Clear(id)
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	sum := sha256.Sum256(content)
	return sum[:], nil
}

// drawSeed draws a seed of 32 bits, never 0: short enough to type again.
func drawSeed() (uint64, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("draw a seed: %w", err)
	}
	return max(1, uint64(binary.BigEndian.Uint32(b[:]))), nil
}

func pageSize(asked int32, otherwise int) int {
	if asked == 0 {
		return otherwise
	}
	return int(asked)
}
