package controller

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/run"
	"github.com/tcplab/tcplab/controller/standing"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Sizes of pages, the interval and the limit that a request leaves open.
const (
	defaultDeploymentsPage = 100
	defaultLinksPage       = 1000
	defaultWatchInterval   = time.Second
	defaultVerifyLimit     = 30 * time.Second
)

// labService is LabService: convert, call, convert.
type labService struct {
	tcplabv1.UnimplementedLabServiceServer
	deployments *standing.Deployments
}

// ValidateLab says what is wrong with a lab.
func (s *labService) ValidateLab(_ context.Context, req *tcplabv1.ValidateLabRequest) (*tcplabv1.ValidateLabResponse, error) {
	if req.GetStanding() {
		lab, err := standingPoint(req)
		if err != nil {
			return nil, err
		}
		return &tcplabv1.ValidateLabResponse{Lab: lab, PointsCount: 1}, nil
	}
	all, err := points(req)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.ValidateLabResponse{Lab: all[0], PointsCount: uint32(len(all))}, nil
}

// CreateDeployment builds a lab that stands.
func (s *labService) CreateDeployment(ctx context.Context, req *tcplabv1.CreateDeploymentRequest) (*tcplabv1.CreateDeploymentResponse, error) {
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	lab, err := standingPoint(req)
	if err != nil {
		return nil, err
	}
	seed := req.GetSeed()
	if seed == 0 {
		if seed, err = drawSeed(); err != nil {
			return nil, err
		}
	}
	plan, err := run.NewPlan([]*tcplabv1.Lab{lab}, &tcplabv1.RunOptions{Engine: req.GetEngine(), Seed: seed})
	if err != nil {
		return nil, err
	}
	lab, _ = plan.Trial(1)
	created, err := s.deployments.Create(ctx, cmp.Or(req.GetName(), lab.GetName()), lab, standing.Request{ID: req.GetRequestId(), Digest: digest})
	if err != nil {
		return nil, err
	}
	return &tcplabv1.CreateDeploymentResponse{Deployment: created}, nil
}

// GetDeployment reads a deployment.
func (s *labService) GetDeployment(ctx context.Context, req *tcplabv1.GetDeploymentRequest) (*tcplabv1.GetDeploymentResponse, error) {
	found, err := s.deployments.Get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &tcplabv1.GetDeploymentResponse{Deployment: found}, nil
}

// ListDeployments reads a page of deployments.
func (s *labService) ListDeployments(_ context.Context, req *tcplabv1.ListDeploymentsRequest) (*tcplabv1.ListDeploymentsResponse, error) {
	all, next := s.deployments.List(req.GetPageToken(), pageSize(req.GetPageSize(), defaultDeploymentsPage))
	return &tcplabv1.ListDeploymentsResponse{Deployments: all, NextPageToken: next}, nil
}

// DeleteDeployment takes a deployment away.
func (s *labService) DeleteDeployment(ctx context.Context, req *tcplabv1.DeleteDeploymentRequest) (*tcplabv1.DeleteDeploymentResponse, error) {
	if err := s.deployments.Delete(ctx, req.GetName()); err != nil {
		return nil, err
	}
	return &tcplabv1.DeleteDeploymentResponse{}, nil
}

// GetLink reads a link.
func (s *labService) GetLink(ctx context.Context, req *tcplabv1.GetLinkRequest) (*tcplabv1.GetLinkResponse, error) {
	links, err := s.deployments.Links(ctx, req.GetDeployment(), []string{req.GetLink()})
	if err != nil {
		return nil, err
	}
	return &tcplabv1.GetLinkResponse{Link: links[0]}, nil
}

// ListLinks reads a page of links.
func (s *labService) ListLinks(ctx context.Context, req *tcplabv1.ListLinksRequest) (*tcplabv1.ListLinksResponse, error) {
	links, err := s.deployments.Links(ctx, req.GetDeployment(), nil)
	if err != nil {
		return nil, err
	}
	start := uint64(0)
	if token := req.GetPageToken(); token != "" {
		if start, err = strconv.ParseUint(token, 36, 32); err != nil || start > uint64(len(links)) {
			return nil, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "start again without a page token", "%q is no page token", token)
		}
	}
	response := &tcplabv1.ListLinksResponse{Links: links[start:]}
	if size := pageSize(req.GetPageSize(), defaultLinksPage); len(response.GetLinks()) > size {
		response.Links = response.GetLinks()[:size]
		response.NextPageToken = strconv.FormatUint(start+uint64(size), 36)
	}
	return response, nil
}

// WatchLinks sends links until the client has enough.
func (s *labService) WatchLinks(req *tcplabv1.WatchLinksRequest, stream grpc.ServerStreamingServer[tcplabv1.WatchLinksResponse]) error {
	interval := defaultWatchInterval
	if req.GetInterval() != nil {
		interval = req.GetInterval().AsDuration()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		links, err := s.deployments.Links(stream.Context(), req.GetDeployment(), req.GetLinks())
		if err != nil {
			return err
		}
		if err := stream.Send(&tcplabv1.WatchLinksResponse{Time: timestamppb.Now(), Links: links}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// UpdateLink changes a link.
func (s *labService) UpdateLink(ctx context.Context, req *tcplabv1.UpdateLinkRequest) (*tcplabv1.UpdateLinkResponse, error) {
	link, err := s.deployments.Update(ctx, req)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.UpdateLinkResponse{Link: link}, nil
}

// VerifyLinks measures links.
func (s *labService) VerifyLinks(ctx context.Context, req *tcplabv1.VerifyLinksRequest) (*tcplabv1.VerifyLinksResponse, error) {
	limit := defaultVerifyLimit
	if req.GetLimit() != nil {
		limit = req.GetLimit().AsDuration()
	}
	links, err := s.deployments.Verify(ctx, req.GetDeployment(), req.GetLinks(), limit)
	if err != nil {
		return nil, err
	}
	return &tcplabv1.VerifyLinksResponse{Links: links}, nil
}

// Exec runs a program in a node.
func (s *labService) Exec(stream grpc.BidiStreamingServer[tcplabv1.ExecRequest, tcplabv1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	return s.deployments.Exec(stream.Context(), first.GetDeployment(), first.GetInput(),
		func() (*tcplabv1.ProgramInput, error) {
			next, err := stream.Recv()
			return next.GetInput(), err
		},
		func(output *tcplabv1.ProgramOutput) error { return stream.Send(&tcplabv1.ExecResponse{Output: output}) })
}
