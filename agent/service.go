//go:build linux

package agent

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/agent/policy"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// pieceSize is the most bytes of a file in one message
// (ReadArtifactResponse.data).
const pieceSize = 256 << 10

// service is AgentService: decode, call, encode.
type service struct {
	tcplabv1.UnimplementedAgentServiceServer
	agent *agent
}

func (s *service) GetHost(ctx context.Context, _ *tcplabv1.GetHostRequest) (*tcplabv1.GetHostResponse, error) {
	h, err := s.agent.probe(ctx)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.GetHostResponse{Host: h}, nil
}

func (s *service) ReadClock(context.Context, *tcplabv1.ReadClockRequest) (*tcplabv1.ReadClockResponse, error) {
	received := timestamppb.Now()
	return &tcplabv1.ReadClockResponse{Received: received, Sent: timestamppb.Now()}, nil
}

func (s *service) Apply(ctx context.Context, r *tcplabv1.ApplyRequest) (*tcplabv1.ApplyResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if r.GetTime() > tcplabv1.TimeMode_TIME_MODE_REAL {
		return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "this agent runs labs by the real clock, and %v was asked for", r.GetTime())
	}
	if err := s.agent.host.permitLab(r.GetLab()); err != nil {
		return nil, err
	}
	return s.agent.apply(ctx, r.GetDeploymentId(), r.GetLab(), r.GetLease().AsDuration())
}

func (s *service) Verify(ctx context.Context, r *tcplabv1.VerifyRequest) (*tcplabv1.VerifyResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	d, err := s.agent.deployment(ctx, r.GetDeploymentId())
	if err != nil {
		return nil, err
	}
	links, err := d.verify(ctx, r.GetLinks(), r.GetLimit().AsDuration())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.VerifyResponse{Links: links}, nil
}

func (s *service) ReadLinks(ctx context.Context, r *tcplabv1.ReadLinksRequest) (*tcplabv1.ReadLinksResponse, error) {
	d, err := s.agent.deployment(ctx, r.GetDeploymentId())
	if err != nil {
		return nil, err
	}
	links, err := d.readLinks(r.GetLinks())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.ReadLinksResponse{Links: links}, nil
}

func (s *service) ChangeLink(ctx context.Context, r *tcplabv1.ChangeLinkRequest) (*tcplabv1.ChangeLinkResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	d, err := s.agent.deployment(ctx, r.GetDeploymentId())
	if err != nil {
		return nil, err
	}
	links, err := d.changeLink(r.GetLink())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.ChangeLinkResponse{Links: links}, nil
}

func (s *service) RunProgram(stream grpc.BidiStreamingServer[tcplabv1.RunProgramRequest, tcplabv1.RunProgramResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.agent.command(first.GetTerm()); err != nil {
		return err
	}
	d, err := s.agent.deployment(stream.Context(), first.GetDeploymentId())
	if err != nil {
		return err
	}
	if err := s.agent.host.permitPrograms(policy.Root); err != nil { // as whom it runs
		return err
	}
	start := first.GetInput().GetStart()
	if start == nil {
		return rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "the first input of a program must start it")
	}
	return d.runProgram(stream.Context(), start,
		func() (*tcplabv1.ProgramInput, error) {
			next, err := stream.Recv()
			return next.GetInput(), err
		},
		func(output *tcplabv1.ProgramOutput) error {
			return stream.Send(&tcplabv1.RunProgramResponse{Output: output})
		})
}

func (s *service) StartTrial(ctx context.Context, r *tcplabv1.StartTrialRequest) (*tcplabv1.StartTrialResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if err := s.agent.startTrial(ctx, r); err != nil {
		return nil, err
	}
	return &tcplabv1.StartTrialResponse{}, nil
}

func (s *service) WatchTrial(r *tcplabv1.WatchTrialRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialResponse]) error {
	return s.agent.watchTrial(stream.Context(), r.GetTrialId(), stream.Send)
}

func (s *service) WatchTrialSamples(r *tcplabv1.WatchTrialSamplesRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialSamplesResponse]) error {
	return s.agent.watchSamples(stream.Context(), r.GetTrialId(), r.GetInterval().AsDuration(), func(news *tcplabv1.LiveSamples) error {
		return stream.Send(&tcplabv1.WatchTrialSamplesResponse{Samples: news})
	})
}

func (s *service) CancelTrial(ctx context.Context, r *tcplabv1.CancelTrialRequest) (*tcplabv1.CancelTrialResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if err := s.agent.cancelTrial(ctx, r.GetTrialId()); err != nil {
		return nil, err
	}
	return &tcplabv1.CancelTrialResponse{}, nil
}

func (s *service) ReadArtifact(r *tcplabv1.ReadArtifactRequest, stream grpc.ServerStreamingServer[tcplabv1.ReadArtifactResponse]) error {
	file, err := s.agent.spool.Artifact(r.GetTrialId(), r.GetName())
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	size := uint64(info.Size())
	if r.GetOffset() > size {
		return rpcerr.New(codes.OutOfRange, rpcerr.RequestInvalid, "", "%s of trial %s has %d bytes: there is none at %d",
			r.GetName(), r.GetTrialId(), size, r.GetOffset())
	}
	content := io.NewSectionReader(file, int64(r.GetOffset()), int64(size-r.GetOffset()))
	for {
		piece := make([]byte, pieceSize)
		n, err := io.ReadFull(content, piece)
		if n > 0 {
			if err := stream.Send(&tcplabv1.ReadArtifactResponse{Data: piece[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return rpcerr.New(codes.DataLoss, rpcerr.Storage, "Check the disk.", "read %s of trial %s: %w", r.GetName(), r.GetTrialId(), err)
		}
	}
}

func (s *service) AcknowledgeTrial(_ context.Context, r *tcplabv1.AcknowledgeTrialRequest) (*tcplabv1.AcknowledgeTrialResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if err := s.agent.acknowledgeTrial(r.GetTrialId()); err != nil {
		return nil, err
	}
	return &tcplabv1.AcknowledgeTrialResponse{}, nil
}

func (s *service) StartSchedules(ctx context.Context, r *tcplabv1.StartSchedulesRequest) (*tcplabv1.StartSchedulesResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	d, err := s.agent.deployment(ctx, r.GetDeploymentId())
	if err == nil {
		err = d.startSchedules(s.agent.cfg.Log)
	}
	if err != nil {
		return nil, err
	}
	return &tcplabv1.StartSchedulesResponse{}, nil
}

func (s *service) RenewLease(ctx context.Context, r *tcplabv1.RenewLeaseRequest) (*tcplabv1.RenewLeaseResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if err := s.agent.renew(ctx, r.GetDeploymentId()); err != nil {
		return nil, err
	}
	return &tcplabv1.RenewLeaseResponse{}, nil
}

func (s *service) Remove(_ context.Context, r *tcplabv1.RemoveRequest) (*tcplabv1.RemoveResponse, error) {
	if err := s.agent.command(r.GetTerm()); err != nil {
		return nil, err
	}
	if err := s.agent.remove(r.GetDeploymentId(), errRemoved); err != nil {
		return nil, err
	}
	return &tcplabv1.RemoveResponse{}, nil
}
