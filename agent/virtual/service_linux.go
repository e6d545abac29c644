package virtual

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/agent"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/uml/kernel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// pieceSize is the most bytes of a file in one message (ReadArtifactResponse.data).
const pieceSize = 256 << 10

// service is AgentService as far as a guest can carry it.
type service struct {
	tcplabv1.UnimplementedAgentServiceServer
	guests *guests
}

// GetHost says what guests are. It boots none.
func (s *service) GetHost(context.Context, *tcplabv1.GetHostRequest) (*tcplabv1.GetHostResponse, error) {
	host := &tcplabv1.Host{Name: s.guests.cfg.HostName, AgentVersion: s.guests.cfg.Version, Cpus: uint32(runtime.NumCPU())}
	k, err := kernel.Find(s.guests.cfg.Kernels...)
	if err != nil {
		return nil, noKernel(err)
	}
	host.Kernel = &tcplabv1.Kernel{Release: k.Release, Hz: uint32(k.HZ)}
	host.AutoEngine, host.AutoEngineReason = tcplabv1.Engine_ENGINE_NETEM, "netem: guests have it"
	return &tcplabv1.GetHostResponse{Host: host}, nil
}

func noKernel(err error) error {
	return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "Build it, which takes some minutes once: tcplab kernel build.",
		"virtual time: %w", err)
}

// Apply boots a guest, which builds the lab and goes on by itself.
func (s *service) Apply(ctx context.Context, r *tcplabv1.ApplyRequest) (*tcplabv1.ApplyResponse, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	g, mine := s.guests.claim(r)
	if mine {
		if err := g.boot(); err != nil {
			return nil, s.giveUp(g, err)
		}
	} else if !proto.Equal(g.request.GetLab(), r.GetLab()) || g.request.GetTime() != r.GetTime() {
		return nil, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "Remove the deployment first, or give this one an ID of its own.",
			"deployment %s stands with another lab", g.id)
	}
	e, err := g.first(ctx, func(e *tcplabv1.GuestEvent) bool { return e.GetApplied() != nil })
	if err != nil {
		if mine {
			err = s.giveUp(g, err)
		}
		return nil, err
	}
	lease := defaultLease
	if r.GetLease() != nil {
		lease = r.GetLease().AsDuration()
	}
	s.guests.leases.Grant(g.id, lease)
	return proto.CloneOf(e.GetApplied()), nil
}

// giveUp removes a guest that came to nothing, and returns why, as the guest's agent said it.
func (s *service) giveUp(g *guest, why error) error {
	if err := s.guests.remove(g.id, errRemoved); err != nil {
		s.guests.cfg.Log.Error("remove a guest", "deployment", g.id, "error", err)
	}
	return why
}

// check refuses what no guest can carry.
func check(r *tcplabv1.ApplyRequest) error {
	if mode := r.GetTime(); mode != tcplabv1.TimeMode_TIME_MODE_VIRTUAL && mode != tcplabv1.TimeMode_TIME_MODE_RELAXED {
		return rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "this agent runs labs in virtual time, and %v was asked for", mode)
	}
	for _, n := range r.GetLab().GetNodes() {
		if n.GetStack() == tcplabv1.NodeStack_NODE_STACK_HOST {
			return refuse("node %s is a host's own network stack", n.GetName())
		}
	}
	for _, l := range r.GetLab().GetLinks() {
		if l.GetEngine() == tcplabv1.Engine_ENGINE_WIRE {
			return refuse("link %s asks for the wire engine, which goes by the real clock", l.GetName())
		}
	}
	return agent.Validate(r.GetLab())
}

func refuse(format string, args ...any) error {
	return rpcerr.New(codes.InvalidArgument, rpcerr.LabInvalid, "Run it without --virtual, or change that.", "not in virtual time: %s", fmt.Sprintf(format, args...))
}

// Verify waits for the guest's verification.
func (s *service) Verify(ctx context.Context, r *tcplabv1.VerifyRequest) (*tcplabv1.VerifyResponse, error) {
	g, err := s.deployment(r.GetDeploymentId())
	if err != nil {
		return nil, err
	}
	if len(r.GetLinks()) > 0 || r.GetLimit() != nil {
		return nil, notVirtual("a verification of other links or another length than before a trial")
	}
	e, err := g.first(ctx, func(e *tcplabv1.GuestEvent) bool { return e.GetVerified() != nil })
	if err != nil {
		return nil, err
	}
	return proto.CloneOf(e.GetVerified()), nil
}

// StartTrial gives the guest's trial, which goes on by itself, an ID.
func (s *service) StartTrial(_ context.Context, r *tcplabv1.StartTrialRequest) (*tcplabv1.StartTrialResponse, error) {
	g, err := s.deployment(r.GetDeploymentId())
	if err != nil {
		return nil, err
	}
	if r.GetStartTime() != nil {
		return nil, notVirtual("a trial that starts together with others")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trial != "" && g.trial != r.GetTrialId() {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Apply the lab anew for another trial.", "a guest carries one trial out, and has %s", g.trial)
	}
	g.trial = r.GetTrialId()
	return &tcplabv1.StartTrialResponse{}, nil
}

// WatchTrial follows the trial to the result that the guest sealed.
func (s *service) WatchTrial(r *tcplabv1.WatchTrialRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialResponse]) error {
	g, err := s.trial(r.GetTrialId())
	if err != nil {
		return err
	}
	for number := 0; ; number++ {
		e, err := g.await(stream.Context(), number)
		if err == nil && e.GetFailed() != nil {
			err = failedError(e)
		}
		if err != nil {
			if stream.Context().Err() != nil {
				return err
			}
			return stream.Send(&tcplabv1.WatchTrialResponse{Time: timestamppb.New(time.Now()), Event: &tcplabv1.WatchTrialResponse_TrialEnded{
				TrialEnded: &tcplabv1.TrialEnded{Failure: rpcerr.From(err).Message},
			}})
		}
		event := proto.CloneOf(e.GetTrial())
		switch {
		case event == nil:
			continue
		case event.GetTrialEnded() != nil:
			ended, err := g.sealed(stream.Context(), e)
			if err != nil {
				return err
			}
			event.Event = &tcplabv1.WatchTrialResponse_TrialEnded{TrialEnded: ended}
			return stream.Send(event)
		}
		if err := stream.Send(event); err != nil {
			return err
		}
	}
}

// WatchTrialSamples ends with the trial: a guest tells its samples at its end alone, for nobody could watch a
// virtual minute that is over in a second.
func (s *service) WatchTrialSamples(r *tcplabv1.WatchTrialSamplesRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchTrialSamplesResponse]) error {
	g, err := s.trial(r.GetTrialId())
	if err != nil {
		return err
	}
	select {
	case <-g.done:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// CancelTrial kills the guest. A trial that has ended stays as it is.
func (s *service) CancelTrial(ctx context.Context, r *tcplabv1.CancelTrialRequest) (*tcplabv1.CancelTrialResponse, error) {
	g, err := s.trial(r.GetTrialId())
	if err != nil {
		return nil, err
	}
	g.kill(errCancelled)
	select {
	case <-g.done:
		return &tcplabv1.CancelTrialResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ReadArtifact streams a file that the guest left.
func (s *service) ReadArtifact(r *tcplabv1.ReadArtifactRequest, stream grpc.ServerStreamingServer[tcplabv1.ReadArtifactResponse]) error {
	g, err := s.trial(r.GetTrialId())
	if err != nil {
		return err
	}
	g.mu.Lock()
	from := g.spool
	g.mu.Unlock()
	if from == nil {
		return rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "trial %s has not ended, or left nothing", r.GetTrialId())
	}
	file, err := from.Artifact(g.id, r.GetName())
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(int64(r.GetOffset()), io.SeekStart); err != nil {
		return rpcerr.New(codes.OutOfRange, rpcerr.RequestInvalid, "", "%s of trial %s at %d: %w", r.GetName(), r.GetTrialId(), r.GetOffset(), err)
	}
	for {
		piece := make([]byte, pieceSize)
		n, err := io.ReadFull(file, piece)
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

// AcknowledgeTrial deletes what the guest left. One that is not there was acknowledged before.
func (s *service) AcknowledgeTrial(_ context.Context, r *tcplabv1.AcknowledgeTrialRequest) (*tcplabv1.AcknowledgeTrialResponse, error) {
	g, err := s.trial(r.GetTrialId())
	if err != nil {
		return &tcplabv1.AcknowledgeTrialResponse{}, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		return nil, rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "Wait until it has ended, or cancel it.", "trial %s is under way", r.GetTrialId())
	}
	if g.spool != nil {
		if err := g.spool.Delete(g.id); err != nil {
			return nil, err
		}
	}
	return &tcplabv1.AcknowledgeTrialResponse{}, nil
}

// RenewLease starts the deployment's lease anew.
func (s *service) RenewLease(_ context.Context, r *tcplabv1.RenewLeaseRequest) (*tcplabv1.RenewLeaseResponse, error) {
	if !s.guests.leases.Renew(r.GetDeploymentId()) {
		return nil, notThere(r.GetDeploymentId())
	}
	return &tcplabv1.RenewLeaseResponse{}, nil
}

// Remove kills the guest and removes its files.
func (s *service) Remove(_ context.Context, r *tcplabv1.RemoveRequest) (*tcplabv1.RemoveResponse, error) {
	if err := s.guests.remove(r.GetDeploymentId(), errRemoved); err != nil {
		return nil, err
	}
	return &tcplabv1.RemoveResponse{}, nil
}

// ReadLinks is for labs that stand.
func (s *service) ReadLinks(context.Context, *tcplabv1.ReadLinksRequest) (*tcplabv1.ReadLinksResponse, error) {
	return nil, notVirtual("a look at links")
}

// ChangeLink is for labs that stand.
func (s *service) ChangeLink(context.Context, *tcplabv1.ChangeLinkRequest) (*tcplabv1.ChangeLinkResponse, error) {
	return nil, notVirtual("a change of a link by hand")
}

// RunProgram is for labs that stand.
func (s *service) RunProgram(grpc.BidiStreamingServer[tcplabv1.RunProgramRequest, tcplabv1.RunProgramResponse]) error {
	return notVirtual("a program at somebody's keyboard")
}

// StartSchedules is for labs that stand.
func (s *service) StartSchedules(context.Context, *tcplabv1.StartSchedulesRequest) (*tcplabv1.StartSchedulesResponse, error) {
	return nil, notVirtual("a lab that only stands")
}

// notVirtual refuses what only a lab on the real clock can be asked: a guest carries out one trial and ends.
func notVirtual(what string) error {
	return rpcerr.New(codes.Unimplemented, rpcerr.RequestInvalid, "Have it on the real clock.", "there is no %s in virtual time", what)
}

func (s *service) deployment(id string) (*guest, error) {
	g, ok := s.guests.guest(id)
	if !ok {
		return nil, notThere(id)
	}
	return g, nil
}

func notThere(id string) error {
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, "Apply the lab again; a deployment ends with its lease.", "no guest has deployment %s", id)
}

func (s *service) trial(id string) (*guest, error) {
	s.guests.mu.Lock()
	defer s.guests.mu.Unlock()
	for _, g := range s.guests.byID {
		g.mu.Lock()
		found := g.trial == id
		g.mu.Unlock()
		if found {
			return g, nil
		}
	}
	return nil, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "there is no trial %s", id)
}
